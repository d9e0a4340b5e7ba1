//! The hosts of a run as reports show them.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    event::HostState,
    inventory::HostName,
    names::{self, json_word},
    screen::counted,
};

/// A host at the end of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct HostReport {
    /// Its name.
    pub name: HostName,
    /// Its state at the end.
    pub state: HostState,
    /// The reason for its state; none for a host without a fault.
    pub why: Option<String>,
    /// The version of hello there, as far as it is known.
    pub version: Option<String>,
    /// Number of its instances in the run.
    pub instances: usize,
}

/// Counts hosts by state.
pub(super) fn counts(states: impl IntoIterator<Item = HostState>) -> BTreeMap<HostState, usize> {
    let mut counts = BTreeMap::new();
    for state in states {
        *counts.entry(state).or_insert(0) += 1;
    }
    counts
}

/// Returns the counts in words: "397 ready, 1 unreachable".
pub(super) fn counts_text(counts: &BTreeMap<HostState, usize>) -> String {
    let texts = counts
        .iter()
        .map(|(state, n)| format!("{n} {}", json_word(state)));
    texts.collect::<Vec<_>>().join(", ")
}

/// Returns lines about the hosts at the end of a run: how many are in each state, and which have a
/// fault, by state and reason. Each line is a word and a text.
pub(super) fn lines(
    counts: &BTreeMap<HostState, usize>,
    hosts: &[HostReport],
) -> Vec<(&'static str, String)> {
    let all: usize = counts.values().sum();
    let mut lines = vec![("Hosts", format!("{all}: {}", counts_text(counts)))];
    let mut faults: BTreeMap<(HostState, &str), Vec<&HostName>> = BTreeMap::new();
    for host in hosts.iter().filter(|host| !host.state.is_well()) {
        let key = (host.state, host.why.as_deref().unwrap_or_default());
        faults.entry(key).or_default().push(&host.name);
    }
    lines.extend(
        faults
            .into_iter()
            .map(|((state, why), names)| (state.word(), of_hosts(&names, why))),
    );
    lines
}

/// Returns a text about hosts: "edge-081: TEXT", or "2 hosts: TEXT: edge-081, edge-090".
pub(super) fn of_hosts(hosts: &[&HostName], text: &str) -> String {
    match hosts {
        [host] => format!("{host}: {text}"),
        hosts => format!(
            "{}: {text}: {}",
            counted(hosts.len(), "host"),
            names::list(hosts, ", ", names::MOST)
        ),
    }
}
