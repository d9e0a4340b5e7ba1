#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::sync::Arc;

use super::*;
use crate::{
    fleet::{Count, Fleet},
    runs::{RunInfo, Verb},
};

const ALL: Count = Count {
    min: 0,
    max: usize::MAX,
};

fn config(message: &str) -> Content {
    Content::new(format!("message = \"{message}\"\n").into_bytes())
}

fn left(touched: &[(i32, SignalRecord)], count: Count) -> InterruptedRun {
    let mut group = Fleet::of_kind("hello").unwrap().groups.remove(0);
    (group.name, group.count) = ("web".into(), count);
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
            .map(|(pid, touch)| ((*pid, 5), *touch))
            .collect(),
        signalled: BTreeMap::new(),
        past: RunInfo {
            id: "1".into(),
            at: None,
            open: true,
            running: false,
            began: None,
            end: None,
        },
    }
}

/// What is there: each by its pid, start and what it says that it runs; and the disk, of which
/// nobody reads the second file.
fn seen(left: &InterruptedRun, members: &[(i32, u64, &str)], disk: &str) -> Survey {
    let group = Arc::new(left.groups[0].clone());
    let member = |(pid, started, says): &(i32, u64, &str)| {
        let instance = Instance {
            targets: vec!["/a".into()],
            before: Some(config(says).sha256),
            ..Instance::new("web", *pid, *started)
        };
        PlannedInstance::new(instance, group.clone(), Vec::new())
    };
    let target = || SurveyedTarget {
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
        instances: members.iter().map(member).collect(),
        targets,
        ..Survey::default()
    }
}

fn kept(sha256: &str) -> Option<Vec<u8>> {
    ["old", "new"]
        .into_iter()
        .map(config)
        .find(|blob| blob.sha256 == sha256)
        .map(|blob| blob.bytes.to_vec())
}

fn again(left: &InterruptedRun, seen: Survey, way: Direction) -> Result<Plan, Abort> {
    let aim = RecoveryRequest {
        left,
        way,
        at_once: way == Direction::Back,
        include_sick: way == Direction::Back,
        proven: &ProofCache::default(),
    };
    Plan::recover(seen, aim, kept, |_, _| None)
}

fn states(plan: &Plan) -> BTreeMap<i32, (Outcome, bool, bool)> {
    plan.steps()
        .flat_map(|s| &s.instances)
        .map(|m| {
            (
                m.instance.pid,
                (m.instance.outcome, m.signal_may_be_pending, m.may_run_new),
            )
        })
        .collect()
}

const FORTH: SignalRecord = SignalRecord {
    forth: true,
    back: false,
    state: None,
};
const BACK: SignalRecord = SignalRecord {
    forth: true,
    back: true,
    state: None,
};

