#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::{path::PathBuf, sync::Arc, time::Duration};

use rustix::time::{ClockId, clock_gettime};

use super::*;
use crate::{
    change::ChangeRequest,
    event::Direction,
    fleet::{Rollout, Share},
    plan::{
        Plan,
        tests::{file, group, instance, planned, survey},
    },
    step::TargetChange,
};

mod random;

fn path(target: usize) -> PathBuf {
    format!("/{target}").into()
}

/// Plans to adopt three files, which these instances read.
fn plan(instances: Vec<PlannedInstance>, groups: &[Arc<Group>]) -> Plan {
    let on_disk = (0..3).map(|t| (path(t), file(&format!("old {t}"))));
    planned(
        survey(instances, on_disk),
        groups,
        &ChangeRequest::default(),
    )
    .unwrap()
}

/// Groups of one instance each, each with a file of its own, of which each comes after the one
/// before.
fn chain(length: usize) -> (Vec<Arc<Group>>, Vec<PlannedInstance>) {
    let name = |index: usize| format!("g{index}");
    let link = |index: usize| {
        let mut group = (*group(&name(index), 1, true)).clone();
        group.after = index.checked_sub(1).map(name).into_iter().collect();
        Arc::new(group)
    };
    let groups: Vec<Arc<Group>> = (0..length).map(link).collect();
    let instances = groups
        .iter()
        .zip(1..)
        .map(|(group, pid)| instance(group, pid, &[PathBuf::from(format!("/{pid}"))]))
        .collect();
    (groups, instances)
}

fn step(instance: PlannedInstance) -> Step {
    Step {
        changes: vec![TargetChange {
            rev: None,
            path: instance.instance.targets[0].clone(),
            from: None,
            to: file("new"),
            source: None,
            secret: false,
        }],
        instances: vec![instance],
        direction: Direction::Forward,
    }
}

#[test]
fn a_group_waits_for_those_before_one_that_is_not_in_the_run() {
    let (groups, instances) = chain(6);
    let included = [0, 2, 5];
    let order: Order = groups
        .iter()
        .map(|g| (g.name.clone(), g.after.clone()))
        .collect();
    let some: Vec<&Group> = included.iter().map(|index| &*groups[*index]).collect();
    let steps: Vec<Step> = included
        .iter()
        .map(|index| step(instances[*index].clone()))
        .collect();
    let has = |wave: &Wave, pid: i32| {
        let mut instances = wave.steps.iter().flat_map(|s| &s.instances);
        instances.any(|m| m.id.0 == pid)
    };
    let waves = |order: &Order| -> Vec<usize> {
        let waves = in_waves(steps.clone(), &some, order).unwrap();
        included
            .iter()
            .map(|index| {
                let pid = i32::try_from(index + 1).unwrap();
                waves.iter().position(|wave| has(wave, pid)).unwrap()
            })
            .collect()
    };
    assert_eq!(waves(&order), [0, 1, 2]);
    assert_eq!(waves(&Order::new()), [0, 0, 0]);
}

#[test]
fn the_time_to_plan_a_chain_of_groups_is_linear() {
    let shortest = |length: usize| {
        let (groups, instances) = chain(length);
        let steps: Vec<Step> = instances.into_iter().map(step).collect();
        let order: Vec<&Group> = groups.iter().map(|g| &**g).collect();
        let tries = (0..3).map(|_| {
            let steps = steps.clone();
            let began = clock_gettime(ClockId::ThreadCPUTime);
            let waves = in_waves(steps, &order, &Order::new());
            assert_eq!(waves.unwrap().len(), length);
            // Not the time of day: other processes use the processor too.
            Duration::try_from(clock_gettime(ClockId::ThreadCPUTime) - began).unwrap()
        });
        tries.min().unwrap()
    };
    let few = shortest(300);
    let many = shortest(3_000);
    // A quadratic plan takes a hundred times as long; a larger working set misses caches.
    assert!(
        many < few * 80,
        "300 groups take {few:?}, and 3,000 {many:?}"
    );
}
