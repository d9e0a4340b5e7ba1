//! The journal of a run: what was planned, intended and seen, synced before it matters; and the
//! runs that were.
//!
//! In the state directory: `runs/ID/` with `plan.json`, `events.jsonl` and the contents that it
//! needs, `bytes/SHA256` with every content once, `open/ID` for each run that somebody must look
//! at, `staged/ID.jsonl` with what a run has staged beside its targets, and `proven.json` and
//! `last.json`.

use serde::{Deserialize, Serialize};

use crate::{
    event::{Instance, TargetReport},
    fleet::{Group, Order},
    step::Content,
};

mod forget;
mod info;
mod interrupted;
mod journal;
mod last_seen;
mod layout;
mod open_runs;
mod proof_cache;
mod records;
mod retention;
mod staged;
mod state_dir;
mod store;
mod supersede;
mod syslog;

pub use self::{
    forget::{NotForgotten, OpenRuns, bytes_of, forget_bytes, forget_run},
    info::{RunInfo, events, find, run_ids},
    interrupted::{InterruptedRun, RunError, RunInstance, RunTarget, SignalRecord, later},
    journal::Journal,
    last_seen::{LastInstance, LastSeen},
    open_runs::{is_left, marked_runs, open_runs, targets as open_targets},
    proof_cache::{ProofCache, ProvenInstance, ProvenTarget, Reload},
    records::{Operator, RunBegan, RunEnded},
    retention::{Retention, prune},
    staged::{Stage, Staging, sweep},
    state_dir::trusted,
    store::stored,
    supersede::supersede,
};

/// What a run is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Bring a new config.
    Broadcast,
    /// Go on with an earlier run.
    Resume,
    /// Bring the config back that an earlier run replaced.
    Revert,
}

/// What is kept of a plan.
#[derive(Debug)]
pub struct Record<'a> {
    /// Of [`new_id`].
    pub id: &'a str,
    /// What it does.
    pub verb: Verb,
    /// The run that it goes on with, or undoes.
    pub of: Option<&'a str>,
    /// Why the operator did it.
    pub reason: Option<&'a str>,
    /// The command line, less its secrets.
    pub command: Vec<String>,
    /// The groups, with every default filled in.
    pub groups: &'a [Group],
    /// What groups that are not in the run come after, as far as those of the run come after them.
    pub order: Order,
    /// Every target.
    pub targets: Vec<TargetReport>,
    /// Every instance, as it was surveyed.
    pub instances: Vec<&'a Instance>,
    /// Of those whose facts say that a change of an answer proves the new config: pid, start time,
    /// and what was answered before.
    pub readings: Vec<(i32, u64, &'a [Option<String>])>,
    /// How many waves there are.
    pub waves: usize,
    /// Old and new bytes.
    pub blobs: Vec<&'a Content>,
}

/// A new run's id: a UUIDv7, which sorts by time.
#[must_use]
pub fn new_id() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .unwrap_or_default()
        .trim()
        .into()
}