#[test]
fn who_needs_a_signal_is_what_it_says_the_disk_and_what_may_have_been_done_to_it() {
    use Outcome::{
        Confirmed, Died, Rejected, Reverted, TimedOut, Unchanged, Unconfirmed, Untouched,
    };
    let is = |state| Some(state);
    // Touch, what it says, the disk; then the way forth and the way back: state, unsure, brought.
    for (touch, says, disk, forth, back) in [
        (None, "old", "old", (Untouched, false, false), Unchanged),
        (None, "old", "new", (Untouched, false, false), Unchanged),
        (None, "new", "new", (Unchanged, false, true), Untouched),
        (None, "new", "old", (Untouched, false, true), Untouched),
        // A signal that is under way makes it load what is there when it takes it.
        (
            Some(FORTH),
            "old",
            "new",
            (Untouched, false, true),
            Untouched,
        ),
        (
            Some(FORTH),
            "old",
            "old",
            (Untouched, false, true),
            Untouched,
        ),
        (
            Some(FORTH),
            "new",
            "new",
            (Unchanged, false, true),
            Untouched,
        ),
        (Some(BACK), "new", "new", (Untouched, true, true), Untouched),
        (Some(BACK), "old", "old", (Untouched, true, true), Untouched),
        (
            Some(SignalRecord {
                state: is(Confirmed),
                ..FORTH
            }),
            "new",
            "new",
            (Unchanged, false, true),
            Untouched,
        ),
        (
            Some(SignalRecord {
                state: is(Reverted),
                ..BACK
            }),
            "old",
            "old",
            (Untouched, false, false),
            Unchanged,
        ),
        (
            Some(SignalRecord {
                state: is(TimedOut),
                ..FORTH
            }),
            "old",
            "new",
            (Untouched, false, true),
            Untouched,
        ),
        (
            Some(SignalRecord {
                state: is(Rejected),
                ..FORTH
            }),
            "old",
            "new",
            (Untouched, false, true),
            Untouched,
        ),
        (
            Some(SignalRecord {
                state: is(Unconfirmed),
                ..FORTH
            }),
            "old",
            "new",
            (Untouched, false, true),
            Untouched,
        ),
        (
            Some(SignalRecord {
                state: is(Died),
                ..BACK
            }),
            "old",
            "new",
            (Untouched, true, true),
            Untouched,
        ),
    ] {
        let context = format!("{touch:?}, says {says}, disk {disk}");
        let left = left(
            &touch
                .map(|touch| (1, touch))
                .into_iter()
                .collect::<Vec<_>>(),
            ALL,
        );
        let go = |way| states(&again(&left, seen(&left, &[(1, 5, says)], disk), way).unwrap())[&1];
        assert_eq!(go(Direction::Forward), forth, "forth: {context}");
        assert_eq!(go(Direction::Back).0, back, "back: {context}");
        let proven = touch.is_none_or(|touch| matches!(touch.state, Some(Confirmed | Reverted)));
        assert_eq!(
            go(Direction::Back).1,
            !proven,
            "whoever was signalled for the other config must prove this one anew: {context}"
        );
    }
}

#[test]
fn every_target_goes_the_whole_way_whether_anybody_reads_it_or_not() {
    let left = left(&[], ALL);
    for (way, disk, to) in [
        (Direction::Forward, "old", "new"),
        (Direction::Forward, "new", "new"),
        (Direction::Back, "new", "old"),
        (Direction::Back, "old", "old"),
    ] {
        for members in [&[(1, 5, "old")][..], &[]] {
            let plan = again(&left, seen(&left, members, disk), way).unwrap();
            let shifts: Vec<(PathBuf, Content, Option<Content>)> = plan
                .targets()
                .into_iter()
                .map(|s| (s.path.clone(), s.to.clone(), s.from.clone()))
                .collect();
            let other = if to == "new" { "old" } else { "new" };
            assert_eq!(shifts.len(), 2);
            assert!(
                shifts
                    .iter()
                    .all(|(_, to_, from)| *to_ == config(to) && *from == Some(config(other))),
                "{way:?} {disk}: {shifts:?}"
            );
            assert!(
                way == Direction::Forward || plan.waves.len() <= 1,
                "an old config goes back in one wave"
            );
        }
    }
}

#[test]
fn what_is_neither_of_the_two_is_refused_by_name() {
    let left = left(&[], ALL);
    for way in [Direction::Forward, Direction::Back] {
        let refused = |seen: Survey, says: &str| {
            let stop = again(&left, seen, way).unwrap_err();
            assert!(
                stop.verdict == Verdict::Refused && stop.reason.contains(says),
                "{}",
                stop.reason
            );
        };
        refused(
            seen(&left, &[(1, 5, "old")], "by hand"),
            "another program has changed it since",
        );
        refused(
            seen(&left, &[(1, 5, "old"), (2, 5, "by hand")], "new"),
            "pid 2 runs",
        );
        let stop = Plan::recover(
            seen(&left, &[], "by hand"),
            RecoveryRequest {
                left: &left,
                way,
                at_once: false,
                include_sick: false,
                proven: &ProofCache::default(),
            },
            kept,
            |_, _| Some("7".into()),
        );
        assert!(stop.unwrap_err().reason.contains("run 7 came after it"));
    }
}

