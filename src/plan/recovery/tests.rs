#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::sync::Arc;

use super::*;
use crate::{
    event::{Outcome, Verdict},
    fleet::{Count, Fleet},
    runs::{InterruptedRun, ProofCache, RunInfo, RunInstance, RunTarget, SignalRecord, Verb},
    step::Content,
};

mod gone;
mod signals;

const ANY_COUNT: Count = Count {
    min: 0,
    max: usize::MAX,
};

fn config(message: &str) -> Content {
    Content::new(format!("message = \"{message}\"\n").into_bytes())
}

/// Returns an interrupted run of three instances, and two targets of which they read the first.
fn left(touched: &[(i32, SignalRecord)], count: Count) -> InterruptedRun {
    let mut group = Fleet::of_kind("hello").unwrap().groups.remove(0);
    group.name = "web".into();
    group.count = count;
    let target = |path: &str| RunTarget {
        path: path.into(),
        kind: crate::event::TargetKind::File,
        from: Some(config("old").sha256),
        to: config("new").sha256,
    };
    let instance = |pid| RunInstance {
        group: "web".into(),
        pid,
        started: 5,
        targets: vec!["/a".into()],
    };
    InterruptedRun {
        id: "1".into(),
        verb: Verb::Broadcast,
        back: false,
        same_boot: true,
        groups: vec![group],
        order: BTreeMap::new(),
        targets: vec![target("/a"), target("/b")],
        instances: (1..=3).map(instance).collect(),
        readings: BTreeMap::new(),
        touched: touched
            .iter()
            .map(|(pid, signal)| ((*pid, 5), *signal))
            .collect(),
        signalled: BTreeMap::new(),
        part_of: None,
        info: RunInfo {
            id: "1".into(),
            host: crate::inventory::HostName::local(),
            at: None,
            open: true,
            running: false,
            began: None,
            is_old: false,
            end: None,
        },
    }
}

/// Returns a survey that finds these instances, each by its pid, its start and the config that it
/// reports, and this content of both targets.
fn survey(left: &InterruptedRun, instances: &[(i32, u64, &str)], disk: &str) -> Survey {
    let group = Arc::new(left.groups[0].clone());
    let instance = |(pid, started, reported): &(i32, u64, &str)| {
        let reported = Instance {
            targets: vec!["/a".into()],
            before: Some(config(reported).sha256),
            ..Instance::new("web", *pid, *started)
        };
        PlannedInstance::new(reported, group.clone(), Vec::new())
    };
    let target = || SurveyedTarget {
        rev: None,
        content: config(disk),
        ctime: 5,
        behind: Some(String::new()),
        secret: false,
        staged: BTreeMap::new(),
    };
    let targets = ["/a", "/b"]
        .map(|path| (PathBuf::from(path), target()))
        .into();
    Survey {
        instances: instances.iter().map(instance).collect(),
        targets,
        ..Survey::default()
    }
}

/// Returns the bytes that the store has.
fn stored(sha256: &str) -> Option<Vec<u8>> {
    ["old", "new"]
        .into_iter()
        .map(config)
        .find(|content| content.sha256 == sha256)
        .map(|content| content.bytes.to_vec())
}

fn recover(left: &InterruptedRun, survey: Survey, direction: Direction) -> Result<Plan, Abort> {
    let request = RecoveryRequest {
        left,
        direction,
        at_once: direction == Direction::Back,
        include_unresponsive: direction == Direction::Back,
        proven: &ProofCache::default(),
    };
    Plan::recover(survey, request, stored, |_, _| None)
}

/// Asserts that a recovery is refused for this reason.
fn assert_refused(plan: Result<Plan, Abort>, reason: &str) {
    let abort = plan.unwrap_err();
    assert_eq!(abort.verdict, Verdict::Refused, "{}", abort.reason);
    assert!(abort.reason.contains(reason), "{}", abort.reason);
}

/// The planned state of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    outcome: Outcome,
    signal_may_be_pending: bool,
    may_run_new: bool,
}

fn states(plan: &Plan) -> BTreeMap<i32, State> {
    let state = |m: &PlannedInstance| State {
        outcome: m.instance.outcome,
        signal_may_be_pending: m.signal_may_be_pending,
        may_run_new: m.may_run_new,
    };
    plan.steps()
        .flat_map(|s| &s.instances)
        .map(|m| (m.instance.pid, state(m)))
        .collect()
}

