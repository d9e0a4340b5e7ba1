//! What happens in a run, as data: the engine tells it, the journal keeps it, the reports show it.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::fleet::Unproven;

mod phase;
mod stop;

pub use self::{phase::Phase, stop::Abort};

/// How often the operator asked to stop: 1 means no new signal and go back, 2 means leave now.
pub type Interrupts = watch::Receiver<u8>;

/// How a run ended; decides the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Every instance is on the new config.
    Converged,
    /// The command could not work; nothing touched.
    Failed,
    /// Bad arguments or fleet.
    Usage,
    /// A group found none, or not its count; nothing touched.
    NoMatch,
    /// The change was read and is not acceptable; nothing touched.
    Invalid,
    /// A guard said no; nothing touched.
    Refused,
    /// Every touched instance is proven on the old config again.
    Reverted,
    /// Something touched is not proven.
    Mixed,
    /// Every touched instance is proven, on the new or the old config; some are not on the new one,
    /// on purpose.
    Partial,
    /// Another run holds the lock; nothing touched.
    Busy,
    /// Valid, but needs a restart; nothing touched.
    RestartRequired,
    /// Every touched instance was signalled and lives, no fault was seen, and nothing proves the
    /// new config of some.
    Unproven,
}

impl Verdict {
    /// The exit code that stands for it in every pipeline.
    #[must_use]
    pub fn exit(self) -> u8 {
        match self {
            Self::Converged => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NoMatch => 3,
            Self::Invalid => 4,
            Self::Refused => 5,
            Self::Reverted => 6,
            Self::Mixed => 7,
            Self::Partial => 8,
            Self::Busy => 9,
            Self::RestartRequired => 10,
            Self::Unproven => 12,
        }
    }

    /// The verdict of a run that got as far as its signals: a pure function of where its instances
    /// are, and of whether everything was `undone`. Each state comes with what its group says of an
    /// instance that is not proven.
    #[must_use]
    pub fn of(states: impl IntoIterator<Item = (Outcome, Unproven)>, undone: bool) -> Self {
        let (mut proven, mut all_new, mut some_new, mut none_new) = (true, true, false, true);
        let mut unconfirmed = false;
        for (state, unproven) in states {
            unconfirmed |= state == Outcome::Unconfirmed && unproven == Unproven::Report;
            let new = matches!(
                state,
                Outcome::Confirmed | Outcome::Unconfirmed | Outcome::Unchanged
            );
            let old = matches!(
                state,
                Outcome::Reverted | Outcome::Untouched | Outcome::Refused
            );
            proven &= new || old || state == Outcome::Rejected;
            (all_new, some_new) = (all_new & new, some_new | new);
            none_new &= old || state == Outcome::Unchanged;
        }
        match undone {
            _ if !proven => Self::Mixed,
            true if none_new => Self::Reverted,
            true => Self::Mixed,
            false if all_new && unconfirmed => Self::Unproven,
            false if all_new => Self::Converged,
            false if none_new && !some_new => Self::Reverted,
            false => Self::Partial,
        }
    }
}

/// Where an instance is at the end; exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Never signalled.
    Untouched,
    /// Ran the new config already, so it got no signal.
    Unchanged,
    /// Proven on the new config.
    Confirmed,
    /// Signalled and alive, no fault was seen, and nothing proves which config it runs.
    Unconfirmed,
    /// Untouched, and a reason why the run ended.
    Refused,
    /// Signalled, and says itself that it kept the old config.
    Rejected,
    /// Signalled, and proves nothing.
    TimedOut,
    /// Gone.
    Died,
    /// Proven on the old config after the undo.
    Reverted,
    /// Undone, not proven.
    RevertFailed,
}

/// What went wrong, finer than the state that it led to first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Its endpoint was silent before the run.
    Unresponsive,
    /// Somebody else, or an old worker, listens where the instance does: whom it answers is chance.
    ForeignListener,
    /// The state says it.
    #[serde(untagged)]
    Ended(Outcome),
}

impl From<Outcome> for FailureKind {
    fn from(state: Outcome) -> Self {
        Self::Ended(state)
    }
}

impl FailureKind {
    /// The state that it leads to on the way forth.
    #[must_use]
    pub fn outcome(self) -> Outcome {
        match self {
            Self::ForeignListener => Outcome::TimedOut,
            Self::Unresponsive => Outcome::Untouched,
            Self::Ended(state) => state,
        }
    }
}

/// Why one step on one instance went wrong.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    /// What it was.
    pub kind: FailureKind,
    /// For people; one line.
    pub text: String,
}

