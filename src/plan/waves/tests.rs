#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::step::PlannedInstance;
use crate::{
    change::ChangeRequest,
    fleet::Rollout,
    plan::{
        Plan,
        tests::{file, group, member, planned, seen},
    },
};

/// One group: its waves, whether it has a kind, what a bad config does to it, which of the groups
/// before it it comes after, and its instances: which of three files each reads (or none), and
/// whether it runs what is on the disk.
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

fn name(at: usize) -> String {
    // What comes first by name comes last by `after`, so that neither order is taken for the other.
    format!("group{}", 9 - at)
}

fn groups(parts: &[Part]) -> Vec<Arc<Group>> {
    let one = |(at, (waves, kind, dies, after, _)): (usize, &Part)| {
        let mut group = (*group(&name(at), 1, *kind)).clone();
        group.rollout = Rollout {
            waves: waves.clone(),
            ..Rollout::default()
        };
        group.on_bad_config = if *dies {
            OnBadConfig::Dies
        } else {
            OnBadConfig::Keeps
        };
        group.after = (0..at).filter(|before| after[*before]).map(name).collect();
        Arc::new(group)
    };
    parts.iter().enumerate().map(one).collect()
}

fn path(target: usize) -> PathBuf {
    format!("/{target}").into()
}

fn members(parts: &[Part], groups: &[Arc<Group>]) -> Vec<PlannedInstance> {
    let one = |at: usize, n: usize, (target, runs): (usize, bool)| {
        let targets: Vec<PathBuf> = (target < 3).then(|| path(target)).into_iter().collect();
        let mut member = member(
            &groups[at],
            i32::try_from(100 * at + n + 1).unwrap(),
            &targets,
        );
        member.instance.before =
            (runs && target < 3).then(|| file(&format!("old {target}")).sha256);
        member
    };
    parts
        .iter()
        .enumerate()
        .flat_map(|(at, part)| part.4.iter().enumerate().map(move |(n, i)| one(at, n, *i)))
        .collect()
}

fn plan(members: Vec<PlannedInstance>, groups: &[Arc<Group>]) -> Plan {
    planned(
        seen(
            members,
            (0..3).map(|t| (path(t), file(&format!("old {t}")))),
        ),
        groups,
        &ChangeRequest::default(),
    )
    .unwrap()
}

fn works(member: &PlannedInstance) -> bool {
    member.instance.outcome != Outcome::Unchanged
}

fn of<'a>(plan: &'a Plan, group: &'a str) -> impl Iterator<Item = (usize, &'a PlannedInstance)> {
    let all = plan.waves.iter().flat_map(|w| {
        w.steps
            .iter()
            .flat_map(|s| &s.instances)
            .map(|m| (w.number, m))
    });
    all.filter(move |(_, m)| m.instance.group == group)
}

/// In how many hundredths of a percent, and of how many, so many are enough.
fn enough(share: Share, all: usize, so_many: usize) -> bool {
    match share {
        Share::Count(n) => so_many >= n || so_many == all,
        Share::Part(part) => so_many * 10_000 >= all * part as usize,
    }
}

