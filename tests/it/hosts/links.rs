//! A link that goes down in the middle of a commit, between hosts behind real sshd.

use std::{
    process::Child,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::bed::expect;
use super::lab::{FAR, Lab, NAMES};
use crate::support::{CommandEnd, until};

/// A commit-confirmed timer, and a lease that is shorter.
const TIMER: Duration = Duration::from_secs(4);
const LEASE: &str = "2s";

fn end_of(run: Child) -> CommandEnd {
    CommandEnd::of(&run.wait_with_output().unwrap())
}

#[test]
fn a_run_reaches_hosts_behind_links() {
    let Some(lab) = Lab::start() else { return };
    expect(&lab.run(&["broadcast", "--set", "message=new"]), 0);
    assert_eq!(lab.messages(), ["new"; 3]);
}

#[test]
fn a_host_whose_link_stays_down_is_named_and_a_resume_finishes_it_when_the_link_is_back() {
    let Some(lab) = Lab::start() else { return };
    lab.lease(LEASE);
    let run = lab.lose_the_link_in_a_commit(&[]);
    let end = end_of(run);
    expect(&end, 7);
    let names = end.json["hosts"][0]["name"].as_str();
    assert_eq!(names, Some(NAMES[FAR]), "{:#}", end.json);
    // The host has finished its commit without the coordinator.
    until("the far server has the new config", || {
        lab.hosts[FAR].message() == "new"
    });
    lab.link("up");
    lab.wait_for_agents();
    expect(&lab.run(&["resume"]), 0);
    assert_eq!(lab.messages(), ["new"; 3]);
}

/// Returns the processes that the intents in the journal of the far host name.
fn intents(lab: &Lab) -> usize {
    let events = lab.events();
    let intents = events.iter().filter(|event| event["event"] == "intent");
    intents.count()
}

/// Returns what ended the session of the far host.
fn ended_by(lab: &Lab) -> Option<Value> {
    let events = lab.events();
    let ended = events
        .iter()
        .find(|event| event["event"] == "session_ended");
    ended.map(|event| event["by"].clone())
}

#[test]
fn a_run_goes_on_if_the_link_is_back_within_the_lease() {
    let Some(lab) = Lab::start() else { return };
    let run = lab.lose_the_link_in_a_commit(&[]);
    lab.wait_for_silence();
    lab.link("up");
    expect(&end_of(run), 0);
    assert_eq!(lab.messages(), ["new"; 3]);
    assert_eq!((intents(&lab), ended_by(&lab)), (1, None));
}

#[test]
fn a_run_goes_on_in_a_new_session_if_the_link_is_back_after_the_lease() {
    let Some(lab) = Lab::start() else { return };
    lab.lease("1s");
    let run = lab.lose_the_link_in_a_commit(&[]);
    until("the lease is over", || ended_by(&lab).is_some());
    assert_eq!(ended_by(&lab), Some("lease".into()));
    lab.wait_for_agents();
    lab.link("up");
    expect(&end_of(run), 0);
    assert_eq!(lab.messages(), ["new"; 3]);
    assert_eq!(intents(&lab), 1);
}

fn timer() -> [String; 2] {
    let timer = format!("{}s", TIMER.as_secs());
    ["--commit-confirmed".into(), timer]
}

/// Begins an armed run, and takes the link down in its commit.
fn lose_an_armed_host(lab: &Lab) -> Child {
    lab.lease(LEASE);
    let args = timer();
    let run = lab.lose_the_link_in_a_commit(&args.each_ref().map(String::as_str));
    let events = lab.events();
    let is_armed = |event: &Value| event["event"] == "intent" && !event["armed_s"].is_null();
    assert!(events.iter().any(is_armed), "{events:?}");
    run
}

#[test]
fn an_armed_host_whose_link_stays_down_rolls_back_by_itself() {
    let Some(lab) = Lab::start() else { return };
    let run = lose_an_armed_host(&lab);
    expect(&end_of(run), 7);
    until("the far server has the old config again", || {
        lab.has("superseded_by")
    });
    assert_eq!(lab.hosts[FAR].message(), "old");
    assert_eq!(ended_by(&lab), Some("timer".into()));
    lab.link("up");
    expect(&lab.run(&["revert"]), 0);
    assert_eq!(lab.messages(), ["old"; 3]);
}

#[test]
fn a_host_that_is_reset_while_armed_rolls_back_when_its_timer_has_passed_since_the_boot() {
    let Some(mut lab) = Lab::start() else { return };
    let run = lose_an_armed_host(&lab);
    let began = Instant::now();
    let boot = lab.reboot();
    assert_eq!(lab.hosts[FAR].message(), "new");
    let end = lab.resume_armed(boot);
    assert_eq!(end.code, Some(0), "{}", end.stderr);
    let passed = began.elapsed();
    assert!(passed >= TIMER - Duration::from_secs(1), "{passed:?}");
    assert_eq!(lab.hosts[FAR].message(), "old");
    expect(&end_of(run), 7);
}
