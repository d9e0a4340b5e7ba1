//! Waves of random groups.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::fleet::OnBadConfig;

/// One group: its waves, whether it has a kind, whether a bad config ends it, and which of the
/// groups before it comes first. Last its instances: the index of the file that each reads (three
/// is none), and whether it runs what is on disk.
type Part = (Vec<Share>, bool, bool, Vec<bool>, Vec<(usize, bool)>);

fn share() -> impl Strategy<Value = Share> {
    prop_oneof![
        (1..9usize).prop_map(Share::Count),
        (1..=10_000u32).prop_map(Share::Part)
    ]
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    let instances = proptest::collection::vec((0..4usize, proptest::bool::weighted(0.2)), 0..14);
    let part = (
        proptest::collection::vec(share(), 1..4),
        any::<bool>(),
        any::<bool>(),
        proptest::collection::vec(any::<bool>(), 4),
        instances,
    );
    proptest::collection::vec(part, 1..5)
}

fn name(index: usize) -> String {
    // The order by name is the opposite of the order by `after`.
    format!("group{}", 9 - index)
}

fn groups(parts: &[Part]) -> Vec<Arc<Group>> {
    let resolve = |(index, (waves, has_kind, dies, after, _)): (usize, &Part)| {
        let mut group = (*group(&name(index), 1, *has_kind)).clone();
        group.rollout = Rollout {
            waves: waves.iter().copied().map(WaveEnd::from).collect(),
            ..Rollout::default()
        };
        group.on_bad_config = if *dies {
            OnBadConfig::Dies
        } else {
            OnBadConfig::Keeps
        };
        group.after = (0..index)
            .filter(|before| after[*before])
            .map(name)
            .collect();
        Arc::new(group)
    };
    parts.iter().enumerate().map(resolve).collect()
}

fn instances(parts: &[Part], groups: &[Arc<Group>]) -> Vec<PlannedInstance> {
    let planned = |group: usize, n: usize, (target, is_current): (usize, bool)| {
        let targets: Vec<PathBuf> = (target < 3).then(|| path(target)).into_iter().collect();
        let pid = i32::try_from(100 * group + n + 1).unwrap();
        let mut planned = instance(&groups[group], pid, &targets);
        planned.instance.before =
            (is_current && target < 3).then(|| file(&format!("old {target}")).sha256);
        planned
    };
    let mut instances = Vec::new();
    for (group, part) in parts.iter().enumerate() {
        for (n, drawn) in part.4.iter().enumerate() {
            instances.push(planned(group, n, *drawn));
        }
    }
    instances
}

fn is_signalled(instance: &PlannedInstance) -> bool {
    instance.instance.outcome != Outcome::Unchanged
}

/// The instances of one group, with their waves.
fn in_group<'a>(
    plan: &'a Plan,
    group: &'a str,
) -> impl Iterator<Item = (usize, &'a PlannedInstance)> {
    let instances = plan.waves.iter().flat_map(|w| {
        w.steps
            .iter()
            .flat_map(|s| &s.instances)
            .map(|m| (w.number, m))
    });
    instances.filter(move |(_, m)| m.instance.group == group)
}

/// Tells whether `signalled` of `total` instances are as many as a wave asks for.
fn is_enough(share: Share, total: usize, signalled: usize) -> bool {
    match share {
        Share::Count(n) => signalled >= n || signalled == total,
        Share::Part(part) => signalled * 10_000 >= total * part as usize,
    }
}

fn share_of(end: &WaveEnd) -> Option<Share> {
    match end {
        WaveEnd::Share(share) => Some(*share),
        WaveEnd::Hosts { .. } => None,
    }
}

/// Checks the cumulative numbers of signalled instances against the waves of a group. `total` of
/// its instances are signalled.
fn check_ends(group: &Group, total: usize, ends: &[usize]) -> Result<(), TestCaseError> {
    let canary = group.kind.is_none() || group.on_bad_config == OnBadConfig::Dies;
    prop_assert!(!canary || total == 0 || ends[0] == 1, "{:?}", ends);
    let waves: Vec<Share> = group.rollout.waves.iter().filter_map(share_of).collect();
    // A canary that the group did not ask for is one more wave.
    let has_extra = canary && !is_enough(waves[0], total, 1);
    let own = ends.get(usize::from(has_extra)..).unwrap_or_default();
    for (share, end) in waves.iter().zip(own) {
        prop_assert!(
            is_enough(*share, total, *end),
            "{share} of {total}, not {end}"
        );
    }
    for (index, end) in own.iter().enumerate().filter(|(_, end)| **end != total) {
        // Each wave so far may have one instance more than asked for, so as not to be empty.
        let fewer = end.saturating_sub(index + 1);
        let is_needed = waves
            .iter()
            .take(index + 1)
            .any(|share| !is_enough(*share, total, fewer));
        prop_assert!(is_needed, "{end} of {total} is more than {waves:?}");
    }
    prop_assert!(own.len() <= waves.len() + 1);
    Ok(())
}

