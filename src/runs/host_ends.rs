//! How the hosts of a run ended, as the index of a run over other machines has it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::{info, run_name};
use crate::{
    event::{At, Event, HostState, Outcome},
    inventory::{Ended, HostName},
};

/// How each host of a run ended.
#[derive(Debug, Default)]
pub(crate) struct HostEnds(BTreeMap<HostName, BTreeSet<Ended>>);

impl HostEnds {
    /// Reads the index of the run that `name` means; no host if there is none.
    #[must_use]
    pub(crate) fn of(state: &Path, name: &str) -> Self {
        let mut ends = Self::default();
        let id = run_name::find(state, name).ok();
        let Some(lines) = id.and_then(|id| info::events(state, &id).ok()) else {
            return ends;
        };
        for line in lines {
            let Ok(At { event, host }) = serde_json::from_value::<At<Event>>(line) else {
                continue;
            };
            match event {
                Event::Host { host, state, .. } => ends.add_state(host, state),
                Event::Instance { outcome, .. } => ends.add_outcome(host, outcome),
                Event::Installed { .. } => ends.add(host, Ended::Touched),
                _ => {}
            }
        }
        ends
    }

    fn add_state(&mut self, host: HostName, state: HostState) {
        match state {
            HostState::Unreachable => self.add(host, Ended::Unreachable),
            HostState::Lost => {
                self.add(host.clone(), Ended::Lost);
                self.add(host, Ended::Touched);
            }
            _ => {}
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
