//! Runs over other machines, as their index on this one knows them.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{format::OverHosts, layout, open_runs::open_runs, run_name};
use crate::inventory::HostName;

/// Largest `plan.json` of an index that is read, in bytes: 100,000 instances need about 60 MB.
const MAX_PLAN: u64 = 256 << 20;

/// A run over other machines.
#[derive(Debug, Clone)]
pub(crate) struct RunOverHosts {
    /// Its id.
    pub(crate) id: String,
    /// The coordinator's fleet file.
    pub(crate) fleet: PathBuf,
    /// The hosts that it has begun on; empty if that is not known.
    pub(crate) hosts: Vec<HostName>,
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
    let file = std::fs::File::open(layout::plan_of(state, &id)).ok()?;
    let mut text = String::new();
    file.take(MAX_PLAN).read_to_string(&mut text).ok()?;
    let plan: Plan = serde_json::from_str(&text).ok()?;
    let over = plan.over?;
    Some(RunOverHosts {
        id,
        fleet: over.fleet,
        hosts: over.hosts,
    })
}

#[cfg(test)]
mod tests;
