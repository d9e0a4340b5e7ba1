//! Waves of random groups over random hosts.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const ZONES: [&str; 3] = ["a", "b", "c"];
const PAIRS: [&str; 4] = ["1", "2", "3", "4"];
const NAMES: [&str; 4] = ["g0", "g1", "g2", "g3"];

/// A group over hosts.
#[derive(Debug, Clone)]
struct Drawn {
    waves: Vec<WaveEnd>,
    canary: bool,
    spread: Option<&'static str>,
    apart: Option<&'static str>,
    after: Vec<String>,
}

/// A run: hosts, groups and entries.
#[derive(Debug, Clone)]
struct Run {
    hosts: Vec<HostEntry>,
    groups: Vec<Drawn>,
    entries: Vec<WaveEntry>,
}

impl Run {
    fn policies(&self) -> Vec<WavePolicy<'_>> {
        self.groups
            .iter()
            .zip(NAMES)
            .map(|(group, name)| WavePolicy {
                name,
                after: &group.after,
                waves: group.waves.iter().collect(),
                canary: group.canary,
                spread: group.spread,
                apart: group.apart,
            })
            .collect()
    }

    fn assign(&self) -> Vec<u16> {
        assign(&self.entries, &self.hosts, &self.policies(), &Order::new()).unwrap()
    }

    /// Returns the waves of signalled entries by group and host, with the number of each.
    fn by_host(&self, waves: &[u16]) -> BTreeMap<(u16, u32), BTreeMap<u16, usize>> {
        let mut found: BTreeMap<(u16, u32), BTreeMap<u16, usize>> = BTreeMap::new();
        for (entry, wave) in self.signalled(waves) {
            let numbers = found.entry((entry.group, entry.host)).or_default();
            *numbers.entry(wave).or_default() += 1;
        }
        found
    }

    fn signalled(&self, waves: &[u16]) -> Vec<(WaveEntry, u16)> {
        let both = self.entries.iter().copied().zip(waves.iter().copied());
        both.filter(|(entry, _)| entry.signalled).collect()
    }

    /// Returns the waves in which a group signals an instance.
    fn of_group(&self, waves: &[u16], group: u16) -> BTreeSet<u16> {
        let all = self.signalled(waves).into_iter();
        all.filter(|(entry, _)| entry.group == group)
            .map(|(_, wave)| wave)
            .collect()
    }
}

fn host() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    (
        proptest::option::weighted(0.8, proptest::sample::select(&ZONES[..])),
        proptest::option::weighted(0.8, proptest::sample::select(&PAIRS[..])),
        proptest::bool::weighted(0.3),
    )
        .prop_map(|(zone, pair, canary)| {
            let zone = zone.map(|zone| ("zone", zone));
            let pair = pair.map(|pair| ("pair", pair));
            let canary = canary.then_some(("canary", "yes"));
            [zone, pair, canary].into_iter().flatten().collect()
        })
}

fn end() -> impl Strategy<Value = WaveEnd> {
    prop_oneof![
        2 => (1..9usize).prop_map(|n| Share::Count(n).into()),
        2 => (1..=10_000u32).prop_map(|n| Share::Part(n).into()),
        1 => proptest::sample::select(&["canary=yes", "zone=a", "h1", "!zone=a"][..])
            .prop_map(|on| WaveEnd::Hosts { on: on.parse().unwrap() }),
    ]
}

fn group() -> impl Strategy<Value = (Drawn, Vec<bool>)> {
    let label = || proptest::option::of(proptest::sample::select(&["zone", "pair"][..]));
    (
        proptest::collection::vec(end(), 1..5),
        any::<bool>(),
        label(),
        label(),
        proptest::collection::vec(any::<bool>(), 3),
    )
        .prop_map(|(waves, canary, spread, apart, after)| {
            let drawn = Drawn {
                waves,
                canary,
                spread,
                apart,
                after: Vec::new(),
            };
            (drawn, after)
        })
}

