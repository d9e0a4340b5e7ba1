#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

use super::*;
use crate::{
    fleet::Order,
    runs::{Journal, Record, Verb, new_id},
};

fn over() -> OverHosts {
    OverHosts {
        fleet: "/etc/hello/fleet.toml".into(),
        hosts: ["a", "b"].map(|name| HostName::new(name).unwrap()).into(),
        groups: vec!["web".into()],
    }
}

/// Begins a run whose coordinator dies at once. Returns its id.
fn dead_run(state: &Path, over: Option<OverHosts>) -> String {
    let id = new_id();
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
        instances: Vec::new(),
        readings: Vec::new(),
        waves: 1,
        contents: Vec::new(),
        over,
        part_of: None,
    };
    let (_sender, interrupts) = tokio::sync::watch::channel(0);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let begun = runtime.block_on(Journal::begin(state, &record, &interrupts));
    drop(begun.unwrap());
    id
}

#[test]
fn a_run_over_hosts_is_found_with_its_file_and_its_hosts() {
    let dir = tempfile::tempdir().unwrap();
    let id = dead_run(dir.path(), Some(over()));
    let found = over_hosts(dir.path(), Some(&id)).unwrap();
    assert_eq!(found.id, id);
    assert_eq!(found.fleet, over().fleet);
    assert_eq!(found.hosts, over().hosts);
}

#[test]
fn without_a_name_it_is_the_newest_open_run() {
    let dir = tempfile::tempdir().unwrap();
    dead_run(dir.path(), Some(over()));
    let newest = dead_run(dir.path(), Some(over()));
    assert_eq!(over_hosts(dir.path(), None).unwrap().id, newest);
}

#[test]
fn a_newer_open_run_of_this_machine_hides_one_over_hosts() {
    let dir = tempfile::tempdir().unwrap();
    dead_run(dir.path(), Some(over()));
    dead_run(dir.path(), None);
    assert!(over_hosts(dir.path(), None).is_none());
}

#[test]
fn a_run_on_this_machine_is_none_over_hosts() {
    let dir = tempfile::tempdir().unwrap();
    let id = dead_run(dir.path(), None);
    assert!(over_hosts(dir.path(), Some(&id)).is_none());
}

#[test]
fn a_run_that_is_not_known_is_none_over_hosts() {
    let dir = tempfile::tempdir().unwrap();
    assert!(over_hosts(dir.path(), None).is_none());
    assert!(over_hosts(dir.path(), Some(&new_id())).is_none());
}

#[test]
fn a_plan_that_cannot_be_read_is_none_over_hosts() {
    let dir = tempfile::tempdir().unwrap();
    let id = dead_run(dir.path(), Some(over()));
    std::fs::write(layout::plan_of(dir.path(), &id), "{\"over\":").unwrap();
    assert!(over_hosts(dir.path(), Some(&id)).is_none());
}
