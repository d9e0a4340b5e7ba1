#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

use super::*;
use crate::protocol::SessionRequest;

/// A run whose last request has this number.
fn run(n: u64) -> AgentRun {
    let run = AgentRun {
        last: vec!["the answer".into()],
        ..AgentRun::new("r1")
    };
    run.card.n.set(n);
    run.card.epoch.set(7);
    run
}

fn frame(n: u64, epoch: Option<u64>) -> RunFrame {
    RunFrame {
        run: "r1".into(),
        n,
        epoch,
        notes: Vec::new(),
        verb: RunVerb::CloseUp,
    }
}

/// A survey with this number, and without a fencing token.
fn survey(n: u64) -> RunFrame {
    serde_json::from_value(serde_json::json!({
        "q": "survey", "run": "r1", "n": n, "groups": [], "others": "adopt", "prune": false,
        "overwrite": false, "validate": "auto", "include_unresponsive": false, "now": false,
        "dry_run": false, "lock_timeout": {"secs": 0, "nanos": 0}, "command": []
    }))
    .unwrap()
}

/// Returns the kind of the refusal.
fn refusal(run: &AgentRun, frame: &RunFrame) -> RefusedKind {
    let lines = run.check(frame).unwrap();
    let line: RunLine = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!(line.a, frame.n, "the refusal is of another request");
    line.no.unwrap().kind
}

#[test]
fn the_next_request_is_carried_out() {
    assert_eq!(run(3).check(&frame(4, Some(7))), None);
}

#[test]
fn the_first_request_is_a_survey_without_a_fencing_token() {
    let survey = survey(1);
    assert_eq!(AgentRun::new("r1").check(&survey), None);
}

#[test]
fn a_repeated_request_gets_the_last_answer_again() {
    let run = run(3);
    assert_eq!(run.check(&frame(3, Some(7))).unwrap(), ["the answer"]);
}

#[test]
fn a_repeated_request_with_the_token_of_an_old_connection_is_stale() {
    for epoch in [None, Some(6)] {
        assert_eq!(refusal(&run(3), &frame(3, epoch)), RefusedKind::Stale);
    }
}

#[test]
fn a_repeated_survey_without_a_token_gets_the_last_answer_again() {
    let survey = survey(3);
    assert_eq!(run(3).check(&survey).unwrap(), ["the answer"]);
}

#[test]
fn a_number_below_the_last_one_is_old() {
    for n in [0, 1, 2] {
        assert_eq!(refusal(&run(3), &frame(n, Some(7))), RefusedKind::Old);
    }
}

#[test]
fn a_number_that_leaves_one_out_is_a_gap() {
    for n in [5, 6, u64::MAX] {
        assert_eq!(refusal(&run(3), &frame(n, Some(7))), RefusedKind::Gap);
    }
}

#[test]
fn a_first_request_with_the_number_zero_is_carried_out_by_no_agent() {
    let kind = refusal(&AgentRun::new("r1"), &frame(0, None));
    assert_eq!(kind, RefusedKind::Old);
}

#[test]
fn a_request_with_another_fencing_token_is_stale() {
    for epoch in [6, 8] {
        assert_eq!(refusal(&run(3), &frame(4, Some(epoch))), RefusedKind::Stale);
    }
}

#[test]
fn a_request_without_its_fencing_token_is_stale() {
    assert_eq!(refusal(&run(3), &frame(4, None)), RefusedKind::Stale);
}

#[test]
fn a_request_of_another_run_is_refused_and_gets_no_answer_of_this_one() {
    let other = RunFrame {
        run: "r2".into(),
        ..frame(3, Some(7))
    };
    assert_eq!(refusal(&run(3), &other), RefusedKind::NotAllowed);
}

#[test]
fn a_request_of_the_engine_before_the_plan_is_refused() {
    let request = SessionRequest::Describe { wave: 1 };
    let frame = RunFrame {
        verb: RunVerb::Do { request },
        ..frame(1, Some(0))
    };
    let run = AgentRun::new("r1");
    assert_eq!(run.check(&frame), None, "the order of the numbers is kept");
    assert!(run.is_untouched());
}