fn run() -> impl Strategy<Value = Run> {
    let entry = (
        any::<proptest::sample::Index>(),
        any::<proptest::sample::Index>(),
        proptest::bool::weighted(0.85),
        proptest::bool::weighted(0.85),
    );
    (
        proptest::collection::vec(host(), 0..9),
        proptest::collection::vec(group(), 1..5),
        proptest::collection::vec(entry, 0..40),
    )
        .prop_map(|(labels, groups, entries)| {
            // Each term fits one of these two.
            let all = [("zone", "a"), ("pair", "1"), ("canary", "yes")];
            let labels = [all.to_vec(), vec![("pair", "1")]]
                .into_iter()
                .chain(labels);
            let labels: Vec<_> = labels.collect();
            let mut hosts = plain(labels.len());
            for (host, labels) in hosts.iter_mut().zip(labels) {
                let owned = |(label, value): (&str, &str)| (label.to_owned(), value.to_owned());
                host.labels = labels.into_iter().map(owned).collect();
            }
            let with_after = |(index, (group, after)): (usize, (Drawn, Vec<bool>))| {
                let before = (0..index).filter(|before| after[*before]);
                let after = before.map(|before| NAMES[before].to_owned()).collect();
                Drawn { after, ..group }
            };
            let groups: Vec<Drawn> = groups.into_iter().enumerate().map(with_after).collect();
            let entry = |(group, host, signalled, responsive): (
                proptest::sample::Index,
                proptest::sample::Index,
                bool,
                bool,
            )| WaveEntry {
                host: u32::try_from(host.index(hosts.len())).unwrap(),
                group: u16::try_from(group.index(groups.len())).unwrap(),
                signalled,
                responsive,
            };
            let entries = entries.into_iter().map(entry).collect();
            Run {
                hosts,
                groups,
                entries,
            }
        })
}

