//! The events of a run, as data. The engine and the host emit events, the journal keeps them, the
//! reports show them.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::inventory::HostName;

mod abort;
mod at;
mod direction;
mod host;
mod instance;
mod interrupts;
mod outcome;
mod phase;
mod process;
mod session_end;
mod target;
mod verdict;

pub(crate) use self::{
    abort::Abort,
    at::{At, host_schema},
    direction::Direction,
    host::HostState,
    instance::{Instance, ReloadsBy},
    interrupts::{Interrupted, Interrupts, check_interrupts, interrupted},
    outcome::{Failure, FailureKind, Outcome, Proof},
    phase::Phase,
    process::{failures, has_hosts, process, processes},
    session_end::SessionEnd,
    target::{EntryChange, EntryReport, KeyReport, SourceReport, TargetKind, TargetReport},
    verdict::Verdict,
};

/// Version of the journal and of every JSON answer.
pub(crate) const VERSION: u32 = 2;

/// The text of a failure where the run did not wait for the proof to the end.
pub(crate) const INTERRUPTED: &str = "not waited for to the end: interrupted by the operator";

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The survey ended.
    Survey {
        instances: usize,
        #[serde(default, with = "crate::exact")]
        #[schemars(with = "Option<crate::exact::Shape<'static>>")]
        fleet: Option<PathBuf>,
    },
    /// This run takes the place of an earlier run that was left open.
    Superseded { run: String },
    /// This run was left open, and a later run took its place.
    SupersededBy { run: String },
    /// The index of a run over hosts was left open, and is closed: each of its hosts has recorded
    /// the end.
    IndexClosed { run: String, why: String },
    /// Instances of an earlier run, which this run continues, have ended.
    Gone {
        group: String,
        pids: Vec<i32>,
        why: String,
    },
    /// A process matched and is not part of the run.
    Skipped { pid: i32, why: String },
    /// A process holds a lock on this directory and may write none of the targets in it. The lock
    /// is ignored.
    ForeignLock {
        #[serde(with = "crate::exact")]
        #[schemars(with = "crate::exact::Shape<'static>")]
        path: PathBuf,
        holder: String,
    },
    /// A file beside a target has the name of a staged file, and could not be removed safely.
    LeftBeside {
        #[serde(with = "crate::exact")]
        #[schemars(with = "crate::exact::Shape<'static>")]
        path: PathBuf,
        why: String,
    },
    /// A process wrote to a replaced file later, through a descriptor from before. Its bytes are
    /// kept in the file `kept`.
    LateEdit {
        #[serde(with = "crate::exact")]
        #[schemars(with = "crate::exact::Shape<'static>")]
        path: PathBuf,
        what: String,
        #[serde(default, with = "crate::exact")]
        #[schemars(with = "Option<crate::exact::Shape<'static>>")]
        kept: Option<PathBuf>,
    },
    /// For this many replaced files it is not known whether they were changed later.
    NotHeld { targets: usize },
    /// An assertion reads this URL, and the certificate of the server is not checked.
    Insecure { group: String, url: String },
    /// An assertion that does not depend on the config did not hold before the run, at this many
    /// instances of a group. One of them is named by its pid.
    NotHeldBefore {
        group: String,
        pid: i32,
        instances: usize,
        why: String,
    },
    /// Instances of a group were not seen to open this target after their signal. One of them is
    /// named by its pid.
    NotOpened {
        group: String,
        pid: i32,
        instances: usize,
        #[serde(with = "crate::exact")]
        #[schemars(with = "crate::exact::Shape<'static>")]
        path: PathBuf,
    },
    /// The new content of a group was read from a key of a store.
    SourceRead {
        url: String,
        rev: String,
        sha256: String,
        bytes: usize,
    },
    /// A validator passed the candidate.
    Valid {
        #[serde(with = "crate::exact")]
        #[schemars(with = "crate::exact::Shape<'static>")]
        path: PathBuf,
        sha256: String,
        by: String,
    },
    /// A failure could not be rolled back: no copy of the served config is known, or the target
    /// cannot be replaced.
    NoRollbackContent {
        #[serde(with = "crate::exact")]
        #[schemars(with = "crate::exact::Shape<'static>")]
        path: PathBuf,
        #[serde(default)]
        why: String,
    },
    /// An instance's validator could not be run; that refuses nothing and proves nothing.
    Unvalidated { pid: i32, why: String },
    /// The run begins; the number of instances to signal in each wave.
    Waves { instances: Vec<usize> },
    /// The processes that are about to be signalled; synced to disk before the signal.
    Intent {
        direction: Direction,
        wave: usize,
        targets: Vec<TargetReport>,
        pids: Vec<(i32, u64)>,
        /// The seconds of the run's commit-confirmed timer, where it has one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        armed_s: Option<u64>,
    },
    /// The coordinator was heard at this time since the boot, in seconds. It is kept where a
    /// commit-confirmed timer runs.
    Heard { since_boot_s: u64 },
    /// Each host that the run touches rolls back by itself if it hears nothing of the coordinator
    /// for so many seconds.
    Armed { seconds: u64 },
    /// The session of the run ended on this host before the coordinator's `finish`.
    SessionEnded {
        by: SessionEnd,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        operator: Option<String>,
    },
    /// The target has its new bytes. A key has them at the revision `rev`.
    Installed {
        #[serde(with = "crate::exact")]
        #[schemars(with = "crate::exact::Shape<'static>")]
        path: PathBuf,
        sha256: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rev: Option<String>,
    },
    /// The run rolls everything back; the old bytes are about to be installed.
    RollbackBegan { why: String },
    /// These instances failed; they alone are rolled back.
    RolledBack { pids: Vec<i32>, why: String },
    /// The run ends here; an instance that is proven on the new config stays on it.
    Stopped { why: String },
    /// The run waits after a wave before it probes its instances again.
    Baking { wave: usize, seconds: f64 },
    /// The wait is over; this many instances of all waves so far still prove the new config.
    Baked { wave: usize, instances: usize },
    /// The operator's command after a wave has ended. Without an exit code it could not be run, or
    /// did not end.
    Gate {
        wave: usize,
        command: Vec<String>,
        exit: Option<i32>,
        output: String,
    },
    /// The endpoint of an instance did not answer before the run. The instance is skipped, or
    /// included all the same.
    Unresponsive {
        group: String,
        pid: i32,
        #[serde(
            serialize_with = "crate::exact::absent::text",
            deserialize_with = "crate::exact::absent::text_or_none"
        )]
        #[schemars(with = "Option<String>")]
        endpoint: String,
        why: String,
        skipped: bool,
    },
    /// The state of a host is another one now.
    Host {
        #[serde(rename = "name")]
        host: HostName,
        state: HostState,
        why: Option<String>,
    },
    /// The run is in this phase: `done` of `all`, where that is known, and the longest time that
    /// one item may take. It is shown while it lasts, and never kept.
    #[schemars(skip)]
    Phase {
        phase: Phase,
        done: usize,
        all: usize,
        limit: Option<Duration>,
    },
    /// The outcome of an instance is known.
    Instance {
        group: String,
        pid: i32,
        started: u64,
        #[serde(
            serialize_with = "crate::exact::absent::text",
            deserialize_with = "crate::exact::absent::text_or_none"
        )]
        #[schemars(with = "Option<String>")]
        endpoint: String,
        moved_from: Option<String>,
        successor_of: Option<i32>,
        outcome: Outcome,
        proof: Option<Proof>,
        draining: Vec<i32>,
        failure: Option<Failure>,
        took_us: Option<u64>,
    },
    /// The last check begins. Everything that the verdict depends on was so at this moment or
    /// later.
    FinalCheck,
    /// The record of the run's proofs, or of the instances it left alive, could not be written.
    NotKept { why: String },
    /// Old runs, or bytes that no run needs any more, could not be removed.
    NotPruned { why: String },
    /// The end.
    Finished {
        verdict: Verdict,
        reason: String,
        counts: BTreeMap<Outcome, usize>,
    },
}

impl Event {
    /// Returns the host that the event names itself.
    #[must_use]
    pub fn host(&self) -> Option<&HostName> {
        match self {
            Self::Host { host, .. } => Some(host),
            _ => None,
        }
    }

    /// Returns the event that the outcome of an instance is known.
    #[must_use]
    pub fn of(instance: &Instance) -> Self {
        Self::Instance {
            group: instance.group.clone(),
            pid: instance.pid,
            started: instance.started,
            endpoint: instance.endpoint.clone(),
            moved_from: instance.moved_from.clone(),
            successor_of: instance.successor_of,
            outcome: instance.outcome,
            proof: instance.proof,
            draining: instance.draining.clone(),
            failure: instance.failure.clone(),
            took_us: instance.took_us,
        }
    }
}