proptest! {
    #[test]
    fn everybody_is_in_one_wave_and_no_wave_is_empty(parts in parts()) {
        let groups = groups(&parts);
        let all = members(&parts, &groups);
        let plan = plan(all.clone(), &groups);
        let ids = |members: Vec<&PlannedInstance>| members.iter().map(|m| m.id).collect::<Vec<_>>();
        let mut placed = ids(plan.steps().flat_map(|s| &s.instances).collect());
        placed.sort_unstable();
        prop_assert_eq!(placed, ids(all.iter().collect()), "everybody once");
        prop_assert!(plan.waves.iter().map(|w| w.number).eq(1..=plan.waves.len()));
        for wave in &plan.waves {
            let members: Vec<&PlannedInstance> = wave.steps.iter().flat_map(|s| &s.instances).collect();
            prop_assert!(
                members.iter().all(|m| m.instance.wave == wave.number),
                "everybody is \
                    told which"
            );
            prop_assert!(
                members.iter().any(|m| works(m)) || plan.waves.len() == 1,
                "wave {} \
                    signals nobody",
                wave.number
            );
            prop_assert!(
                wave.steps
                    .iter()
                    .all(|s| s.instances.windows(2).all(|pair| pair[0].id < pair[1].id))
            );
        }
    }

    #[test]
    fn waves_are_what_their_group_says_and_the_first_of_an_unknown_program_is_one_alone(
        parts in parts(),
    ) {
        let groups = groups(&parts);
        let plan = plan(members(&parts, &groups), &groups);
        for group in &groups {
            let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
            of(&plan, &group.name)
                .filter(|(_, m)| works(m))
                .for_each(|(wave, _)| *counts.entry(wave).or_default() += 1);
            let all: usize = counts.values().sum();
            let begins = counts.keys().next().copied().unwrap_or(1);
            prop_assert!(
                counts.keys().copied().eq(begins..begins + counts.len()),
                "one wave \
                    after the other: {:?}",
                counts
            );
            prop_assert!(
                of(&plan, &group.name)
                    .filter(|(_, m)| !works(m))
                    .all(|(wave, _)| wave == begins),
                "who needs no signal takes nobody's place"
            );
            let ends: Vec<usize> = counts
                .values()
                .scan(0, |sum, n| {
                    *sum += n;
                    Some(*sum)
                })
                .collect();
            let unsure = group.kind.is_none() || group.on_bad_config == OnBadConfig::Dies;
            prop_assert!(
                !unsure || all == 0 || ends[0] == 1,
                "one alone first: {:?}",
                ends
            );
            // A canary that nobody has asked for is one more wave.
            let more = unsure && !enough(group.rollout.waves[0], all, 1);
            let own = ends.get(usize::from(more)..).unwrap_or_default();
            for (share, end) in group.rollout.waves.iter().zip(own) {
                prop_assert!(
                    enough(*share, all, *end),
                    "{} of {} is more than \
                        {}",
                    share,
                    all,
                    end
                );
            }
            for (at, end) in own.iter().enumerate().filter(|(_, end)| **end != all) {
                // Each of the waves until here may have one more than it asks for, so as not to be
                // empty.
                let fits = |share: &Share| !enough(*share, all, end.saturating_sub(at + 1));
                prop_assert!(
                    group.rollout.waves.iter().take(at + 1).any(fits),
                    "{} of {} is more \
                        than any asks for: {:?}",
                    end,
                    all,
                    group.rollout.waves
                );
            }
            prop_assert!(own.len() <= group.rollout.waves.len() + 1);
        }
    }

    #[test]
    fn a_group_begins_when_those_before_it_are_done(parts in parts()) {
        let groups = groups(&parts);
        let plan = plan(members(&parts, &groups), &groups);
        let mut before: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for group in &groups {
            let all = group
                .after
                .iter()
                .flat_map(|name| before[name.as_str()].iter().copied().chain([name.as_str()]))
                .collect();
            before.insert(&group.name, all);
        }
        let waves = |name: &str| {
            of(&plan, name)
                .filter(|(_, m)| works(m))
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
                "{}: {:?} \
                    after {:?}",
                group.name,
                begins,
                ends
            );
        }
    }

    #[test]
    fn the_order_in_which_they_are_found_changes_nothing(parts in parts(), seed: u64) {
        let groups = groups(&parts);
        let all = members(&parts, &groups);
        let mut mixed = all.clone();
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
            shape(&plan(all, &groups)),
            shape(&plan(mixed, &reversed)),
            "nor does \
                that of the groups"
        );
    }

    #[test]
    fn one_more_instance_never_empties_a_wave(
        parts in parts(),
        at in any::<proptest::sample::Index>(),
        target in 0..4usize,
        more in 0..15usize,
    ) {
        let groups = groups(&parts);
        let mut all = members(&parts, &groups);
        let at = at.index(groups.len());
        let mut before = plan(all.clone(), &groups).waves.len();
        for n in 0..more {
            let targets: Vec<PathBuf> = (target < 3).then(|| path(target)).into_iter().collect();
            all.push(member(
                &groups[at],
                i32::try_from(100 * at + 50 + n).unwrap(),
                &targets,
            ));
            let now = plan(all.clone(), &groups).waves.len();
            prop_assert!(
                now >= before,
                "{} waves of {}, then {}",
                before,
                all.len() - 1,
                now
            );
            before = now;
        }
    }

    /// Also where there are far more instances than a plan is made of here.
    #[test]
    fn more_instances_never_make_fewer_waves(
        waves in proptest::collection::vec(share(), 1..6),
        canary: bool,
    ) {
        let mut before = 0;
        for all in 0..1_000 {
            let ends = cuts(&waves, all, canary);
            prop_assert!(
                ends.len() >= before,
                "{} of {}: {:?}",
                waves.len(),
                all,
                ends
            );
            prop_assert!(
                ends.windows(2).all(|pair| pair[0] < pair[1])
                    && ends.first().is_none_or(|first| *first > 0)
            );
            prop_assert_eq!(ends.last().copied().unwrap_or(0), all);
            before = ends.len();
        }
    }
}

#[test]
fn cuts_by_example() {
    let cut = |text: &str, all: usize, canary: bool| {
        cuts(
            &text
                .split(',')
                .map(|t| t.parse().unwrap())
                .collect::<Vec<Share>>(),
            all,
            canary,
        )
    };
    for (text, all, canary, wanted) in [
        ("1,100%", 10, false, vec![1, 10]),
        ("1,100%", 10, true, vec![1, 10]),
        ("1,100%", 1, true, vec![1]),
        ("1,100%", 0, true, vec![]),
        ("100%", 10, false, vec![10]),
        ("100%", 10, true, vec![1, 10]),
        ("1,25%,100%", 10, false, vec![1, 3, 10]),
        ("1%,10%", 200, true, vec![1, 2, 20, 200]),
        ("1%,10%", 50, true, vec![1, 5, 50]),
        // Of few, a wave that asks for no more than the one before has one more all the same.
        ("1,10%,100%", 5, false, vec![1, 2, 5]),
        ("1,10%,100%", 2, true, vec![1, 2]),
        ("5,10", 20, false, vec![5, 10, 20]),
    ] {
        assert_eq!(cut(text, all, canary), wanted, "{text} of {all}");
    }
}

