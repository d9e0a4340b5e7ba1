//! Every check finds what it is for.

use serde_json::{Value, json};

use super::*;

const PID: i32 = 7;
const STARTED: u64 = 99;

/// Returns a host with one server, which serves a message and has acted on signals.
fn host(message: &str, signals: u64) -> Evidence {
    Evidence {
        name: "h0".into(),
        servers: vec![Server {
            pid: PID,
            started: Some(STARTED),
            message: Some(message.into()),
            signals: Some(signals),
        }],
        disk: Some(message.into()),
        journals: Vec::new(),
        open: Vec::new(),
        held: Vec::new(),
        files: Vec::new(),
    }
}

fn report(outcome: &str, exit: i64) -> Value {
    let row = json!({ "host": "h0", "pid": PID, "outcome": outcome, "failure": null });
    json!({ "exit": exit, "instances": [row], "hosts": [] })
}

fn journal(events: &[Value]) -> Vec<Journal> {
    let events = events.to_vec();
    let run = "01".into();
    vec![Journal { run, events }]
}

fn intent() -> Value {
    json!({ "event": "intent", "pids": [[PID, STARTED]] })
}

fn outcome() -> Value {
    json!({ "event": "instance", "pid": PID, "started": STARTED, "outcome": "confirmed" })
}

#[test]
fn a_claim_of_the_new_config_over_the_old_one_is_false() {
    let (before, now) = ([host(OLD, 0)], [host(OLD, 1)]);
    assert_eq!(claims(&report("confirmed", 0), &before, &now).len(), 1);
    assert!(claims(&report("timed_out", 7), &before, &now).is_empty());
}

#[test]
fn a_claim_that_a_signalled_instance_is_untouched_is_false() {
    let (before, now) = ([host(OLD, 0)], [host(OLD, 1)]);
    assert_eq!(claims(&report("untouched", 8), &before, &now).len(), 1);
}

#[test]
fn a_signal_without_an_intent_is_found() {
    let mut now = host(NEW, 1);
    assert_eq!(intents(&[now.clone()], None).len(), 1);
    now.journals = journal(&[intent()]);
    assert!(intents(&[now], None).is_empty());
}

#[test]
fn an_outcome_before_its_intent_is_found() {
    let mut now = host(NEW, 1);
    now.journals = journal(&[outcome(), intent()]);
    assert_eq!(intents(&[now], None).len(), 1);
    let mut now = host(NEW, 1);
    now.journals = journal(&[intent(), outcome()]);
    assert!(intents(&[now], None).is_empty());
}

#[test]
fn a_host_between_two_configs_must_be_named() {
    let mut now = host(OLD, 1);
    now.disk = Some(NEW.into());
    let silent = report("timed_out", 7);
    assert_eq!(one_config(&silent, &[], &[now.clone()]).len(), 1);
    let mut named = silent.clone();
    named["hosts"] = json!([{ "name": "h0", "state": "lost" }]);
    assert!(one_config(&named, &[], &[now.clone()]).is_empty());
    assert!(one_config(&silent, &["01".into()], &[now]).is_empty());
}

#[test]
fn what_a_session_leaves_is_found() {
    let mut now = host(OLD, 0);
    now.files = vec!["/x/.web.toml.hello-01".into()];
    assert_eq!(nothing_left(&[now.clone()], false).len(), 1);
    assert!(nothing_left(&[now.clone()], true).is_empty());
    now.held = vec!["agent 1".into()];
    assert_eq!(nothing_left(&[now], true).len(), 1);
}

#[test]
fn an_exit_code_that_the_outcomes_do_not_make_is_found() {
    for (outcome, right, wrong) in [
        ("confirmed", 0, 6),
        ("reverted", 6, 0),
        ("timed_out", 7, 0),
        ("untouched", 8, 0),
        ("untouched", 11, 7),
    ] {
        assert!(
            exit_code(&report(outcome, right), right).is_empty(),
            "{outcome}"
        );
        assert!(
            !exit_code(&report(outcome, wrong), wrong).is_empty(),
            "{outcome}"
        );
    }
    assert!(!exit_code(&report("confirmed", 0), 7).is_empty());
}

#[test]
fn a_run_that_is_open_has_not_ended() {
    assert!(ended(OLD, &[], &[host(OLD, 0)]).is_empty());
    assert_eq!(ended(OLD, &["01".into()], &[host(OLD, 0)]).len(), 1);
    assert_eq!(ended(NEW, &[], &[host(OLD, 0)]).len(), 1);
    let mut now = host(OLD, 0);
    now.open = vec!["01".into()];
    assert_eq!(ended(OLD, &[], &[now]).len(), 1);
}

#[test]
fn a_second_signal_is_found() {
    assert!(signals(&[1], &[host(NEW, 1)]).is_empty());
    assert_eq!(signals(&[1], &[host(NEW, 2)]).len(), 1);
}

#[test]
fn an_armed_run_that_neither_ended_nor_was_rolled_back_is_found() {
    let mut armed = intent();
    armed["armed_s"] = json!(3);
    let by_timer = json!({ "event": "session_ended", "by": "timer" });
    let replaced = json!({ "event": "superseded_by", "run": "02" });
    let mut now = host(NEW, 1);
    now.journals = journal(std::slice::from_ref(&armed));
    assert_eq!(timers(&[now.clone()], false).len(), 2);
    assert_eq!(timers(&[now.clone()], true).len(), 1);
    now.journals = journal(&[armed.clone(), json!({ "event": "finished" })]);
    assert!(timers(&[now], false).is_empty());
    let mut back = host(OLD, 2);
    back.journals = journal(&[armed, by_timer, replaced]);
    assert!(timers(&[back], false).is_empty());
}
