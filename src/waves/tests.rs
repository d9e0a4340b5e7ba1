#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::collections::BTreeMap;

use super::{counts::WrongCount, *};
use crate::{
    fleet::{Count, Share, WaveEnd},
    inventory::HostName,
};

mod one_host;
mod random;

/// Returns hosts of these names with their labels.
fn hosts(list: &[(&str, &[(&str, &str)])]) -> Vec<HostEntry> {
    let host = |(name, labels): &(&str, &[(&str, &str)])| {
        let mut host = HostEntry::named(HostName::new(name).unwrap());
        for (label, value) in *labels {
            host.labels.insert((*label).into(), (*value).into());
        }
        host
    };
    list.iter().map(host).collect()
}

/// Returns hosts `h0`, `h1` and so on without labels.
fn plain(number: usize) -> Vec<HostEntry> {
    (0..number)
        .map(|n| HostEntry::named(HostName::new(&format!("h{n}")).unwrap()))
        .collect()
}

/// Returns waves from text: `1 25% on:TERM`.
fn ends(text: &str) -> Vec<WaveEnd> {
    let end = |word: &str| match word.strip_prefix("on:") {
        Some(terms) => WaveEnd::Hosts {
            on: terms.parse().unwrap(),
        },
        None => word.parse::<Share>().unwrap().into(),
    };
    text.split_whitespace().map(end).collect()
}

fn policy<'a>(name: &'a str, waves: &'a [WaveEnd]) -> WavePolicy<'a> {
    WavePolicy {
        name,
        after: &[],
        waves: waves.iter().collect(),
        canary: false,
        spread: None,
        apart: None,
    }
}

fn entry(group: u16, host: u32) -> WaveEntry {
    WaveEntry {
        host,
        group,
        signalled: true,
        responsive: true,
    }
}

/// Returns this many entries of group 0 on each host.
fn on_each(numbers: &[usize]) -> Vec<WaveEntry> {
    let on_host = |(number, host): (&usize, u32)| vec![entry(0, host); *number];
    numbers.iter().zip(0..).flat_map(on_host).collect()
}

/// Returns the waves as lists of `HOST` or `HOST*NUMBER`.
fn drawn(entries: &[WaveEntry], waves: &[u16], hosts: &[HostEntry]) -> Vec<String> {
    let mut drawn: BTreeMap<u16, BTreeMap<u32, usize>> = BTreeMap::new();
    for (entry, wave) in entries.iter().zip(waves) {
        let numbers = drawn.entry(*wave).or_default();
        *numbers.entry(entry.host).or_default() += 1;
    }
    let host = |(host, number): (&u32, &usize)| {
        let name = hosts[*host as usize].name.as_str();
        match number {
            1 => name.to_owned(),
            number => format!("{name}*{number}"),
        }
    };
    let wave = |numbers: &BTreeMap<u32, usize>| {
        let hosts: Vec<String> = numbers.iter().map(host).collect();
        hosts.join(" ")
    };
    drawn.values().map(wave).collect()
}

/// Returns the drawn waves of one group.
fn waves_of(numbers: &[usize], hosts: &[HostEntry], policy: WavePolicy<'_>) -> Vec<String> {
    let entries = on_each(numbers);
    let waves = assign(&entries, hosts, &[policy], &Order::new()).unwrap();
    drawn(&entries, &waves, hosts)
}

#[test]
fn a_wave_takes_whole_hosts_until_its_share_of_instances_is_reached() {
    let hosts = plain(5);
    for (waves, wanted) in [
        ("1 100%", vec!["h0*2", "h1*2 h2*2 h3*2 h4*2"]),
        ("3 100%", vec!["h0*2 h1*2", "h2*2 h3*2 h4*2"]),
        ("25% 60%", vec!["h0*2 h1*2", "h2*2", "h3*2 h4*2"]),
        ("100%", vec!["h0*2 h1*2 h2*2 h3*2 h4*2"]),
        // Each share has one host more than the one before.
        ("1 10% 100%", vec!["h0*2", "h1*2", "h2*2 h3*2 h4*2"]),
    ] {
        let ends = ends(waves);
        let found = waves_of(&[2; 5], &hosts, policy("web", &ends));
        assert_eq!(found, wanted, "{waves}");
    }
}

#[test]
fn a_canary_is_one_instance_of_the_first_host_and_the_rest_of_it_comes_next() {
    let hosts = plain(3);
    for (waves, numbers, wanted) in [
        ("1 100%", [3, 3, 3], vec!["h0", "h0*2", "h1*3 h2*3"]),
        ("100%", [3, 3, 3], vec!["h0", "h0*2 h1*3 h2*3"]),
        ("1 100%", [1, 3, 3], vec!["h0", "h1*3 h2*3"]),
        ("100%", [1, 1, 3], vec!["h0", "h1 h2*3"]),
    ] {
        let ends = ends(waves);
        let policy = WavePolicy {
            canary: true,
            ..policy("web", &ends)
        };
        assert_eq!(waves_of(&numbers, &hosts, policy), wanted, "{waves}");
    }
}

