//! A run that is read back, and why it cannot be.

use std::{collections::BTreeMap, io, path::PathBuf};

use jiff::Timestamp;

use crate::{
    event::{Outcome, TargetKind, Verdict},
    fleet::{Group, Order},
    names,
    protocol::PartOf,
    runs::{ClaimedOperator, Verb, info::RunInfo},
};

/// The most ids that an error names if several runs match; more do not fit a line.
const LISTED: usize = 5;

/// Why there is no run to read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// No run was named, and none is open.
    #[error("no run is open in `{}`: every run there came to its end", .0.display())]
    NoneOpen(PathBuf),
    /// No run was named, and one is under way.
    #[error(
        "run `{0}` is under way in `{path}`{of}",
        path = .1.display(),
        of = of_claimed(.2.as_deref())
    )]
    Running(String, PathBuf, Option<Box<ClaimedOperator>>),
    /// No run has that name.
    #[error("no run `{0}` is kept in `{path}`", path = .1.display())]
    Unknown(String, PathBuf),
    /// Several runs begin like that.
    #[error("{n} runs begin with `{0}`: {ids}", n = .1.len(), ids = names::list(.1, ", ", LISTED))]
    Ambiguous(String, Vec<String>),
    /// The state directory cannot be read, or another user can write it and so could have changed
    /// its files.
    #[error("the state directory `{path}` cannot be used: {1}", path = .0.display())]
    State(PathBuf, io::Error),
    /// A file of the run cannot be read.
    #[error("the files of run `{0}` cannot be read: {1}")]
    Unreadable(String, String),
    /// An earlier version of this program wrote the run.
    #[error(
        "run `{run}` was written by an earlier version of hello, which this one can neither resume \
         nor revert{}",
        old_contents(contents)
    )]
    OldVersion {
        /// Its id.
        run: String,
        /// The targets whose old bytes are kept, and the files that hold them.
        contents: Vec<(PathBuf, PathBuf)>,
        /// The processes of this boot that it may have signalled, by pid and start time.
        instances: Vec<(i32, u64)>,
    },
}

impl RunError {
    /// Returns the verdict of a command that needs the run.
    #[must_use]
    pub(crate) fn verdict(&self) -> Verdict {
        match self {
            Self::NoneOpen(_) | Self::Unknown(..) => Verdict::NoMatch,
            Self::Running(..) => Verdict::Busy,
            Self::Ambiguous(..) => Verdict::Usage,
            Self::OldVersion { .. } => Verdict::Refused,
            Self::State(..) | Self::Unreadable(..) => Verdict::Failed,
        }
    }
}

/// Names the operator that the coordinator of a run over hosts claims.
fn of_claimed(claimed: Option<&ClaimedOperator>) -> String {
    claimed.map_or(String::new(), |claimed| {
        format!(", for the claimed operator {claimed}")
    })
}

/// Says where the old bytes of each target are.
fn old_contents(contents: &[(PathBuf, PathBuf)]) -> String {
    if contents.is_empty() {
        return "; it kept no old bytes".into();
    }
    let files = contents
        .iter()
        .map(|(target, file)| format!("`{}` in `{}`", target.display(), file.display()));
    let list = names::list(files, ", ", names::MOST);
    format!("; copy the old bytes back yourself: {list}")
}

/// A run as it was left.
#[derive(Debug, Clone)]
pub(crate) struct InterruptedRun {
    /// Its id.
    pub id: String,
    /// The command.
    pub verb: Verb,
    /// True if it installed the old config of the first run of the chain that it continues.
    pub back: bool,
    /// True if it is of this boot. Otherwise its pids and start times mean nothing.
    pub same_boot: bool,
    /// The groups, with every default filled in.
    pub groups: Vec<Group>,
    /// For each group outside the run that a group of the run comes after: the groups that it comes
    /// after itself.
    pub order: Order,
    /// Every target.
    pub targets: Vec<RunTarget>,
    /// Every instance, as it was surveyed.
    pub instances: Vec<RunInstance>,
    /// The answers on the old config of the first run of the chain, of each instance whose
    /// assertions compare with them.
    pub readings: BTreeMap<(i32, u64), Vec<Option<String>>>,
    /// The processes that may have been signalled, by this run or by one that it continues.
    pub touched: BTreeMap<(i32, u64), SignalRecord>,
    /// The last moment when each of those was to be signalled.
    pub signalled: BTreeMap<(i32, u64), Timestamp>,
    /// The run over hosts that it is a part of, or that a run is which it continues.
    pub part_of: Option<PartOf>,
    /// How it ended. A mixed run has an end and is open all the same.
    pub info: RunInfo,
}

impl InterruptedRun {
    /// Iterates over the processes that were signalled, and proven on the old config afterwards.
    pub(crate) fn reverted(&self) -> impl Iterator<Item = (i32, u64)> {
        let is_reverted = |record: &SignalRecord| record.outcome == Some(Outcome::Reverted);
        let touched = self.touched.iter().filter(|_| self.same_boot);
        touched
            .filter(move |(_, record)| is_reverted(record))
            .map(|(id, _)| *id)
    }
}

/// A target of a run.
#[derive(Debug, Clone)]
pub(crate) struct RunTarget {
    /// Its path.
    pub path: PathBuf,
    /// Its kind.
    pub kind: TargetKind,
    /// Digest before the run; none where no copy of the bytes was known.
    pub from: Option<String>,
    /// Digest of the candidate.
    pub to: String,
}

/// An instance of a run.
#[derive(Debug, Clone)]
pub(crate) struct RunInstance {
    /// Its group.
    pub group: String,
    /// Process number.
    pub pid: i32,
    /// Start time in clock ticks since boot.
    pub started: u64,
    /// The targets that it reads.
    pub targets: Vec<PathBuf>,
}

/// The signals that one process may have got.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SignalRecord {
    /// It was to be signalled for the new config.
    pub forward: bool,
    /// It was to be signalled for the old config.
    pub back: bool,
    /// The last outcome after that; none where none was recorded, so that it may have been
    /// signalled.
    pub outcome: Option<Outcome>,
}

impl SignalRecord {
    /// Returns true if no reload that it was signalled for is under way.
    #[must_use]
    pub(crate) fn is_over(&self) -> bool {
        self.outcome.is_some_and(Outcome::is_settled)
    }
}