proptest! {
    #[test]
    fn every_entry_has_a_wave_and_every_wave_has_a_signal(run in run()) {
        let waves = run.assign();
        prop_assert_eq!(waves.len(), run.entries.len());
        let last = waves.iter().copied().max().unwrap_or(0);
        let used: BTreeSet<u16> = run.signalled(&waves).into_iter().map(|(_, w)| w).collect();
        if used.is_empty() {
            prop_assert!(last <= 1);
        } else {
            prop_assert!(used.into_iter().eq(1..=last), "{waves:?}");
        }
    }

    #[test]
    fn a_host_is_whole_but_for_one_instance_of_the_canary(run in run()) {
        let waves = run.assign();
        for (group, drawn) in run.groups.iter().enumerate() {
            let group = u16::try_from(group).unwrap();
            let by_host = run.by_host(&waves);
            let own: Vec<_> = by_host.iter().filter(|((g, _), _)| *g == group).collect();
            if own.len() < 2 {
                continue;
            }
            let split: Vec<_> = own.iter().filter(|(_, numbers)| numbers.len() > 1).collect();
            prop_assert!(split.len() <= usize::from(drawn.canary), "{split:?}");
            let first = run.of_group(&waves, group).first().copied().unwrap();
            for (_, numbers) in split {
                prop_assert_eq!(numbers.len(), 2);
                prop_assert_eq!(numbers.first_key_value(), Some((&first, &1)));
            }
        }
    }

    #[test]
    fn a_group_with_a_canary_begins_with_one_instance_that_answers_if_its_host_has_one(
        run in run(),
    ) {
        let waves = run.assign();
        for (group, _) in run.groups.iter().enumerate().filter(|(_, drawn)| drawn.canary) {
            let group = u16::try_from(group).unwrap();
            let own = |entry: &WaveEntry| entry.group == group;
            let signalled = run.signalled(&waves);
            let Some(first) = run.of_group(&waves, group).first().copied() else {
                continue;
            };
            let first: Vec<_> = signalled
                .iter()
                .filter(|(entry, wave)| own(entry) && *wave == first)
                .collect();
            prop_assert_eq!(first.len(), 1, "{:?}", first);
            let canary = first[0].0;
            let answers = |(entry, _): &(WaveEntry, u16)| {
                own(entry) && entry.host == canary.host && entry.responsive
            };
            prop_assert!(canary.responsive || !signalled.iter().any(answers));
        }
    }

    #[test]
    fn hosts_with_one_value_of_a_label_apart_are_never_in_one_wave(run in run()) {
        let waves = run.assign();
        let labels: BTreeSet<&str> = run.groups.iter().filter_map(|group| group.apart).collect();
        for label in labels {
            let mut taken: BTreeMap<(u16, &str), u32> = BTreeMap::new();
            for (entry, wave) in run.signalled(&waves) {
                if let Some(value) = run.hosts[entry.host as usize].labels.get(label) {
                    let other = *taken.entry((wave, value)).or_insert(entry.host);
                    prop_assert_eq!(other, entry.host, "wave {} of {}={}", wave, label, value);
                }
            }
        }
    }

    #[test]
    fn a_group_begins_behind_all_groups_that_it_comes_after(run in run()) {
        let waves = run.assign();
        let mut lasts: BTreeMap<&str, u16> = BTreeMap::new();
        for (group, drawn) in run.groups.iter().enumerate() {
            let before = drawn.after.iter().map(|name| lasts[name.as_str()]);
            let begin = before.max().unwrap_or(0);
            let own = run.of_group(&waves, u16::try_from(group).unwrap());
            prop_assert!(own.first().is_none_or(|first| *first > begin));
            lasts.insert(NAMES[group], own.last().copied().unwrap_or(begin));
        }
    }

    /// Without hosts apart, the waves of a group follow each other, and each has its share.
    #[test]
    fn waves_are_cumulative(run in run()) {
        let mut run = run;
        run.groups.iter_mut().for_each(|group| group.apart = None);
        let waves = run.assign();
        for (group, drawn) in run.groups.iter().enumerate() {
            let group = u16::try_from(group).unwrap();
            let own = run.of_group(&waves, group);
            let Some(first) = own.first().copied() else { continue };
            let is_next = own.iter().copied().eq(first..first + u16::try_from(own.len()).unwrap());
            prop_assert!(is_next, "{own:?}");
            let by_wave = |end: u16| {
                let signalled = run.signalled(&waves);
                signalled.iter().filter(|(e, w)| e.group == group && *w <= end).count()
            };
            let total = by_wave(u16::MAX);
            // Each share is the end of a wave, or smaller than one that came before.
            prop_assert!(own.len() <= drawn.waves.len() + 1 + usize::from(drawn.canary));
            for (index, end) in drawn.waves.iter().enumerate() {
                let Ok(index) = u16::try_from(index) else { continue };
                if let WaveEnd::Share(share) = end {
                    let last = first + index + u16::from(drawn.canary);
                    prop_assert!(by_wave(last) >= share.rounded_up(total));
                }
            }
        }
    }

    #[test]
    fn the_order_of_the_entries_changes_no_host(run in run(), seed: u64) {
        let mut mixed = run.clone();
        let mut key = seed;
        mixed.entries.sort_by_cached_key(|_| {
            key = key.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            key >> 32
        });
        prop_assert_eq!(run.by_host(&run.assign()), mixed.by_host(&mixed.assign()));
    }

    #[test]
    fn no_zone_is_ahead_of_another_that_has_hosts_left(
        zones in proptest::collection::vec(proptest::option::of(0..3usize), 2..30),
        taken in 1..30usize,
    ) {
        let mut hosts = plain(zones.len());
        for (host, zone) in hosts.iter_mut().zip(&zones) {
            let zone = zone.map(|zone| ("zone".to_owned(), ZONES[zone].to_owned()));
            host.labels.extend(zone);
        }
        let ends: Vec<WaveEnd> = vec![Share::Count(taken).into()];
        let policy = WavePolicy { spread: Some("zone"), ..policy("web", &ends) };
        let entries = on_each(&vec![1; zones.len()]);
        let waves = assign(&entries, &hosts, &[policy], &Order::new()).unwrap();
        let mut numbers: BTreeMap<Option<usize>, (usize, usize)> = BTreeMap::new();
        for (zone, wave) in zones.iter().zip(&waves) {
            let (first, later) = numbers.entry(*zone).or_default();
            *(if *wave == 1 { first } else { later }) += 1;
        }
        for (ahead, _) in numbers.values() {
            for (behind, _) in numbers.values().filter(|(_, later)| *later > 0) {
                prop_assert!(*ahead <= behind + 1, "{numbers:?}");
            }
        }
    }

    #[test]
    fn hosts_apart_make_no_more_waves_than_the_largest_value_has_hosts(
        pairs in proptest::collection::vec(proptest::option::of(0..4usize), 2..30),
    ) {
        let mut hosts = plain(pairs.len());
        let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
        for (host, pair) in hosts.iter_mut().zip(&pairs) {
            if let Some(pair) = pair {
                host.labels.insert("pair".into(), PAIRS[*pair].into());
                *sizes.entry(*pair).or_default() += 1;
            }
        }
        let ends = ends("100%");
        let policy = WavePolicy { apart: Some("pair"), ..policy("web", &ends) };
        let entries = on_each(&vec![1; pairs.len()]);
        let waves = assign(&entries, &hosts, &[policy], &Order::new()).unwrap();
        let largest = sizes.into_values().max().unwrap_or(1);
        prop_assert_eq!(waves.into_iter().max().map(usize::from), Some(largest));
    }
}
