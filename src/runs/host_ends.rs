//! How the hosts of a run ended, as the index of a run over other machines has it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde::Deserialize;

use super::{info, interrupted::RunError, layout, run_name};
use crate::{
    event::{At, Event, HostState, Outcome},
    inventory::{Ended, HostName},
};

/// Largest `plan.json` of an index that is read, in bytes: 100,000 instances need about 60 MB.
const MAX_PLAN: u64 = 256 << 20;

/// How each host of a run ended.
#[derive(Debug, Default)]
pub(crate) struct HostEnds(BTreeMap<HostName, BTreeSet<Ended>>);

/// The part of the plan of an index that tells what the run was about to do on its hosts.
#[derive(Debug, Default, Deserialize)]
struct Plan {
    #[serde(default)]
    instances: Vec<Planned>,
}

#[derive(Debug, Deserialize)]
struct Planned {
    host: HostName,
    outcome: Outcome,
}

impl HostEnds {
    /// Reads the index of the run that `name` means.
    ///
    /// # Errors
    /// Fails if no run or several runs have that name, or if the state directory cannot be read.
    pub(crate) fn of(state: &Path, name: &str) -> Result<Self, RunError> {
        let id = run_name::find(state, name)?;
        let mut ends = Self::default();
        let mut intended = BTreeSet::new();
        for line in info::events(state, &id).into_iter().flatten() {
            let Ok(At { event, host }) = serde_json::from_value::<At<Event>>(line) else {
                continue;
            };
            match event {
                Event::Host { host, state, .. } => ends.add_state(host, state),
                Event::Instance { outcome, .. } => ends.add_outcome(host, outcome),
                Event::Installed { .. } => ends.add(host, Ended::Touched),
                Event::Intent { .. } => drop(intended.insert(host)),
                _ => {}
            }
        }
        ends.touch_lost(&intended, &plan_of(state, &id));
        Ok(ends)
    }

    /// Returns the hosts that ended so.
    pub(crate) fn all(&self, ended: Ended) -> impl Iterator<Item = &HostName> {
        let hosts = self.0.iter();
        hosts.filter_map(move |(host, ends)| ends.contains(&ended).then_some(host))
    }

    fn add_state(&mut self, host: HostName, state: HostState) {
        match state {
            HostState::Unreachable => self.add(host, Ended::Unreachable),
            HostState::Lost => self.add(host, Ended::Lost),
            _ => {}
        }
    }

    /// Counts lost hosts as touched that may have been. If a commit may have reached one, an event
    /// of it or the outcomes of its instances say so. Only of a host with nothing but instances
    /// that the run was to signal do their outcomes tell that.
    fn touch_lost(&mut self, intended: &BTreeSet<HostName>, plan: &Plan) {
        let mut is_told: BTreeMap<&HostName, bool> = BTreeMap::new();
        for instance in &plan.instances {
            let is_due = instance.outcome == Outcome::Untouched;
            *is_told.entry(&instance.host).or_insert(true) &= is_due;
        }
        let lost: Vec<HostName> = self.all(Ended::Lost).cloned().collect();
        for host in lost {
            let is_untouched = is_told.get(&host) == Some(&true) && !intended.contains(&host);
            if !is_untouched {
                self.add(host, Ended::Touched);
            }
        }
    }

    /// Adds what an outcome says, also where a later one replaces it: a failed instance that was
    /// rolled back has failed.
    fn add_outcome(&mut self, host: HostName, outcome: Outcome) {
        let is_untouched = matches!(
            outcome,
            Outcome::Untouched | Outcome::Unchanged | Outcome::Refused
        );
        if !is_untouched {
            self.add(host.clone(), Ended::Touched);
        }
        if has_failed(outcome) {
            self.add(host, Ended::Failed);
        }
    }

    fn add(&mut self, host: HostName, ended: Ended) {
        self.0.entry(host).or_default().insert(ended);
    }

    /// Tells whether a host ended so.
    #[must_use]
    pub(crate) fn is(&self, host: &HostName, ended: Ended) -> bool {
        self.0.get(host).is_some_and(|ends| ends.contains(&ended))
    }
}

/// Returns the plan of an index; without an instance if it cannot be read.
fn plan_of(state: &Path, id: &str) -> Plan {
    let bytes = crate::config::read(&layout::plan_of(state, id), MAX_PLAN).unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

/// Tells whether an instance is not on the new config against the will of the run.
fn has_failed(outcome: Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Refused
            | Outcome::Rejected
            | Outcome::TimedOut
            | Outcome::Died
            | Outcome::RevertFailed
    )
}

#[cfg(test)]
mod tests;