/// One process to reload. Its identity is `pid` and `started`, never the pid alone.
#[derive(Debug, Clone, Serialize)]
pub struct Instance {
    /// The machine.
    pub host: &'static str,
    /// The group of the fleet.
    pub group: String,
    /// Process number.
    pub pid: i32,
    /// Start time in clock ticks since boot, from `/proc/PID/stat`.
    pub started: u64,
    /// What it executes, as `/proc/PID/exe` says.
    #[serde(serialize_with = "crate::exact::absent::path")]
    pub exe: PathBuf,
    /// Its URL.
    #[serde(serialize_with = "crate::exact::absent::text")]
    pub endpoint: String,
    /// What it reads of its config, resolved: files and directories.
    #[serde(with = "crate::exact")]
    pub targets: Vec<PathBuf>,
    /// Signalled together with all of the same number, from 1; the next wave starts only when this
    /// one is proven. 0 for one that is left out.
    pub wave: usize,
    /// Where it is.
    pub outcome: Outcome,
    /// What went wrong first.
    pub failure: Option<Failure>,
    /// Whether its validator passed the candidate.
    pub validated: bool,
    /// Digest it ran at the survey; none where it cannot tell.
    pub before: Option<String>,
    /// Digest it was last proven to run.
    pub after: Option<String>,
    /// From its last signal to its proof, in microseconds.
    pub took_us: Option<u64>,
    /// What its state was proven by.
    pub proof: Option<Proof>,
    /// Its URL before the signal, where that changed.
    pub moved_from: Option<String>,
    /// The process whose place it took during the reload.
    pub successor_of: Option<i32>,
    /// What to type to start it again; only of one that died.
    pub start: Option<String>,
    /// Old workers that end once their last connection does; nobody new is answered by them.
    pub draining: Vec<i32>,
    /// True where it was seen to open each of its targets after its signal; none where that is not
    /// known.
    pub opened: Option<bool>,
}

impl Outcome {
    /// Tells whether no reload of a run is under way: its end was seen, or no signal was sent.
    #[must_use]
    pub fn is_settled(self) -> bool {
        matches!(
            self,
            Self::Confirmed | Self::Reverted | Self::Untouched | Self::Refused
        )
    }
}

/// What a state was proven by, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// The process told the digest of the very bytes.
    Exact,
    /// It answers what only the new config makes it answer.
    Content,
    /// It told that it loaded a config after the signal.
    Reloaded,
    /// Its workers, or its listening socket, are new.
    Workers,
    /// Nothing: its group says that nothing can be seen, or all that its facts say was so before
    /// the signal.
    None,
}

impl Instance {
    /// One of which nothing but its identity is known yet.
    #[must_use]
    pub fn new(group: &str, pid: i32, started: u64) -> Self {
        Self {
            host: "local",
            group: group.into(),
            pid,
            started,
            exe: PathBuf::new(),
            endpoint: String::new(),
            targets: Vec::new(),
            wave: 1,
            outcome: Outcome::Untouched,
            failure: None,
            validated: false,
            before: None,
            after: None,
            took_us: None,
            proof: None,
            moved_from: None,
            successor_of: None,
            start: None,
            draining: Vec::new(),
            opened: None,
        }
    }
}

/// What a target is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum TargetKind {
    File,
    Directory,
}

/// What becomes of one entry of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum EntryChange {
    Added,
    Changed,
    Removed,
}

/// One entry of a directory that does not stay as it is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct EntryReport {
    /// Below the directory, on one line whatever signs are in it.
    pub path: String,
    /// What becomes of it.
    pub change: EntryChange,
}

/// A file or directory that is replaced.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TargetReport {
    /// The machine.
    #[serde(skip_deserializing, default = "here")]
    pub host: &'static str,
    /// Where it is.
    #[serde(with = "crate::exact")]
    pub path: PathBuf,
    /// What it is; the digests of a directory are those of its archive.
    pub kind: TargetKind,
    /// Digest before.
    pub from: Option<String>,
    /// Digest wanted.
    pub to: String,
    /// Digest on disk at the end.
    pub disk: Option<String>,
    /// What would become of a directory's entries; only of a dry run.
    #[serde(default)]
    pub entries: Vec<EntryReport>,
    /// What would change, line by line; only of a dry run, and never of a secret config.
    #[serde(default)]
    pub diff: Option<String>,
}

/// The only machine that there is.
fn here() -> &'static str {
    "local"
}

/// Why nobody waited for a proof to the end.
pub const INTERRUPTED: &str = "not waited for to the end: halted by the operator";