#[test]
fn a_wave_bakes_as_long_as_the_slowest_of_its_groups_and_asks_each_gate_once() {
    let of = |name: &str, bake: u64, gate: &[&str], after: &[&str]| {
        let mut one = (*group(name, 1, true)).clone();
        one.after = after.iter().map(|name| (*name).to_owned()).collect();
        let gate = gate.iter().map(|word| (*word).to_owned()).collect();
        one.rollout = Rollout {
            waves: vec![Share::Part(10_000)],
            bake: Duration::from_secs(bake),
            gate,
            ..Rollout::default()
        };
        Arc::new(one)
    };
    let groups = [
        of("a", 1, &["g"], &[]),
        of("b", 2, &["g"], &[]),
        of("c", 0, &["h"], &[]),
        of("d", 9, &["late"], &["a"]),
        of("e", 60, &["never"], &[]),
    ];
    let mut all: Vec<PlannedInstance> = groups
        .iter()
        .zip(1..)
        .map(|(g, pid)| member(g, pid, &[path(0)]))
        .collect();
    all[4].instance.before = Some(file("old 0").sha256);
    let plan = plan(all, &groups);
    let said: Vec<_> = plan
        .waves
        .iter()
        .map(|w| (w.bake.as_secs(), w.gates.concat()))
        .collect();
    assert_eq!(
        said,
        [
            (2, vec!["g".to_owned(), "h".into()]),
            (9, vec!["late".into()])
        ],
        "who is not signalled has no say"
    );
}

/// Groups of one instance each, with a file of its own, in a chain.
fn chain(all: usize) -> (Vec<Arc<Group>>, Vec<PlannedInstance>) {
    let one = |at: usize| {
        let mut one = (*group(&name_in_chain(at), 1, true)).clone();
        one.after = at.checked_sub(1).map(name_in_chain).into_iter().collect();
        Arc::new(one)
    };
    let groups: Vec<Arc<Group>> = (0..all).map(one).collect();
    let members = groups
        .iter()
        .zip(1..)
        .map(|(g, pid)| member(g, pid, &[PathBuf::from(format!("/{pid}"))]))
        .collect();
    (groups, members)
}

fn name_in_chain(at: usize) -> String {
    format!("g{at}")
}

#[test]
fn a_group_waits_for_those_before_one_that_is_not_in_the_run() {
    let (groups, members) = chain(6);
    let kept = [0, 2, 5];
    let order: Order = groups
        .iter()
        .map(|g| (g.name.clone(), g.after.clone()))
        .collect();
    let (some, mine): (Vec<&Group>, Vec<PlannedInstance>) = kept
        .iter()
        .map(|at| (&*groups[*at], members[*at].clone()))
        .unzip();
    let shift = |m: &PlannedInstance| crate::step::TargetChange {
        path: m.instance.targets[0].clone(),
        from: None,
        to: file("new"),
        secret: false,
    };
    let steps: Vec<Step> = mine
        .into_iter()
        .map(|m| Step {
            changes: vec![shift(&m)],
            instances: vec![m],
            undo: false,
        })
        .collect();
    let waves = |order: &Order| -> Vec<usize> {
        let waves = in_waves(steps.clone(), &some, order);
        kept.iter()
            .map(|at| {
                waves
                    .iter()
                    .position(|w| {
                        w.steps
                            .iter()
                            .flat_map(|s| &s.instances)
                            .any(|m| m.id.0 == i32::try_from(at + 1).unwrap())
                    })
                    .unwrap()
            })
            .collect()
    };
    assert_eq!(
        (waves(&order), waves(&Order::new())),
        (vec![0, 1, 2], vec![0, 0, 0])
    );
}

#[test]
fn ten_times_the_groups_of_a_chain_are_planned_in_about_ten_times_the_time() {
    let took = |all: usize| {
        let (groups, members) = chain(all);
        let steps: Vec<Step> = members
            .into_iter()
            .map(|m| Step {
                changes: Vec::new(),
                instances: vec![m],
                undo: false,
            })
            .collect();
        let order: Vec<&Group> = groups.iter().map(|g| &**g).collect();
        let tries = (0..3).map(|_| {
            let (steps, began) = (steps.clone(), std::time::Instant::now());
            assert_eq!(in_waves(steps, &order, &Order::new()).len(), all);
            began.elapsed()
        });
        tries.min().unwrap()
    };
    let (few, many) = (took(300), took(3_000));
    assert!(
        many < few * 50,
        "300 groups take {few:?}, and 3,000 {many:?}"
    );
}