#[test]
fn without_the_bytes_there_is_no_way_there_and_perhaps_none_back() {
    let go = |left: &InterruptedRun, disk: &str, way, kept: &dyn Fn(&str) -> Option<Vec<u8>>| {
        Plan::recover(
            seen(left, &[(1, 5, "new")], disk),
            RecoveryRequest {
                left,
                way,
                at_once: false,
                include_sick: false,
                proven: &ProofCache::default(),
            },
            kept,
            |_, _| None,
        )
    };
    let none = |_: &str| None;
    let left = left(&[], ALL);
    assert!(
        go(&left, "old", Direction::Forward, &none)
            .unwrap_err()
            .reason
            .contains("not kept any more")
    );
    assert!(
        go(&left, "new", Direction::Back, &none)
            .unwrap_err()
            .reason
            .contains("not kept any more")
    );
    let plan = go(&left, "new", Direction::Forward, &none).unwrap();
    assert!(
        plan.targets().iter().all(|s| s.from.is_none()),
        "it is there already, and the old one is not"
    );
    let other = |_: &str| Some(b"something else".to_vec());
    assert!(
        go(&left, "old", Direction::Forward, &other).is_err(),
        "what is kept must be what its name says"
    );
    let mut adopted = left.clone();
    adopted.targets.iter_mut().for_each(|t| t.from = None);
    assert!(go(&adopted, "new", Direction::Forward, &kept).is_ok());
    assert!(
        go(&adopted, "old", Direction::Forward, &kept)
            .unwrap_err()
            .reason
            .contains("neither")
    );
    let stop = go(&adopted, "new", Direction::Back, &kept).unwrap_err();
    assert!(
        stop.verdict == Verdict::Refused && stop.reason.contains("no way back"),
        "{}",
        stop.reason
    );
}

#[test]
fn who_is_gone_counts_and_who_came_stands_for_him() {
    let told = |left: &InterruptedRun, seen: &Survey| {
        let why = |event: Event| match event {
            Event::Gone { pids, why, .. } => Some((pids, why)),
            _ => None,
        };
        (
            absent(seen, left).into_iter().find_map(why),
            unreplaced(seen, left).is_some(),
        )
    };
    let three = left(&[], Count { min: 3, max: 3 });
    let all = seen(
        &three,
        &[(1, 5, "old"), (2, 5, "old"), (3, 5, "old")],
        "new",
    );
    assert_eq!(told(&three, &all), (None, false));
    // Another process of the same number.
    let new = seen(
        &three,
        &[(1, 5, "old"), (2, 5, "old"), (3, 6, "new")],
        "new",
    );
    let (gone, unreplaced) = told(&three, &new);
    assert!(
        gone.is_some_and(|(pids, why)| pids == [3] && why.contains("others have taken"))
            && !unreplaced
    );
    assert!(
        states(&again(&three, new, Direction::Forward).unwrap())[&3].2,
        "who came reads what is there"
    );
    let lost = || seen(&three, &[(1, 5, "old"), (2, 5, "old")], "new");
    let (gone, unreplaced) = told(&three, &lost());
    assert!(gone.is_some_and(|(_, why)| why.contains("nobody has taken")) && unreplaced);
    assert_eq!(
        again(&three, lost(), Direction::Forward)
            .unwrap_err()
            .verdict,
        Verdict::NoMatch
    );
    let plan = again(&three, lost(), Direction::Back).unwrap();
    let skipped: Vec<(i32, Outcome)> = plan
        .skipped
        .iter()
        .map(|m| (m.instance.pid, m.instance.outcome))
        .collect();
    assert_eq!(
        skipped,
        [(3, Outcome::Died)],
        "an old config is brought back all the same"
    );
    // After a restart of the machine they are all others, whatever their numbers are.
    let booted = InterruptedRun {
        same_boot: false,
        touched: [((1, 5), FORTH)].into(),
        ..three.clone()
    };
    let plan = again(
        &booted,
        seen(
            &three,
            &[(1, 5, "new"), (2, 5, "new"), (3, 5, "new")],
            "new",
        ),
        Direction::Forward,
    )
    .unwrap();
    assert!(
        states(&plan)
            .values()
            .all(|state| *state == (Outcome::Unchanged, false, true))
    );
}

