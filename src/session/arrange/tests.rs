#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;

use super::*;
use crate::{
    event::{Direction, Instance},
    fleet::{Fleet, Group},
    step::{Content, PlannedInstance, TargetChange},
};

static GROUP: LazyLock<Arc<Group>> =
    LazyLock::new(|| Arc::new(Fleet::of_kind("hello").unwrap().groups.remove(0)));

/// Returns a plan with one step for each number of instances. Their pids are their numbers.
fn plan(steps: &[usize]) -> Plan {
    let mut pid = 0;
    let mut step = |(index, count): (usize, &usize)| {
        let change = TargetChange {
            rev: None,
            path: format!("/c{index}").into(),
            from: None,
            to: Content::new(b"new".to_vec()),
            source: None,
            secret: false,
        };
        let instances = (0..*count).map(|_| {
            let instance = Instance::new("hello", pid, 1);
            pid += 1;
            PlannedInstance::new(instance, GROUP.clone(), Vec::new())
        });
        Step {
            instances: instances.collect(),
            changes: vec![change],
            direction: Direction::Forward,
        }
    };
    let steps = steps.iter().enumerate().map(&mut step).collect();
    Plan {
        waves: vec![Wave { number: 1, steps }],
        newcomers: Vec::new(),
        skipped: Vec::new(),
        restart: None,
    }
}

/// Returns the waves in which each number has the wave of its place.
fn waves(of_number: &[u16]) -> Vec<(u16, Vec<u32>)> {
    let mut waves: BTreeMap<u16, Vec<u32>> = BTreeMap::new();
    for (number, wave) in (0..).zip(of_number) {
        waves.entry(*wave).or_default().push(number);
    }
    waves.into_iter().collect()
}

/// The path of a step, and the pids of its instances.
type StepShape = (String, Vec<i32>);

/// Returns the number and the steps of each wave.
fn shape(plan: &Plan) -> Vec<(usize, Vec<StepShape>)> {
    let step = |step: &Step| {
        let pids = step.instances.iter().map(|m| m.instance.pid);
        (
            step.changes[0].path.display().to_string(),
            pids.collect::<Vec<_>>(),
        )
    };
    let waves = plan.waves.iter();
    waves
        .map(|wave| (wave.number, wave.steps.iter().map(step).collect()))
        .collect()
}

#[test]
fn the_readers_of_one_target_may_be_in_several_waves() {
    let (arranged, numbers) = arrange(plan(&[3]), &waves(&[1, 2, 1])).unwrap();
    let first = (1, vec![("/c0".into(), vec![0, 2])]);
    let second = (2, vec![("/c0".into(), vec![1])]);
    assert_eq!(shape(&arranged), [first, second]);
    assert_eq!(numbers, [0, 2, 1]);
}

#[test]
fn a_target_that_no_instance_reads_is_in_the_first_wave() {
    let (arranged, _) = arrange(plan(&[1, 0]), &waves(&[2])).unwrap();
    let first = (1, vec![("/c1".into(), vec![])]);
    let second = (2, vec![("/c0".into(), vec![0])]);
    assert_eq!(shape(&arranged), [first, second]);
}

#[test]
fn waves_that_do_not_have_each_instance_once_are_refused() {
    let plan = || plan(&[2]);
    let refused: [&[(u16, Vec<u32>)]; 8] = [
        &[],
        &[(1, vec![0])],
        &[(1, vec![0, 0])],
        &[(1, vec![0, 1]), (2, vec![1])],
        &[(1, vec![0, 2])],
        &[(1, vec![0, 1, u32::MAX])],
        &[(0, vec![0, 1])],
        &[(1, vec![0]), (1, vec![1])],
    ];
    for waves in refused {
        let arranged = arrange(plan(), waves).map(|(plan, _)| shape(&plan));
        let abort = arranged.unwrap_err();
        assert_eq!(abort.verdict, Verdict::Failed, "{waves:?}");
    }
    assert!(arrange(plan(), &[(3, vec![1, 0])]).is_ok());
}

proptest! {
    #[test]
    fn each_instance_is_once_in_its_wave(
        steps in prop::collection::vec(0_usize..5, 1..8),
        of_number in prop::collection::vec(1_u16..6, 40),
    ) {
        let count: usize = steps.iter().sum();
        let of_number = &of_number[..count];
        let (arranged, numbers) = arrange(plan(&steps), &waves(of_number)).unwrap();
        let mut placed = Vec::new();
        for wave in &arranged.waves {
            for member in wave.steps.iter().flat_map(|step| &step.instances) {
                prop_assert_eq!(member.instance.wave, wave.number);
                placed.push(u32::try_from(member.instance.pid).unwrap());
            }
        }
        // Pids are numbers here.
        prop_assert_eq!(&placed, &numbers);
        placed.sort_unstable();
        prop_assert_eq!(placed, (0..u32::try_from(count).unwrap()).collect::<Vec<_>>());
        for (number, wave) in numbers.iter().zip(arranged.waves.iter().flat_map(|wave| {
            let count = wave.steps.iter().map(|step| step.instances.len()).sum();
            std::iter::repeat_n(wave.number, count)
        })) {
            let wanted = of_number[usize::try_from(*number).unwrap()];
            prop_assert_eq!(wave, usize::from(wanted));
        }
        let numbers: Vec<usize> = arranged.waves.iter().map(|wave| wave.number).collect();
        prop_assert!(numbers.is_sorted());
        let unread = |wave: &Wave| wave.steps.iter().filter(|s| s.instances.is_empty()).count();
        let in_first: usize = arranged.waves.iter().filter(|w| w.number == 1).map(unread).sum();
        prop_assert_eq!(in_first, steps.iter().filter(|count| **count == 0).count());
        let all: usize = arranged.waves.iter().map(unread).sum();
        prop_assert_eq!(in_first, all);
    }

    #[test]
    fn any_waves_are_arranged_or_refused(
        waves in prop::collection::vec(
            (any::<u16>(), prop::collection::vec(0_u32..8, 0..6)), 0..5),
    ) {
        let _ = arrange(plan(&[2, 0, 3]), &waves);
    }
}
