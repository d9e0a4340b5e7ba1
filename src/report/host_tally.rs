//! The hosts of a run while it goes on, by their state.

use std::collections::BTreeMap;

use super::{hosts::counts_text, text::LISTED};
use crate::{event::HostState, inventory::HostName, screen::Progress};

/// The hosts that the events of a run have named so far.
#[derive(Debug, Default)]
pub(super) struct HostTally {
    /// None for a host whose state no event has named.
    hosts: BTreeMap<HostName, Option<HostState>>,
    /// Number of hosts by state, so that an event costs the same however many hosts there are.
    counts: BTreeMap<HostState, usize>,
    /// Number of hosts that the run was asked for; 0 where it is not known.
    pub(super) all: usize,
    /// Number of lines that have been shown, by state.
    shown: BTreeMap<HostState, usize>,
    /// True once the line with the counts has been shown.
    is_told: bool,
}

impl HostTally {
    /// Notes that an event is about a host.
    pub(super) fn note(&mut self, host: &HostName) {
        if !host.is_local() && !self.hosts.contains_key(host) {
            self.hosts.insert(host.clone(), None);
        }
    }

    /// Notes the state of a host, and returns true if it gets a line of its own. A host without a
    /// fault gets none, and of many in one state only the first do.
    pub(super) fn set(&mut self, host: &HostName, state: HostState, verbose: bool) -> bool {
        let before = self.hosts.insert(host.clone(), Some(state)).flatten();
        if let Some(count) = before.and_then(|state| self.counts.get_mut(&state)) {
            *count -= 1;
        }
        *self.counts.entry(state).or_default() += 1;
        self.counts.retain(|_, count| *count > 0);
        if state.is_well() {
            return false;
        }
        let shown = self.shown.entry(state).or_default();
        *shown += 1;
        verbose || *shown <= LISTED
    }

    /// Returns true if the run has too many hosts for a line each.
    pub(super) fn is_large(&self) -> bool {
        self.hosts.len().max(self.all) > LISTED
    }

    /// Returns the number of hosts that take part.
    pub(super) fn in_run(&self) -> usize {
        let faults = self.counts.iter().filter(|(state, _)| !state.is_well());
        let faults: usize = faults.map(|(_, count)| count).sum();
        self.hosts.len() - faults
    }

    /// Returns true until the text that ends the phase is shown.
    pub(super) fn is_connecting(&self) -> bool {
        self.all > 0 && !self.is_told
    }

    /// Returns true if every host that the run was asked for has a state.
    pub(super) fn has_all(&self) -> bool {
        self.all > 0 && self.known() >= self.all
    }

    /// Returns the number of hosts with a state.
    fn known(&self) -> usize {
        self.counts.values().sum()
    }

    /// Returns the progress line while hosts are connected: `Hosts 398 of 412 397 ready, 1
    /// unreachable`.
    pub(super) fn progress(&self) -> Progress {
        Progress {
            done: self.known(),
            all: self.all,
            ..Progress::of("Hosts", counts_text(&self.counts))
        }
    }

    /// Returns the text that ends that phase, once: "398 of 412: 397 ready, 1 unreachable".
    pub(super) fn end_text(&mut self) -> Option<String> {
        let known = self.known();
        if known == 0 || std::mem::replace(&mut self.is_told, true) {
            return None;
        }
        let of = if self.all > 0 {
            format!(" of {}", self.all)
        } else {
            String::new()
        };
        let counts = counts_text(&self.counts);
        Some(format!("{known}{of}: {counts}"))
    }
}