proptest! {
    #[test]
    fn every_instance_is_in_one_wave_and_no_wave_is_empty(parts in parts()) {
        let groups = groups(&parts);
        let found = instances(&parts, &groups);
        let plan = plan(found.clone(), &groups);
        let mut placed: Vec<(i32, u64)> = plan
            .steps()
            .flat_map(|s| &s.instances)
            .map(|m| m.id)
            .collect();
        placed.sort_unstable();
        prop_assert_eq!(placed, found.iter().map(|m| m.id).collect::<Vec<_>>());
        prop_assert!(plan.waves.iter().map(|w| w.number).eq(1..=plan.waves.len()));
        for wave in &plan.waves {
            let instances: Vec<&PlannedInstance> =
                wave.steps.iter().flat_map(|s| &s.instances).collect();
            prop_assert!(instances.iter().all(|m| m.instance.wave == wave.number));
            let signals = instances.iter().any(|m| is_signalled(m));
            prop_assert!(signals || plan.waves.len() == 1, "wave {} is empty", wave.number);
            for step in &wave.steps {
                prop_assert!(step.instances.windows(2).all(|pair| pair[0].id < pair[1].id));
            }
        }
    }

    #[test]
    fn waves_have_the_sizes_of_their_group_and_an_unknown_program_has_a_canary(parts in parts()) {
        let groups = groups(&parts);
        let plan = plan(instances(&parts, &groups), &groups);
        for group in &groups {
            let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
            for (wave, _) in in_group(&plan, &group.name).filter(|(_, m)| is_signalled(m)) {
                *counts.entry(wave).or_default() += 1;
            }
            let begins = counts.keys().next().copied().unwrap_or(1);
            let successive = begins..begins + counts.len();
            prop_assert!(counts.keys().copied().eq(successive), "{:?}", counts);
            let mut unchanged = in_group(&plan, &group.name).filter(|(_, m)| !is_signalled(m));
            prop_assert!(
                unchanged.all(|(wave, _)| wave == begins),
                "an unchanged instance takes no place"
            );
            let mut ends: Vec<usize> = Vec::new();
            for number in counts.values() {
                ends.push(ends.last().copied().unwrap_or(0) + number);
            }
            check_ends(group, counts.values().sum(), &ends)?;
        }
    }

    #[test]
    fn a_group_begins_after_the_last_wave_of_those_before_it(parts in parts()) {
        let groups = groups(&parts);
        let plan = plan(instances(&parts, &groups), &groups);
        let mut before: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for group in &groups {
            let names = group
                .after
                .iter()
                .flat_map(|name| before[name.as_str()].iter().copied().chain([name.as_str()]))
                .collect();
            before.insert(&group.name, names);
        }
        let waves = |name: &str| {
            in_group(&plan, name)
                .filter(|(_, m)| is_signalled(m))
                .map(|(wave, _)| wave)
                .collect::<BTreeSet<usize>>()
        };
        for group in &groups {
            let ends = before[group.name.as_str()]
                .iter()
                .filter_map(|name| waves(name).last().copied())
                .max();
            let begins = waves(&group.name).first().copied();
            prop_assert!(
                begins.is_none_or(|begins| begins == ends.unwrap_or(0) + 1),
                "{}: {:?} after {:?}",
                group.name,
                begins,
                ends
            );
        }
    }

    #[test]
    fn the_order_in_which_they_are_found_changes_nothing(parts in parts(), seed: u64) {
        let groups = groups(&parts);
        let found = instances(&parts, &groups);
        let mut mixed = found.clone();
        mixed.sort_by_key(|m| u64::from(m.instance.pid.unsigned_abs()).wrapping_mul(seed | 1));
        let shape = |plan: &Plan| {
            let step = |s: &Step| {
                (
                    s.changes.iter().map(|s| s.path.clone()).collect::<Vec<_>>(),
                    s.instances.iter().map(|m| m.id).collect::<Vec<_>>(),
                )
            };
            plan.waves
                .iter()
                .map(|w| w.steps.iter().map(step).collect::<Vec<_>>())
                .collect::<Vec<_>>()
        };
        let reversed: Vec<_> = groups.iter().rev().cloned().collect();
        prop_assert_eq!(
            shape(&plan(found, &groups)),
            shape(&plan(mixed, &reversed)),
            "nor does that of the groups"
        );
    }

    #[test]
    fn one_more_instance_never_empties_a_wave(
        parts in parts(),
        group in any::<proptest::sample::Index>(),
        target in 0..4usize,
        more in 0..15usize,
    ) {
        let groups = groups(&parts);
        let mut found = instances(&parts, &groups);
        let group = group.index(groups.len());
        let mut before = plan(found.clone(), &groups).waves.len();
        for n in 0..more {
            let targets: Vec<PathBuf> = (target < 3).then(|| path(target)).into_iter().collect();
            found.push(instance(
                &groups[group],
                i32::try_from(100 * group + 50 + n).unwrap(),
                &targets,
            ));
            let now = plan(found.clone(), &groups).waves.len();
            prop_assert!(
                now >= before,
                "{} waves of {}, then {}",
                before,
                found.len() - 1,
                now
            );
            before = now;
        }
    }
}