#[test]
fn a_wave_of_hosts_takes_those_that_its_term_selects_and_counts_for_later_shares() {
    let canary: &[(&str, &str)] = &[("canary", "yes")];
    let hosts = hosts(&[
        ("a", &[]),
        ("b", canary),
        ("c", &[]),
        ("d", canary),
        ("e", &[]),
    ]);
    for (waves, wanted) in [
        ("on:canary=yes 100%", vec!["b d", "a c e"]),
        // The shares before a wave of hosts are taken from them.
        ("1 on:canary=yes 100%", vec!["b", "d", "a c e"]),
        ("on:canary=yes 60% 100%", vec!["b d", "a", "c e"]),
        ("on:e on:canary=yes,e", vec!["e", "b d", "a c"]),
        // A wave that adds nothing does not exist.
        ("on:canary=yes on:b 100%", vec!["b d", "a c e"]),
        ("60% on:b 100%", vec!["a b c", "d e"]),
    ] {
        let ends = ends(waves);
        let found = waves_of(&[1; 5], &hosts, policy("web", &ends));
        assert_eq!(found, wanted, "{waves}");
    }
}

#[test]
fn a_term_that_fits_no_host_of_the_run_is_an_error() {
    let ends = ends("on:canray=yes 100%");
    let found = assign(&[], &plain(2), &[policy("web", &ends)], &Order::new());
    let text = found.unwrap_err().to_string();
    let wanted = "`waves` of group `web`: no host fits `canray=yes` in this run";
    assert_eq!(text, wanted);
}

#[test]
fn a_label_that_no_host_has_is_an_error() {
    let known = hosts(&[("a", &[("pair", "1")]), ("b", &[])]);
    let with = |label| WavePolicy {
        apart: Some(label),
        ..policy("web", &[])
    };
    assert_eq!(check_labels(&known, &[with("pair")]), Ok(()));
    let fault = check_labels(&known, &[with("piar")]).unwrap_err();
    let wanted = "`apart` of group `web`: no host has the label `piar`";
    assert_eq!(fault.to_string(), wanted);
}

#[test]
fn the_values_of_the_label_spread_alternate() {
    let (a, b): (&[_], &[_]) = (&[("zone", "a")], &[("zone", "b")]);
    let hosts = hosts(&[
        ("a1", a),
        ("a2", a),
        ("a3", a),
        ("b1", b),
        ("b2", b),
        ("n", &[]),
    ]);
    let ends = ends("1 2 3 4 5");
    let policy = WavePolicy {
        spread: Some("zone"),
        ..policy("web", &ends)
    };
    let found = waves_of(&[1; 6], &hosts, policy);
    assert_eq!(found, ["a1", "b1", "n", "a2", "b2", "a3"]);
}

#[test]
fn two_hosts_of_a_pair_are_never_in_one_wave_of_any_groups() {
    let (one, two): (&[_], &[_]) = (&[("pair", "1")], &[("pair", "2")]);
    let hosts = hosts(&[("a", one), ("b", one), ("c", two), ("d", two), ("e", &[])]);
    let ends = ends("100%");
    let apart = WavePolicy {
        apart: Some("pair"),
        ..policy("web", &ends)
    };
    let found = waves_of(&[1; 5], &hosts, apart.clone());
    assert_eq!(found, ["a c e", "b d"]);
    // The other group is on one host of each pair, and has no label of its own.
    let entries = [entry(0, 0), entry(0, 3), entry(1, 1), entry(1, 2)];
    let policies = [apart, policy("db", &ends)];
    let waves = assign(&entries, &hosts, &policies, &Order::new()).unwrap();
    assert_eq!(waves, [1, 1, 2, 2]);
}

#[test]
fn a_host_apart_from_others_takes_one_wave_for_all_its_groups() {
    let one: &[(&str, &str)] = &[("pair", "1")];
    let hosts = hosts(&[("a", one), ("b", one)]);
    let ends = ends("100%");
    let apart = |name| WavePolicy {
        apart: Some("pair"),
        ..policy(name, &ends)
    };
    let entries = [entry(0, 0), entry(0, 1), entry(1, 0), entry(1, 1)];
    let policies = [apart("web"), apart("db")];
    let waves = assign(&entries, &hosts, &policies, &Order::new()).unwrap();
    assert_eq!(waves, [1, 2, 1, 2]);
}

