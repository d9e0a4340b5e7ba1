//! What a host must know of a run besides its plan.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use crate::{
    fleet::{Group, Order},
    inventory::HostName,
    protocol::{PartOf, Validate},
    runs::{ClaimedOperator, Retention, Verb},
};

/// The options of a run that each of its hosts needs.
#[derive(Debug, Clone)]
pub(crate) struct SessionOptions {
    /// The run's id.
    pub(crate) id: String,
    /// The name of this host.
    pub(crate) host: HostName,
    /// How the new config is validated.
    pub(crate) validate: Validate,
    /// Prepare, show, and drop what was staged.
    pub(crate) dry_run: bool,
    /// Include instances whose endpoint is unresponsive. The config alone proves them.
    pub(crate) include_unresponsive: bool,
    /// The longest time from an instance's signal to its proof; none for that of its group.
    pub(crate) timeout: Option<Duration>,
    /// The longest wait for the lock of another run.
    pub(crate) lock_timeout: Duration,
    /// The operator that the coordinator of a run over hosts claims; kept in the journal.
    pub(crate) claimed: Option<ClaimedOperator>,
    /// The operator's reason; kept in the journal.
    pub(crate) reason: Option<String>,
    /// The command line, without its secrets; kept in the journal.
    pub(crate) command: Vec<String>,
    /// The state directory.
    pub(crate) state: PathBuf,
    /// ` --state DIR` to append to suggested commands; empty for the default directory.
    pub(crate) state_args: String,
    /// Which runs are kept when this one has ended.
    pub(crate) keep: Retention,
}

/// Everything about a run besides its plan.
#[derive(Debug, Clone)]
pub(crate) struct RunContext {
    /// The options of the command.
    pub(crate) options: SessionOptions,
    /// The command.
    pub(crate) verb: Verb,
    /// The earlier run that it continues or reverts.
    pub(crate) of: Option<String>,
    /// Open runs that it takes the place of if it proves every instance.
    pub(crate) replaces: Vec<String>,
    /// The groups, with every default filled in.
    pub(crate) groups: Vec<Group>,
    /// For each group of the fleet, the groups that it comes after.
    pub(crate) order: Order,
    /// No bake, no gate, and no rollback.
    pub(crate) now: bool,
    /// The config that it installs is an old one.
    pub(crate) back: bool,
    /// Instances that have gone since the earlier run, for the reason of a good end.
    pub(crate) unreplaced: Option<String>,
    /// The processes, by pid and start time, that the earlier run has signalled, and proven on the
    /// old config afterwards.
    pub(crate) reverted: BTreeSet<(i32, u64)>,
    /// The run over hosts that this one is a part of.
    pub(crate) part_of: Option<PartOf>,
    /// The run over hosts that the earlier run is a part of, where this run is of this host alone.
    pub(crate) alone_in: Option<PartOf>,
}

impl RunContext {
    pub(super) fn group_names(&self) -> Vec<&str> {
        self.groups.iter().map(|g| g.name.as_str()).collect()
    }
}
