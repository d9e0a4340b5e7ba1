//! The signals of an earlier run decide whether an instance is signalled.

use super::*;

/// The signal of the earlier run, the config that the instance reports, and the content on disk;
/// then the plan forward (outcome, pending signal, may run new), and the outcome of the plan back.
type Row = (
    Option<SignalRecord>,
    &'static str,
    &'static str,
    (Outcome, bool, bool),
    Outcome,
);

fn ended(signal: SignalRecord, outcome: Outcome) -> Option<SignalRecord> {
    Some(SignalRecord {
        outcome: Some(outcome),
        ..signal
    })
}

fn rows() -> Vec<Row> {
    use Outcome::{
        Confirmed, Died, Rejected, Reverted, TimedOut, Unchanged, Unconfirmed, Untouched,
    };
    let (forward, back) = (Some(FORWARD), Some(BACK));
    vec![
        (None, "old", "old", (Untouched, false, false), Unchanged),
        (None, "old", "new", (Untouched, false, false), Unchanged),
        (None, "new", "new", (Unchanged, false, true), Untouched),
        (None, "new", "old", (Untouched, false, true), Untouched),
        // A process loads what is on disk when it handles a signal.
        (forward, "old", "new", (Untouched, false, true), Untouched),
        (forward, "old", "old", (Untouched, false, true), Untouched),
        (forward, "new", "new", (Unchanged, false, true), Untouched),
        (back, "new", "new", (Untouched, true, true), Untouched),
        (back, "old", "old", (Untouched, true, true), Untouched),
        (
            ended(FORWARD, Confirmed),
            "new",
            "new",
            (Unchanged, false, true),
            Untouched,
        ),
        (
            ended(BACK, Reverted),
            "old",
            "old",
            (Untouched, false, false),
            Unchanged,
        ),
        (
            ended(FORWARD, TimedOut),
            "old",
            "new",
            (Untouched, false, true),
            Untouched,
        ),
        (
            ended(FORWARD, Rejected),
            "old",
            "new",
            (Untouched, false, true),
            Untouched,
        ),
        (
            ended(FORWARD, Unconfirmed),
            "old",
            "new",
            (Untouched, false, true),
            Untouched,
        ),
        (
            ended(BACK, Died),
            "old",
            "new",
            (Untouched, true, true),
            Untouched,
        ),
    ]
}

#[test]
fn the_report_the_disk_and_an_earlier_signal_decide_which_instance_is_signalled() {
    for (signal, reported, disk, forward, back) in rows() {
        let context = format!("{signal:?}, reports {reported}, disk {disk}");
        let touched: Vec<(i32, SignalRecord)> =
            signal.map(|signal| (1, signal)).into_iter().collect();
        let left = left(&touched, ANY_COUNT);
        let state = |direction| {
            let survey = survey(&left, &[(1, 5, reported)], disk);
            states(&recover(&left, survey, direction).unwrap())[&1]
        };
        let (outcome, signal_may_be_pending, may_run_new) = forward;
        let forward = State {
            outcome,
            signal_may_be_pending,
            may_run_new,
        };
        assert_eq!(state(Direction::Forward), forward, "forward: {context}");
        assert_eq!(state(Direction::Back).outcome, back, "back: {context}");
        let proven = signal.is_none_or(|signal| {
            matches!(signal.outcome, Some(Outcome::Confirmed | Outcome::Reverted))
        });
        assert_eq!(
            state(Direction::Back).signal_may_be_pending,
            !proven,
            "an instance that was signalled for the other config must prove this one: {context}"
        );
    }
}

#[test]
fn an_unresponsive_instance_gets_the_old_config_and_prevents_the_new_one() {
    let left = left(&[(1, FORWARD)], ANY_COUNT);
    let plan = |pid: i32, direction| {
        let mut survey = survey(&left, &[(1, 5, "new"), (2, 5, "new")], "new");
        let index = survey
            .instances
            .iter()
            .position(|m| m.instance.pid == pid)
            .unwrap();
        let mut unresponsive = survey.instances.remove(index);
        unresponsive.instance.before = None;
        unresponsive.mark_unresponsive("no answer".into());
        survey.unresponsive.push(unresponsive);
        recover(&left, survey, direction)
    };
    for pid in [1, 2] {
        assert_eq!(
            states(&plan(pid, Direction::Back).unwrap())[&pid].outcome,
            Outcome::Untouched,
            "it is signalled"
        );
        assert_eq!(
            plan(pid, Direction::Forward).unwrap_err().verdict,
            Verdict::Refused
        );
    }
}

#[test]
fn a_process_that_started_after_the_file_was_restored_has_read_it() {
    // Its start in nanoseconds, against the change of the file at the fifth.
    for (started_ns, disk, reported, outcome) in [
        (6, "old", None, Outcome::Unchanged),
        (5, "old", None, Outcome::Untouched),
        (4, "old", None, Outcome::Untouched),
        (6, "new", None, Outcome::Untouched),
        (6, "old", Some("new"), Outcome::Untouched),
    ] {
        let left = left(&[(1, FORWARD)], ANY_COUNT);
        let mut survey = survey(&left, &[(9, 7, "old")], disk);
        for instance in &mut survey.instances {
            instance.started_ns = started_ns;
            instance.instance.before = reported.map(|text| config(text).sha256);
        }
        let plan = recover(&left, survey, Direction::Back).unwrap();
        assert_eq!(
            states(&plan)[&9].outcome,
            outcome,
            "{started_ns} {disk} {reported:?}"
        );
    }
}

#[test]
fn an_instance_of_the_earlier_run_may_run_another_config_than_at_its_start() {
    for touched in [&[(2, FORWARD)][..], &[]] {
        let left = left(touched, ANY_COUNT);
        let mut survey = survey(&left, &[(2, 5, "old")], "old");
        for instance in &mut survey.instances {
            instance.started_ns = 6;
            instance.instance.before = None;
        }
        let plan = recover(&left, survey, Direction::Back).unwrap();
        assert_ne!(states(&plan)[&2].outcome, Outcome::Unchanged, "{touched:?}");
    }
}