#[test]
fn the_waves_that_apart_cuts_out_of_one_are_its_rounds() {
    let one: &[(&str, &str)] = &[("pair", "1")];
    let two: &[(&str, &str)] = &[("pair", "2")];
    let hosts = hosts(&[("a", two), ("b", one), ("c", one), ("d", one), ("e", two)]);
    let ends = ends("1 100%");
    let apart = WavePolicy {
        apart: Some("pair"),
        ..policy("web", &ends)
    };
    let entries: Vec<WaveEntry> = (0..5).map(|host| entry(0, host)).collect();
    let assigned = assign_rounds(&entries, &hosts, &[apart], &Order::new()).unwrap();
    // The first wave is one host. The other hosts are of the second one.
    assert_eq!(assigned.waves, [1, 2, 3, 4, 2]);
    assert_eq!(assigned.rounds, [Rounds::from([(2, 4), (3, 4)])]);
}

#[test]
fn hosts_with_one_value_take_turns_in_little_time() {
    let one: &[(&str, &str)] = &[("pair", "1")];
    let hosts: Vec<HostEntry> = vec![hosts(&[("a", one)]).remove(0); 20_000];
    let ends = ends("100%");
    let policy = WavePolicy {
        apart: Some("pair"),
        ..policy("web", &ends)
    };
    let entries = on_each(&[1; 20_000]);
    let waves = assign(
        &entries,
        &hosts,
        std::slice::from_ref(&policy),
        &Order::new(),
    );
    assert!(waves.unwrap().into_iter().eq(1..=20_000));
    let many = vec![hosts[0].clone(); 80_000];
    let waves = assign(&on_each(&[1; 80_000]), &many, &[policy], &Order::new());
    assert_eq!(waves, Err(WaveError::TooMany));
}

#[test]
fn unresponsive_instances_come_last_and_their_host_stays_whole() {
    let hosts = plain(3);
    let unresponsive = |host| WaveEntry {
        responsive: false,
        ..entry(0, host)
    };
    let entries = [
        unresponsive(0),
        unresponsive(1),
        entry(0, 1),
        entry(0, 1),
        entry(0, 2),
    ];
    let ends = ends("1 100%");
    let policy = WavePolicy {
        canary: true,
        ..policy("web", &ends)
    };
    let waves = assign(&entries, &hosts, &[policy], &Order::new()).unwrap();
    assert_eq!(waves, [3, 2, 1, 2, 3]);
}

#[test]
fn an_entry_without_a_signal_joins_the_first_wave_of_its_host_or_of_its_group() {
    let hosts = plain(3);
    let unchanged = |host| WaveEntry {
        signalled: false,
        ..entry(0, host)
    };
    let entries = [
        unchanged(0),
        unchanged(1),
        entry(0, 1),
        unchanged(2),
        entry(0, 2),
    ];
    let ends = ends("1 100%");
    let waves = assign(&entries, &hosts, &[policy("web", &ends)], &Order::new());
    assert_eq!(waves.unwrap(), [1, 1, 1, 2, 2]);
}

#[test]
fn a_wrong_number_of_instances_is_found_on_its_host_and_over_all() {
    let hosts = plain(3);
    let count = |min, max| Count { min, max };
    let policy = |count, per_host| CountPolicy {
        name: "web",
        hosts: &[0, 1, 2],
        count,
        per_host,
    };
    let any = count(0, usize::MAX);
    let entries = on_each(&[2, 1, 2]);
    let check = |refused: &[(u16, u32)], policy| {
        let wrong = check_per_host(&entries, refused, &hosts, &[policy])?;
        let host = wrong.host.map(|host| host.as_str().to_owned());
        Some((host, wrong.found))
    };
    assert_eq!(check(&[], policy(count(5, 5), Some(count(1, 2)))), None);
    let on_h1 = Some((Some("h1".to_owned()), 1));
    assert_eq!(check(&[], policy(any, Some(count(2, 2)))), on_h1);
    let over_all = Some((None, 5));
    assert_eq!(check(&[], policy(count(6, 6), Some(count(1, 2)))), over_all);
    // A refused instance counts towards the smallest number alone.
    assert_eq!(check(&[(0, 1)], policy(any, Some(count(2, 2)))), None);
    assert_eq!(check(&[(0, 0)], policy(any, Some(count(1, 2)))), None);
    // A host of the group without an instance has a wrong number too.
    let none = check_per_host(&[], &[], &hosts, &[policy(any, Some(count(1, 1)))]);
    let wanted = WrongCount {
        group: "web".into(),
        host: Some(HostName::new("h0").unwrap()),
        found: 0,
        wanted: count(1, 1),
    };
    assert_eq!(none, Some(wanted));
}
