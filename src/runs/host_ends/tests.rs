#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

use super::*;
use crate::{
    event::Instance,
    fleet::Order,
    runs::{Journal, Record, Verb, layout, new_id},
};

const ALL: [Ended; 4] = [
    Ended::Failed,
    Ended::Unreachable,
    Ended::Lost,
    Ended::Touched,
];

fn host(name: &str) -> HostName {
    HostName::new(name).unwrap()
}

/// Writes the index of a run with these events, and no instance. Returns the id of the run.
fn index(state: &Path, events: &[(&str, Event)]) -> String {
    index_of(state, &[], events)
}

/// Writes the index of a run with these instances and events. Returns the id of the run.
fn index_of(state: &Path, planned: &[(&str, Outcome)], events: &[(&str, Event)]) -> String {
    let id = new_id();
    let instances: Vec<Instance> = planned
        .iter()
        .map(|(name, outcome)| Instance {
            host: host(name),
            outcome: *outcome,
            ..Instance::new("web", 7, 1)
        })
        .collect();
    let record = Record {
        id: &id,
        host: HostName::local(),
        verb: Verb::Broadcast,
        of: None,
        back: false,
        claimed: None,
        reason: None,
        command: Vec::new(),
        groups: &[],
        order: Order::new(),
        targets: Vec::new(),
        instances: instances.iter().collect(),
        readings: Vec::new(),
        waves: 1,
        contents: Vec::new(),
        over: None,
        part_of: None,
    };
    let (_sender, interrupts) = tokio::sync::watch::channel(0);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let journal = runtime.block_on(Journal::begin(state, &record, &interrupts));
    let mut journal = journal.unwrap();
    for (name, event) in events {
        journal.record_of(&host(name), event).unwrap();
    }
    id
}

fn of_state(name: &str, state: HostState) -> (&str, Event) {
    let event = Event::Host {
        host: host(name),
        state,
        why: None,
    };
    ("local", event)
}

fn of_outcome(name: &str, outcome: Outcome) -> (&str, Event) {
    let mut instance = Instance::new("web", 7, 1);
    instance.outcome = outcome;
    (name, Event::of(&instance))
}

/// Returns how a host ended in a run with these events.
fn ends(events: &[(&str, Event)], name: &str) -> Vec<Ended> {
    let dir = tempfile::tempdir().unwrap();
    let id = index(dir.path(), events);
    let ends = HostEnds::of(dir.path(), &id).unwrap();
    let host = host(name);
    ALL.into_iter().filter(|e| ends.is(&host, *e)).collect()
}

#[test]
fn a_host_that_was_not_reached_is_unreachable_and_untouched() {
    let events = [of_state("a", HostState::Unreachable)];
    assert_eq!(ends(&events, "a"), [Ended::Unreachable]);
    assert_eq!(ends(&events, "b"), []);
}

/// Tells whether a host that is lost in a run with this plan and these events counts as touched.
fn is_touched(planned: &[(&str, Outcome)], events: &[(&str, Event)]) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let lost = [events, &[of_state("a", HostState::Lost)]].concat();
    let id = index_of(dir.path(), planned, &lost);
    let ends = HostEnds::of(dir.path(), &id).unwrap();
    assert!(ends.is(&host("a"), Ended::Lost));
    ends.is(&host("a"), Ended::Touched)
}

#[test]
fn a_lost_host_counts_as_touched_only_if_a_commit_may_have_reached_it() {
    let due = [("a", Outcome::Untouched)];
    assert!(!is_touched(&due, &[]));
    assert!(!is_touched(&due, &[of_outcome("b", Outcome::Confirmed)]));
    assert!(is_touched(&due, &[of_outcome("a", Outcome::TimedOut)]));
    let intent = Event::Intent {
        direction: crate::event::Direction::Forward,
        wave: 1,
        targets: Vec::new(),
        pids: Vec::new(),
        armed_s: None,
    };
    assert!(is_touched(&due, &[("a", intent)]));
}

#[test]
fn a_lost_host_of_which_no_outcome_would_tell_counts_as_touched() {
    assert!(is_touched(&[], &[]));
    assert!(is_touched(&[("b", Outcome::Untouched)], &[]));
    let one_runs_it = [("a", Outcome::Untouched), ("a", Outcome::Unchanged)];
    assert!(is_touched(&one_runs_it, &[]));
}

#[test]
fn a_host_in_any_other_state_did_not_end_by_it() {
    for state in [HostState::Ready, HostState::Excluded, HostState::Done] {
        assert_eq!(ends(&[of_state("a", state)], "a"), [], "{state:?}");
    }
}

#[test]
fn an_outcome_says_whether_its_host_was_touched_and_whether_it_failed() {
    for (outcome, ended) in [
        (Outcome::Untouched, &[][..]),
        (Outcome::Unchanged, &[]),
        (Outcome::Refused, &[Ended::Failed]),
        (Outcome::Confirmed, &[Ended::Touched]),
        (Outcome::Unconfirmed, &[Ended::Touched]),
        (Outcome::Reverted, &[Ended::Touched]),
        (Outcome::Rejected, &[Ended::Failed, Ended::Touched]),
        (Outcome::TimedOut, &[Ended::Failed, Ended::Touched]),
        (Outcome::Died, &[Ended::Failed, Ended::Touched]),
        (Outcome::RevertFailed, &[Ended::Failed, Ended::Touched]),
    ] {
        let events = [of_outcome("a", outcome)];
        assert_eq!(ends(&events, "a"), ended, "{outcome:?}");
    }
}

#[test]
fn a_failed_instance_that_was_rolled_back_has_failed() {
    let events = [
        of_outcome("a", Outcome::TimedOut),
        of_outcome("a", Outcome::Reverted),
    ];
    assert_eq!(ends(&events, "a"), [Ended::Failed, Ended::Touched]);
}

#[test]
fn a_host_whose_target_was_replaced_is_touched() {
    let installed = Event::Installed {
        rev: None,
        path: "/etc/web.toml".into(),
        sha256: "00".into(),
    };
    assert_eq!(ends(&[("a", installed)], "a"), [Ended::Touched]);
}

#[test]
fn each_host_has_its_own_ends() {
    let events = [
        of_outcome("a", Outcome::Confirmed),
        of_outcome("b", Outcome::Died),
    ];
    assert_eq!(ends(&events, "a"), [Ended::Touched]);
}

#[test]
fn a_line_that_cannot_be_read_hides_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let id = index(dir.path(), &[of_outcome("a", Outcome::Died)]);
    let path = layout::journal_of(dir.path(), &id);
    let mut text = std::fs::read_to_string(&path).unwrap();
    text.push_str("{\"event\":\"later\",\"host\":\"a\"}\n");
    let lost = serde_json::json!({"host": "b", "event": "host", "name": "b", "state": "lost",
        "why": null});
    text.push_str(&format!("{lost}\n{{\"event\":\"ho"));
    std::fs::write(path, text).unwrap();
    let ends = HostEnds::of(dir.path(), &id).unwrap();
    assert!(ends.is(&host("a"), Ended::Failed));
    assert!(ends.is(&host("b"), Ended::Lost));
}

#[test]
fn a_run_that_is_not_known_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let ends = HostEnds::of(dir.path(), &new_id());
    assert!(matches!(ends, Err(RunError::Unknown(..))));
}
