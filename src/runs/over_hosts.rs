//! Runs over other machines, as their index on this one knows them.

use std::{
    collections::BTreeSet,
    io::Read,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{format::OverHosts, info::RunInfo, layout, open_runs::open_runs, run_name};
use crate::inventory::HostName;

/// Largest `plan.json` of an index that is read, in bytes: 100,000 instances need about 60 MB.
const MAX_PLAN: u64 = 256 << 20;
/// Most runs of a chain of runs that continue each other; earlier ones are not read.
const MAX_CHAIN: usize = 100;

/// A run over other machines.
#[derive(Debug, Clone)]
pub(crate) struct RunOverHosts {
    /// Its id.
    pub(crate) id: String,
    /// The coordinator's fleet file.
    pub(crate) fleet: PathBuf,
    /// The hosts that it has begun on; empty if that is not known.
    pub(crate) hosts: Vec<HostName>,
    /// Other hosts of the runs that it continues.
    pub(crate) others: Vec<HostName>,
    /// True if its index has not come to its end.
    pub(crate) is_open: bool,
    /// True if it installs an old config.
    pub(crate) is_back: bool,
    /// True if it is a broadcast that continues no other run.
    pub(crate) is_first: bool,
}

impl RunOverHosts {
    /// Returns a run of which this machine has no index.
    #[must_use]
    pub(crate) fn without_index(id: String, fleet: PathBuf) -> Self {
        Self {
            id,
            fleet,
            hosts: Vec::new(),
            others: Vec::new(),
            is_open: false,
            is_back: false,
            is_first: false,
        }
    }

    /// Adds the hosts of the runs that it continues, as far as this machine has their indexes.
    fn with_chain(mut self, state: &Path) -> Self {
        let mut known: BTreeSet<HostName> = self.hosts.iter().cloned().collect();
        let mut next = Some(self.id.clone());
        for _ in 0..MAX_CHAIN {
            let Some(id) = next.take() else { break };
            let Some(began) = RunInfo::of(state, &id).began else {
                break;
            };
            next = began.of;
            let earlier = next.as_ref().and_then(|id| hosts_of(state, id));
            let others = earlier.into_iter().flat_map(|over| over.hosts);
            let others = others.filter(|host| known.insert(host.clone()));
            self.others.extend(others.collect::<Vec<_>>());
        }
        self
    }
}

#[derive(Deserialize)]
struct Plan {
    #[serde(default)]
    over: Option<OverHosts>,
}

/// Returns the run over hosts that `name` means, without a name the newest open run if it is one;
/// none if it is a run on this machine, or no run at all.
#[must_use]
pub(crate) fn over_hosts(state: &Path, name: Option<&str>) -> Option<RunOverHosts> {
    let id = match name {
        Some(name) => run_name::find(state, name).ok()?,
        None => open_runs(state).pop()?.id,
    };
    let over = hosts_of(state, &id)?;
    let info = RunInfo::of(state, &id);
    let run = RunOverHosts {
        hosts: over.hosts,
        is_open: info.open || info.running,
        // Its hosts have decided that, which know every run before it.
        is_back: info.began.as_ref().is_some_and(|began| began.back),
        is_first: info
            .began
            .as_ref()
            .is_some_and(|began| began.verb == super::Verb::Broadcast && began.of.is_none()),
        ..RunOverHosts::without_index(id, over.fleet)
    };
    Some(run.with_chain(state))
}

/// Reads the hosts of the run `id`; none if it is a run on this machine, or cannot be read.
fn hosts_of(state: &Path, id: &str) -> Option<OverHosts> {
    let file = std::fs::File::open(layout::plan_of(state, id)).ok()?;
    let mut text = String::new();
    file.take(MAX_PLAN).read_to_string(&mut text).ok()?;
    let plan: Plan = serde_json::from_str(&text).ok()?;
    plan.over
}

#[cfg(test)]
mod tests;
