//! The state directory: the journals of all runs, and the bytes that they need.
//!
//! - `runs/ID/`: `plan.json`, `events.jsonl`, and the old and new contents by digest.
//! - `bytes/SHA256`: every content once.
//! - `open/ID`: a mark for each run that is not at its end.
//! - `staged/ID.jsonl`: the files that a run has staged beside its targets.
//! - `order`: the runs in the order in which they began here.
//! - `proven.json`: what processes were last proven to run.
//! - `last.json`: the instances that the last run over each group left alive.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    event::{Instance, TargetReport},
    fleet::{Group, Order},
    inventory::HostName,
    protocol::PartOf,
    step::Content,
};

mod armed;
mod close_index;
mod doubts;
mod forget;
mod format;
mod host_ends;
mod info;
mod interrupted;
mod journal;
mod last_change;
mod last_seen;
mod layout;
mod open_runs;
mod operator;
mod order;
mod over_hosts;
mod proof_cache;
mod retention;
mod run_name;
mod session_end;
mod staged;
mod state_dir;
mod store;
mod supersede;
mod syslog;

pub(crate) use self::{
    armed::{Armed, armed},
    close_index::{HostEnd, close_index},
    doubts::{next, unreadable},
    forget::{NotForgotten, OpenRuns, check_bytes, check_run, forget_bytes, forget_run},
    format::{OverHosts, Readings, RunBegan, RunEnded, first_event_schema},
    host_ends::HostEnds,
    info::{OldRun, RunElsewhere, RunInfo, events, run_ids},
    interrupted::{
        InterruptedRun, RunError, RunInstance, RunTarget, SignalRecord, later, plan_targets,
    },
    journal::{Journal, ProofsKept, unusable},
    last_change::{LastChange, last_change},
    last_seen::{LastInstance, LastSeen},
    open_runs::{
        left_over, listed as marked_ids, marked_runs, open_runs, targets as open_targets, unlisted,
    },
    operator::{ClaimedOperator, Operator},
    order::{never_began, raise as raise_counter, skip as skip_run},
    over_hosts::{RunOverHosts, over_hosts},
    proof_cache::{ProofCache, ProvenInstance, ProvenTarget, Reload},
    retention::{Retention, prune},
    run_name::{Matches, ShortIds, digits, find, whole_id},
    session_end::session_end,
    staged::{Stage, Staging, sweep},
    state_dir::{private_folder, replace, sync, trusted},
    store::{ContentUse, is_secret, stored, uses},
    supersede::supersede,
};

/// The command of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Verb {
    /// Installs a new config.
    Broadcast,
    /// Continues an earlier run.
    Resume,
    /// Restores the config that an earlier run replaced.
    Revert,
    /// Installs or adopts a config after a change of its content, without an operator.
    Watch,
}

/// The plan of a run, for its journal.
#[derive(Debug)]
pub(crate) struct Record<'a> {
    /// The id, from [`new_id`].
    pub id: &'a str,
    /// The host of the journal.
    pub host: HostName,
    /// The command.
    pub verb: Verb,
    /// The earlier run that it continues or reverts.
    pub of: Option<&'a str>,
    /// True if it installs an old config.
    pub back: bool,
    /// The operator that the coordinator of a run over hosts claims.
    pub claimed: Option<&'a ClaimedOperator>,
    /// The operator's reason.
    pub reason: Option<&'a str>,
    /// The command line, without its secrets.
    pub command: Vec<String>,
    /// The groups, with every default filled in.
    pub groups: &'a [Group],
    /// For each group outside the run that a group of the run comes after: the groups that it comes
    /// after itself.
    pub order: Order,
    /// Every target.
    pub targets: Vec<TargetReport>,
    /// Every instance, as it was surveyed.
    pub instances: Vec<&'a Instance>,
    /// The answers from before the run, of each instance whose assertions compare with them.
    pub readings: Vec<Readings<'a>>,
    /// Number of waves.
    pub waves: usize,
    /// Old and new bytes.
    pub contents: Vec<&'a Content>,
    /// The hosts of a run over other machines; none of a run on this one.
    pub over: Option<OverHosts>,
    /// The run over hosts that this one is a part of.
    pub part_of: Option<PartOf>,
}

/// Returns the id of a new run: a UUIDv7, which sorts by time.
#[must_use]
pub(crate) fn new_id() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

/// Returns the id of the present boot, as `/proc/sys/kernel/random/boot_id` has it.
pub(crate) fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .into()
}
