//! What the agent knows of its host.

use std::time::Duration;

use super::{options::Options, output::Output};
use crate::{
    fleet::{DEFAULT_LEASE, Fleet, FleetError},
    inventory::HostName,
    protocol::{Refused, RefusedKind},
    runs::ClaimedOperator,
};

/// The agent of this host.
pub(super) struct Agent {
    pub(super) fleet: Result<Fleet, FleetError>,
    pub(super) options: Options,
    pub(super) output: Output,
    /// The operator that the coordinator claims; none until it has chosen the dialect.
    pub(super) claimed: Option<ClaimedOperator>,
    /// The key by which the coordinator takes its session over on a later connection.
    pub(super) key: Option<String>,
}

impl Agent {
    /// Tells whether the coordinator has chosen the dialect.
    pub(super) fn is_taken(&self) -> bool {
        self.claimed.is_some()
    }

    /// Returns how long a session waits for its coordinator.
    pub(super) fn lease(&self) -> Duration {
        let fleet = self.fleet.as_ref().ok();
        let agent = fleet.and_then(|fleet| fleet.agent.as_ref());
        agent.map_or(DEFAULT_LEASE, |agent| agent.lease)
    }

    /// Returns the name of this host in its journal.
    pub(super) fn name(&self) -> HostName {
        let fleet = self.fleet.as_ref().ok();
        let agent = fleet.and_then(|fleet| fleet.agent.as_ref());
        let name = self.options.name_of(agent);
        name.unwrap_or_else(HostName::local)
    }

    /// Returns those groups of the host's own file that a request names, or all of them.
    pub(super) fn selected(&self, groups: &[String], every: bool) -> Result<Fleet, Refused> {
        let fleet = self
            .fleet
            .as_ref()
            .map_err(|why| refused(RefusedKind::Failed, why.to_string()))?;
        // A coordinator names the groups of all hosts, and each host has some of them.
        let is_known = |name: &&String| fleet.groups.iter().any(|group| group.name == **name);
        let known: Vec<String> = groups.iter().filter(is_known).cloned().collect();
        if known.is_empty() && !groups.is_empty() {
            let why = format!("none of the groups: {}", groups.join(", "));
            return Err(refused(RefusedKind::NoGroup, why));
        }
        fleet
            .clone()
            .select(&known, every)
            .map_err(|why| refused(RefusedKind::NoGroup, why.to_string()))
    }
}

/// Returns a refusal.
pub(super) fn refused(kind: RefusedKind, text: String) -> Refused {
    Refused { kind, text }
}