/// Something that happened.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the fields carry the names of the report")]
pub enum Event {
    /// The survey ended.
    Survey {
        instances: usize,
        #[serde(default, with = "crate::exact")]
        fleet: Option<PathBuf>,
    },
    /// An earlier run that was left open, and whose place this one takes.
    Superseded { run: String },
    /// This run was left open, and a later one took its place.
    SupersededBy { run: String },
    /// Instances of the run that this one goes on with, which are not there any more.
    Gone {
        group: String,
        pids: Vec<i32>,
        why: String,
    },
    /// A process that is not in the run, and why.
    Skipped { pid: i32, why: String },
    /// A process holds a lock on this directory and may write none of the targets in it, so that it
    /// is ignored.
    ForeignLock { path: PathBuf, holder: String },
    /// Something stands beside a target as a run leaves it, and could not be removed safely.
    LeftBeside { path: PathBuf, why: String },
    /// What was exchanged away was changed later, through a descriptor from before; its bytes are
    /// kept in this file.
    LateEdit {
        path: PathBuf,
        what: String,
        kept: Option<PathBuf>,
    },
    /// Of so many files that were exchanged away it is not known whether they were changed later.
    NotHeld { targets: usize },
    /// A fact that is read from whoever answers: the certificate of this URL is not looked at.
    Insecure { group: String, url: String },
    /// What an assertion demands without asking the config did not hold before the run, at so many
    /// instances of a group; one of them by its pid.
    NotHeldBefore {
        group: String,
        pid: i32,
        instances: usize,
        why: String,
    },
    /// Instances of a group, one of them by its pid, were not seen to open this target after their
    /// signal.
    NotOpened {
        group: String,
        pid: i32,
        instances: usize,
        #[serde(with = "crate::exact")]
        path: PathBuf,
    },
    /// A validator passed the candidate.
    Valid {
        #[serde(with = "crate::exact")]
        path: PathBuf,
        sha256: String,
        by: String,
    },
    /// Nobody has the bytes of the config that is served now: a failure could not be undone.
    NoRollbackContent {
        #[serde(with = "crate::exact")]
        path: PathBuf,
    },
    /// An instance's validator could not be run, which refuses nothing and proves nothing.
    Unvalidated { pid: i32, why: String },
    /// The run begins: so many are to be signalled in each of its waves.
    Waves { instances: Vec<usize> },
    /// What will be signalled, synced before it is.
    Intent {
        undo: bool,
        wave: usize,
        targets: Vec<TargetReport>,
        pids: Vec<(i32, u64)>,
    },
    /// The target has its new bytes.
    Installed {
        #[serde(with = "crate::exact")]
        path: PathBuf,
        sha256: String,
    },
    /// The run goes back; the old bytes are about to be installed.
    RollbackBegan { why: String },
    /// These failed, and are put back alone.
    RolledBack { pids: Vec<i32>, why: String },
    /// The run goes no further; who is proven on the new config stays on it.
    Stopped { why: String },
    /// A wave is left alone before it is looked at again.
    Baking { wave: usize, seconds: f64 },
    /// After that, so many instances of all waves until now prove the new config still.
    Baked { wave: usize, instances: usize },
    /// What the operator's own command says of a wave; without an exit code it could not be run, or
    /// did not end.
    Gate {
        wave: usize,
        command: Vec<String>,
        exit: Option<i32>,
        output: String,
    },
    /// Its endpoint is silent before the run: it is left out, or goes along all the same.
    Unresponsive {
        group: String,
        pid: i32,
        #[serde(
            serialize_with = "crate::exact::absent::text",
            deserialize_with = "crate::exact::absent::text_or_none"
        )]
        endpoint: String,
        why: String,
        skipped: bool,
    },
    /// The run is at this: `done` of `all`, where that is known. Shown while it lasts, and never
    /// kept.
    Phase {
        phase: Phase,
        done: usize,
        all: usize,
    },
    /// An instance's state is known.
    Instance {
        group: String,
        pid: i32,
        started: u64,
        #[serde(
            serialize_with = "crate::exact::absent::text",
            deserialize_with = "crate::exact::absent::text_or_none"
        )]
        endpoint: String,
        moved_from: Option<String>,
        successor_of: Option<i32>,
        outcome: Outcome,
        proof: Option<Proof>,
        draining: Vec<i32>,
        failure: Option<Failure>,
        took_us: Option<u64>,
    },
    /// The last look begins: what the verdict speaks of was so at this moment or later.
    FinalCheck,
    /// Old runs, or bytes that nobody needs any more, could not be taken away.
    NotPruned { why: String },
    /// The end.
    Finished {
        verdict: Verdict,
        reason: String,
        counts: BTreeMap<Outcome, usize>,
    },
}

impl Event {
    /// That an instance's state is known.
    #[must_use]
    pub fn of(i: &Instance) -> Self {
        Self::Instance {
            group: i.group.clone(),
            pid: i.pid,
            started: i.started,
            endpoint: i.endpoint.clone(),
            moved_from: i.moved_from.clone(),
            successor_of: i.successor_of,
            outcome: i.outcome,
            proof: i.proof,
            draining: i.draining.clone(),
            failure: i.failure.clone(),
            took_us: i.took_us,
        }
    }
}

#[cfg(test)]
mod tests;
