#![allow(clippy::unwrap_used, reason = "a test says so by failing")]

use super::{
    answer::Answer,
    row::{HostRow, State},
    table::{grouped, totals},
};
use crate::inventory::{HostEntry, HostName};

fn row(name: &str, state: State) -> HostRow {
    let host = HostEntry::named(HostName::new(name).unwrap());
    let failure = crate::hosts::ConnectFailure::new(crate::hosts::Fault::Quiet);
    HostRow {
        state,
        ..HostRow::failed(&host, &crate::hosts::QueryError::Connect(failure))
    }
}

fn rows(count: usize, state: State) -> Vec<HostRow> {
    (0..count).map(|n| row(&format!("h{n}"), state)).collect()
}

#[test]
fn one_unreachable_host_decides_the_exit_code() {
    let mut hosts = rows(3, State::Ready);
    assert_eq!(Answer::of(&hosts).exit(), 0);
    hosts.push(row("skewed", State::Skewed));
    assert_eq!(Answer::of(&hosts).exit(), 5);
    hosts.push(row("away", State::Unreachable));
    assert_eq!(Answer::of(&hosts).exit(), 11);
}

#[test]
fn the_reason_names_the_worst_host_and_counts_the_others() {
    let mut hosts = rows(2, State::Ready);
    hosts.push(row("skewed", State::Skewed));
    hosts.push(row("away", State::Unreachable));
    let answer = Answer::of(&hosts);
    let reason = answer.reason().unwrap();
    assert!(reason.starts_with("away and 1 more: "), "{reason}");
}

#[test]
fn a_few_hosts_have_a_row_each_and_many_share_one() {
    assert_eq!(grouped(&rows(20, State::Ready)).len(), 20);
    let mut many = rows(400, State::Ready);
    many.push(row("away", State::Unreachable));
    let shown = grouped(&many);
    let hosts: Vec<&str> = shown.iter().map(|(hosts, _)| &**hosts).collect();
    assert_eq!(
        hosts,
        [
            "400 hosts: h0, h1, h2, h3, h4, h5, h6, h7, h8, h9 and 390 more",
            "away"
        ]
    );
}

#[test]
fn the_totals_count_each_state() {
    let mut hosts = rows(2, State::Ready);
    hosts.push(row("away", State::Unreachable));
    assert_eq!(totals(&hosts), "3 hosts: 2 ready, 1 UNREACHABLE");
}