#[test]
fn a_silent_one_gets_the_old_config_back_and_keeps_others_from_the_new_one() {
    let left = left(&[(1, FORTH)], ALL);
    let go = |pid: i32, way| {
        let mut seen = seen(&left, &[(1, 5, "new"), (2, 5, "new")], "new");
        let at = seen
            .instances
            .iter()
            .position(|m| m.instance.pid == pid)
            .unwrap();
        let mut silent = PlannedInstance {
            unresponsive: true,
            ..seen.instances.remove(at)
        };
        silent.instance.before = None;
        silent.instance.failure = Some(Failure {
            kind: crate::event::FailureKind::Unresponsive,
            text: "no answer".into(),
        });
        seen.unresponsive.push(silent);
        again(&left, seen, way)
    };
    for pid in [1, 2] {
        assert_eq!(
            states(&go(pid, Direction::Back).unwrap())[&pid].0,
            Outcome::Untouched,
            "it is signalled"
        );
        assert_eq!(
            go(pid, Direction::Forward).unwrap_err().verdict,
            Verdict::Refused
        );
    }
}

#[test]
fn a_process_that_started_when_the_file_was_back_has_read_it_at_its_start() {
    // It started at the nanosecond of its number; the file was put back at the fifth.
    for (born, disk, tells, state) in [
        (6, "old", None, Outcome::Unchanged),
        (5, "old", None, Outcome::Untouched),
        (4, "old", None, Outcome::Untouched),
        (6, "new", None, Outcome::Untouched),
        (6, "old", Some("new"), Outcome::Untouched),
    ] {
        let left = left(&[(1, FORTH)], ALL);
        let mut seen = seen(&left, &[(9, 7, "old")], disk);
        for member in &mut seen.instances {
            member.started_ns = born;
            member.instance.before = tells.map(|text| config(text).sha256);
        }
        let plan = again(&left, seen, Direction::Back).unwrap();
        assert_eq!(states(&plan)[&9].0, state, "{born} {disk} {tells:?}");
    }
    // One that the run has signalled already, or knew, may run the other config since.
    for touched in [&[(2, FORTH)][..], &[]] {
        let left = left(touched, ALL);
        let mut seen = seen(&left, &[(2, 5, "old")], "old");
        seen.instances
            .iter_mut()
            .for_each(|m| (m.started_ns, m.instance.before) = (6, None));
        assert_ne!(
            states(&again(&left, seen, Direction::Back).unwrap())[&2].0,
            Outcome::Unchanged,
            "{touched:?}"
        );
    }
}

#[test]
fn an_instance_that_reads_another_file_by_now_is_refused_with_both_paths() {
    let left = left(&[], ALL);
    for way in [Direction::Forward, Direction::Back] {
        let mut moved = seen(&left, &[(1, 5, "new"), (2, 6, "new")], "new");
        moved.instances[0].instance.targets = vec!["/elsewhere".into()];
        let stop = again(&left, moved, way).unwrap_err();
        assert!(
            stop.verdict == Verdict::Refused
                && stop.reason.contains("`/a`")
                && stop.reason.contains("`/elsewhere`"),
            "{way:?}: {}",
            stop.reason
        );
        // Another process under that pid is no instance of the run.
        let mut other = seen(&left, &[(1, 6, "new")], "new");
        other.instances[0].instance.targets = vec!["/elsewhere".into()];
        again(&left, other, way).unwrap();
    }
}
