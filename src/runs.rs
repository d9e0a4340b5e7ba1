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
    step::Blob,
};

mod folder;
mod forget;
mod journal;
mod keep;
mod last;
mod layout;
mod left;
mod lines;
mod marks;
mod past;
mod proven;
mod staged;
mod store;
mod supersede;
mod syslog;

pub use self::{
    folder::trusted,
    forget::{NotForgotten, OpenRuns, bytes_of, forget_bytes, forget_run},
    journal::Run,
    keep::{Keep, prune},
    last::{Alive, Last},
    left::{Left, LeftError, LeftInstance, LeftTarget, Touch, later},
    lines::{Began, End, Who},
    marks::{is_left, left_open, marked, targets as open_targets},
    past::{Past, events, find, ids},
    proven::{Proven, Reload, Remains, Stand},
    staged::{Stage, Staging, sweep},
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
    pub blobs: Vec<&'a Blob>,
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