/// Signalled for the new config.
const FORWARD: SignalRecord = SignalRecord {
    forward: true,
    back: false,
    outcome: None,
};

/// Signalled for the new config, and then for the old one.
const BACK: SignalRecord = SignalRecord {
    forward: true,
    back: true,
    outcome: None,
};

#[test]
fn every_target_is_recovered_even_if_no_instance_reads_it() {
    let left = left(&[], ANY_COUNT);
    for (direction, disk, to, from) in [
        (Direction::Forward, "old", "new", "old"),
        (Direction::Forward, "new", "new", "old"),
        (Direction::Back, "new", "old", "new"),
        (Direction::Back, "old", "old", "new"),
    ] {
        for instances in [&[(1, 5, "old")][..], &[]] {
            let plan = recover(&left, survey(&left, instances, disk), direction).unwrap();
            let targets = plan.targets();
            assert_eq!(targets.len(), 2);
            for change in targets {
                assert_eq!(change.to, config(to), "{direction:?} {disk}");
                assert_eq!(change.from, Some(config(from)), "{direction:?} {disk}");
            }
            assert!(
                direction == Direction::Forward || plan.waves.len() <= 1,
                "an old config is restored in one wave"
            );
        }
    }
}

#[test]
fn a_content_that_is_neither_of_the_two_is_refused_by_name() {
    let left = left(&[], ANY_COUNT);
    for direction in [Direction::Forward, Direction::Back] {
        assert_refused(
            recover(&left, survey(&left, &[(1, 5, "old")], "by hand"), direction),
            "another program has changed it since",
        );
        let one_by_hand = survey(&left, &[(1, 5, "old"), (2, 5, "by hand")], "new");
        assert_refused(recover(&left, one_by_hand, direction), "pid 2 runs");
        let request = RecoveryRequest {
            left: &left,
            direction,
            at_once: false,
            include_unresponsive: false,
            proven: &ProofCache::default(),
        };
        let plan = Plan::recover(survey(&left, &[], "by hand"), request, stored, |_, _| {
            Some("7".into())
        });
        assert_refused(plan, "run 7 came after it");
    }
}

#[test]
fn a_recovery_needs_the_bytes_that_it_installs() {
    let plan = |left: &InterruptedRun,
                disk: &str,
                way: Direction,
                stored: &dyn Fn(&str) -> Option<Vec<u8>>| {
        let request = RecoveryRequest {
            left,
            direction: way,
            at_once: false,
            include_unresponsive: false,
            proven: &ProofCache::default(),
        };
        let survey = survey(left, &[(1, 5, "new")], disk);
        Plan::recover(survey, request, stored, |_, _| None)
    };
    let none = |_: &str| None;
    let left = left(&[], ANY_COUNT);
    assert_refused(
        plan(&left, "old", Direction::Forward, &none),
        "not stored any more",
    );
    assert_refused(
        plan(&left, "new", Direction::Back, &none),
        "not stored any more",
    );
    let installed = plan(&left, "new", Direction::Forward, &none).unwrap();
    assert!(
        installed.targets().iter().all(|s| s.from.is_none()),
        "the new content is on disk, and the old one is not stored"
    );
    let other = |_: &str| Some(b"something else".to_vec());
    assert!(
        plan(&left, "old", Direction::Forward, &other).is_err(),
        "the stored bytes must have the digest of their name"
    );
    let mut adopted = left.clone();
    adopted.targets.iter_mut().for_each(|t| t.from = None);
    assert!(plan(&adopted, "new", Direction::Forward, &stored).is_ok());
    assert_refused(
        plan(&adopted, "old", Direction::Forward, &stored),
        "neither",
    );
    assert_refused(
        plan(&adopted, "new", Direction::Back, &stored),
        "cannot be rolled back",
    );
}

#[test]
fn an_instance_that_reads_another_file_by_now_is_refused_with_both_paths() {
    let left = left(&[], ANY_COUNT);
    for direction in [Direction::Forward, Direction::Back] {
        let mut moved = survey(&left, &[(1, 5, "new"), (2, 6, "new")], "new");
        moved.instances[0].instance.targets = vec!["/elsewhere".into()];
        assert_refused(
            recover(&left, moved, direction),
            "it read `/a` in run 1, and names `/elsewhere` today",
        );
        // Another process under that pid is no instance of the run.
        let mut other = survey(&left, &[(1, 6, "new")], "new");
        other.instances[0].instance.targets = vec!["/elsewhere".into()];
        recover(&left, other, direction).unwrap();
    }
}
