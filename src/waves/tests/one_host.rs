//! A run on one host: instances in the sizes that `waves` asks for.

use proptest::prelude::*;

use super::*;

/// The ends of the waves of one group, straight from their definition.
fn cuts(waves: &[Share], total: usize, canary: bool) -> Vec<usize> {
    let has_extra = canary && waves.first().is_none_or(|w| w.rounded_up(total) > 1);
    let mut ends: Vec<usize> = Vec::new();
    let wanted = waves.iter().map(|wave| wave.rounded_up(total));
    for wanted in has_extra
        .then_some(1)
        .into_iter()
        .chain(wanted)
        .chain([total])
    {
        let last = ends.last().copied().unwrap_or(0);
        if last < total {
            ends.push(wanted.max(last + 1).min(total));
        }
    }
    ends
}

/// Returns the ends that `assign` makes of one group on one host.
fn assigned(waves: &[Share], total: usize, canary: bool) -> Vec<usize> {
    let waves: Vec<WaveEnd> = waves.iter().copied().map(WaveEnd::from).collect();
    let policy = WavePolicy {
        canary,
        ..policy("web", &waves)
    };
    let entries = vec![entry(0, 0); total];
    let waves = assign(&entries, &plain(1), &[policy], &Order::new()).unwrap();
    assert!(waves.is_sorted(), "{waves:?}");
    (1..=waves.last().copied().unwrap_or(0))
        .map(|wave| waves.partition_point(|found| *found <= wave))
        .collect()
}

#[test]
fn waves_of_instances_by_example() {
    for (text, total, canary, wanted) in [
        ("1,100%", 10, false, vec![1, 10]),
        ("1,100%", 10, true, vec![1, 10]),
        ("1,100%", 1, true, vec![1]),
        ("1,100%", 0, true, vec![]),
        ("100%", 10, false, vec![10]),
        ("100%", 10, true, vec![1, 10]),
        ("1,25%,100%", 10, false, vec![1, 3, 10]),
        ("1%,10%", 200, true, vec![1, 2, 20, 200]),
        ("1%,10%", 50, true, vec![1, 5, 50]),
        // A wave has at least one instance more than the one before.
        ("1,10%,100%", 5, false, vec![1, 2, 5]),
        ("1,10%,100%", 2, true, vec![1, 2]),
        ("5,10", 20, false, vec![5, 10, 20]),
    ] {
        let waves: Vec<Share> = text.split(',').map(|t| t.parse().unwrap()).collect();
        assert_eq!(assigned(&waves, total, canary), wanted, "{text} of {total}");
    }
}

#[test]
fn a_wave_of_hosts_is_all_instances_of_the_only_host() {
    let ends = ends("1 on:h0 100%");
    let found = waves_of(&[4], &plain(1), policy("web", &ends));
    assert_eq!(found, ["h0", "h0*3"]);
    // It has none of the group, which is on the other host alone.
    let ends = self::ends("on:h1 1 100%");
    let found = waves_of(&[4], &plain(2), policy("web", &ends));
    assert_eq!(found, ["h0", "h0*3"]);
}

fn share() -> impl Strategy<Value = Share> {
    prop_oneof![
        (1..9usize).prop_map(Share::Count),
        (1..=10_000u32).prop_map(Share::Part)
    ]
}

/// A group: its waves, whether it has a canary, the groups before it that come first, and for each
/// of its entries whether it is signalled and responsive.
type Drawn = (Vec<Share>, bool, Vec<bool>, Vec<(bool, bool)>);

fn groups() -> impl Strategy<Value = Vec<Drawn>> {
    let entry = (proptest::bool::weighted(0.8), proptest::bool::weighted(0.8));
    let group = (
        proptest::collection::vec(share(), 1..4),
        any::<bool>(),
        proptest::collection::vec(any::<bool>(), 4),
        proptest::collection::vec(entry, 0..14),
    );
    proptest::collection::vec(group, 1..5)
}

/// Assigns waves to the entries of one host from the definition: group after group, instance by
/// instance.
fn expected(groups: &[Drawn], entries: &[WaveEntry]) -> Vec<u16> {
    let mut begins: Vec<usize> = Vec::new();
    let mut lasts: Vec<usize> = Vec::new();
    let mut all_ends = Vec::new();
    for (waves, canary, after, instances) in groups {
        let before = (0..lasts.len()).filter(|group| after[*group]);
        let begin = before.map(|group| lasts[group]).max().unwrap_or(0);
        let total = instances.iter().filter(|(signalled, _)| *signalled).count();
        let ends = cuts(waves, total, *canary);
        begins.push(begin);
        lasts.push(begin + ends.len());
        all_ends.push(ends);
    }
    let responsive = |group: u16| {
        let is_one = |e: &&WaveEntry| e.group == group && e.signalled && e.responsive;
        entries.iter().filter(is_one).count()
    };
    let mut places: BTreeMap<(u16, bool), usize> = BTreeMap::new();
    let wave = |entry: &WaveEntry| {
        let group = usize::from(entry.group);
        let ends = &all_ends[group];
        if !entry.signalled {
            return if ends.is_empty() {
                1
            } else {
                begins[group] + 1
            };
        }
        let first = if entry.responsive {
            0
        } else {
            responsive(entry.group)
        };
        let key = (entry.group, entry.responsive);
        let place = places.entry(key).or_insert(first);
        *place += 1;
        begins[group] + ends.iter().take_while(|end| **end < *place).count() + 1
    };
    let waves = entries.iter().map(wave);
    waves.map(|wave| u16::try_from(wave).unwrap()).collect()
}

proptest! {
    #[test]
    fn every_instance_has_the_wave_that_its_group_defines(groups in groups(), seed: u64) {
        let names = ["g0", "g1", "g2", "g3"].map(str::to_owned);
        let ends: Vec<Vec<WaveEnd>> = groups
            .iter()
            .map(|group| group.0.iter().copied().map(WaveEnd::from).collect())
            .collect();
        let after: Vec<Vec<String>> = (0..groups.len())
            .map(|group| {
                let before = (0..group).filter(|before| groups[group].2[*before]);
                before.map(|before| names[before].clone()).collect()
            })
            .collect();
        let policies: Vec<WavePolicy<'_>> = (0..groups.len())
            .map(|group| WavePolicy {
                after: &after[group],
                canary: groups[group].1,
                ..policy(&names[group], &ends[group])
            })
            .collect();
        let mut entries: Vec<WaveEntry> = groups
            .iter()
            .zip(0..)
            .flat_map(|(group, index)| {
                group.3.iter().map(move |(signalled, responsive)| WaveEntry {
                    signalled: *signalled,
                    responsive: *responsive,
                    ..entry(index, 0)
                })
            })
            .collect();
        // Instances of several groups may read one target.
        let mut key = seed;
        entries.sort_by_cached_key(|_| {
            key = key.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            key >> 32
        });
        let found = assign(&entries, &plain(1), &policies, &Order::new()).unwrap();
        prop_assert_eq!(found, expected(&groups, &entries));
    }

    #[test]
    fn more_instances_never_make_fewer_waves(
        waves in proptest::collection::vec(share(), 1..6),
        canary: bool,
    ) {
        let mut before = 0;
        for total in 0..400 {
            let ends = assigned(&waves, total, canary);
            prop_assert!(ends.len() >= before, "{} of {total}: {ends:?}", waves.len());
            before = ends.len();
        }
    }
}
