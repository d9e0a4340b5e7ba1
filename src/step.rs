//! What is done to one target and the instances that read it. An undo is a flipped step, not second
//! code.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::fs::FileType;

use crate::{
    assertion::{Assertion, Expectation},
    config::{self, MAX_TARGET, ReadError},
    event::{
        Abort, Event, Failure, FailureKind, Instance, Outcome, Proof, TargetKind, TargetReport,
        Verdict,
    },
    fleet::Group,
    identity::Identity,
    tree::Tree,
    trust,
};

/// The content of a file or a directory, and its digest; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// A file's bytes, or a directory as one archive.
    pub bytes: Arc<[u8]>,
    /// Lower-case hex SHA-256 of `bytes`.
    pub sha256: String,
    /// What a directory has in it; none for a file.
    pub tree: Option<Arc<Tree>>,
}

impl Content {
    /// A file.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            sha256: config::digest(&bytes),
            bytes: bytes.into(),
            tree: None,
        }
    }

    /// A directory.
    ///
    /// # Errors
    /// None that memory can give.
    pub fn from_tree(tree: Tree) -> io::Result<Self> {
        let bytes = tree.archive()?;
        Ok(Self {
            tree: Some(Arc::new(tree)),
            ..Self::new(bytes)
        })
    }

    /// What an earlier run kept of a file, or of a directory as its archive; none where it is no
    /// such archive.
    #[must_use]
    pub fn from_stored(bytes: Vec<u8>, form: TargetKind) -> Option<Self> {
        match form {
            TargetKind::File => Some(Self::new(bytes)),
            TargetKind::Directory => Tree::unpack(&bytes).and_then(Self::from_tree).ok(),
        }
    }

    /// Reads the file or directory at `path`, within the limits of a target.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let fd = trust::open_named(path)?;
        // Anything but a directory, whatever else it may be, is looked at as a file.
        if FileType::from_raw_mode(rustix::fs::fstat(&fd).map_err(io::Error::from)?.st_mode)
            != FileType::Directory
        {
            return config::read_fd(fd, MAX_TARGET).map(Self::new);
        }
        Ok(Self::from_tree(Tree::read(&fd, &mut |_, _| Ok(()))?)?)
    }

    /// The bytes of a file; none of a directory.
    #[must_use]
    pub fn file(&self) -> Option<&[u8]> {
        self.tree.is_none().then_some(&*self.bytes)
    }

    /// Whether it is a file or a directory.
    #[must_use]
    pub fn kind(&self) -> TargetKind {
        if self.tree.is_some() {
            TargetKind::Directory
        } else {
            TargetKind::File
        }
    }
}

/// What an earlier run read of an instance's facts, of whose changes the group says that they prove
/// a config.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum PriorReadings {
    /// Nobody has kept any.
    #[default]
    None,
    /// While it ran what this run replaces.
    Before(Vec<Option<String>>),
    /// While it ran what this run brings back.
    After(Vec<Option<String>>),
}

/// Whether an instance is known to have run, at the survey, what stood on the disk then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RanBefore {
    /// It cannot tell, and nothing else tells it.
    #[default]
    Unknown,
    /// A run proved it, or it reads that only at its start, and no program has touched it since.
    Disk,
}

/// An instance and what the survey learnt of it.
#[derive(Debug, Clone)]
pub struct PlannedInstance {
    /// Pid and start time at the survey, whoever has taken its place since.
    pub id: (i32, u64),
    /// What is reported of it.
    pub instance: Instance,
    /// How it is signalled and proven.
    pub group: Arc<Group>,
    /// Its arguments without its own name; a command line that was rewritten into one string by its
    /// words.
    pub args: Arc<[String]>,
    /// The process that the survey saw: commands about it are run only as long as it is that one.
    pub identity: Identity,
    /// Its working directory at the survey.
    pub cwd: PathBuf,
    /// Inodes of the listening sockets that it held just before its signal: who holds one later has
    /// inherited it.
    pub sockets: Vec<u64>,
    /// Children that it had after the signal and not before.
    pub new_children: Vec<(i32, u64)>,
    /// Descendants that it had right before its first signal of the run: they run the old config.
    pub workers_before: Vec<(i32, u64)>,
    /// Descendants that do not run the config which is wanted; none of them may go on accepting.
    pub old_workers: Vec<(i32, u64)>,
    /// What the signal does not make it read: a change of one of these needs a restart.
    pub restart_only_paths: Vec<PathBuf>,
    /// When it started, in nanoseconds since 1970, at most as early as it may have been.
    pub started_ns: i128,
    /// From its signal to its proof.
    pub timeout: Duration,
    /// Its attempt number at the survey, where it tells one.
    pub attempt_seq: u64,
    /// Its endpoint was silent at the survey: what it did before its signal is not known.
    pub unresponsive: bool,
    /// Keys that it cannot change without a restart, with their values in force.
    pub restart_only: Arc<BTreeMap<String, String>>,
    /// Readings of the group's `confirm` facts from before the signal, in the same order.
    pub baseline: Vec<Option<String>>,
    /// The same of its `reject` facts.
    pub rejected: Vec<Option<String>>,
    /// An earlier run may have signalled it, and what it loads for that may be the other config:
    /// what it says now may change by itself.
    pub signal_may_be_pending: bool,
    /// It may run what this run brings, or be about to, since an earlier run or its start: when
    /// everything goes back, so does it.
    pub may_run_new: bool,
    /// It ran the config that this run brings back, and was not signalled for another since.
    pub runs_it: bool,
    /// What it ran before the run, of one that cannot tell.
    pub ran_before: RanBefore,
    /// Readings of its `confirm` facts from before an earlier run.
    pub prior_readings: PriorReadings,
    /// When it was signalled last; of one that has taken another's place, since when its config is
    /// what it proved.
    pub signalled: Option<jiff::Timestamp>,
    /// When it was last seen on the config that its state speaks of; none while nobody has looked.
    pub proven_at: Option<Instant>,
    /// The assertions that it has shown on its way back.
    pub shown_back: Vec<Assertion>,
    /// Whether it listened anywhere right before its signal; known only where nothing else may be
    /// seen of it.
    pub listened: bool,
    /// When the readings of `baseline` were taken at the survey.
    pub baseline_read_at: Option<Instant>,
    /// Targets that its program reads by default: neither it nor the fleet names them.
    pub assumed: Vec<PathBuf>,
}

impl PlannedInstance {
    /// One of which nothing was asked yet.
    #[must_use]
    pub fn new(instance: Instance, group: Arc<Group>, args: Vec<String>) -> Self {
        let timeout = group.timeout;
        let (restart_only, baseline, rejected, sockets, heirs, crew, outdated) = Default::default();
        let id = (instance.pid, instance.started);
        Self {
            id,
            instance,
            group,
            args: args.into(),
            identity: Identity::default(),
            cwd: PathBuf::new(),
            sockets,
            new_children: heirs,
            workers_before: crew,
            old_workers: outdated,
            restart_only_paths: Vec::new(),
            started_ns: i128::MIN,
            timeout,
            attempt_seq: 0,
            unresponsive: false,
            restart_only,
            baseline,
            rejected,
            signal_may_be_pending: false,
            may_run_new: false,
            runs_it: false,
            ran_before: RanBefore::Unknown,
            prior_readings: PriorReadings::None,
            signalled: None,
            proven_at: None,
            shown_back: Vec::new(),
            listened: false,
            baseline_read_at: None,
            assumed: Vec::new(),
        }
    }

    /// Its endpoint says nothing before the run, for this reason.
    pub fn mark_unresponsive(&mut self, why: String) {
        (self.unresponsive, self.instance.failure) = (
            true,
            Some(Failure {
                kind: FailureKind::Unresponsive,
                text: why,
            }),
        );
    }

    /// Whether it was signalled, or perhaps was.
    #[must_use]
    pub fn is_touched(&self) -> bool {
        !matches!(
            self.instance.outcome,
            Outcome::Untouched | Outcome::Unchanged | Outcome::Refused
        )
    }

    /// Whether its state is one that a run may go on from.
    #[must_use]
    pub fn is_good(&self) -> bool {
        matches!(
            self.instance.outcome,
            Outcome::Confirmed | Outcome::Unconfirmed | Outcome::Unchanged | Outcome::Reverted
        )
    }

    /// Whether its claim does not hold, though neither this run nor an earlier one has signalled
    /// it.
    #[must_use]
    pub fn failed_unsignalled(&self) -> bool {
        self.instance.outcome == Outcome::TimedOut
            && self.signalled.is_none()
            && !self.signal_may_be_pending
            && !self.may_run_new
    }

    /// Whether nothing but its answers from before the run says that it is on the old config again,
    /// and what it ran then is not known: it shows what it showed, and that is all.
    #[must_use]
    pub fn is_back_by_answers_alone(&self) -> bool {
        let compares = |fact: &Assertion| fact.expectation == Expectation::Changed;
        self.ran_before == RanBefore::Unknown
            && self.instance.proof == Some(Proof::Content)
            && self.group.confirm.iter().all(compares)
    }

    /// Ends it in `trouble`; the first trouble is the one that stays.
    pub fn fail(&mut self, state: Outcome, trouble: Failure) {
        self.instance.outcome = state;
        match &mut self.instance.failure {
            // That it was silent before the run is not yet what came of its signal.
            Some(first) if first.kind == FailureKind::Unresponsive => {
                *first = Failure {
                    text: format!("{} (silent before the run: {})", trouble.text, first.text),
                    ..trouble
                };
            }
            Some(_) => {}
            none => *none = Some(trouble),
        }
    }
}

/// What the survey of one host found; touches nothing, judges nothing.
#[derive(Debug, Default)]
pub struct Survey {
    /// Found, asked, and let through by every guard.
    pub instances: Vec<PlannedInstance>,
    /// Let through by every guard, and silent where they are asked; each with its trouble.
    pub unresponsive: Vec<PlannedInstance>,
    /// Found and refused, each with its trouble.
    pub refused: Vec<Instance>,
    /// Matches that are not in the run: pid and why.
    pub skipped: Vec<(i32, String)>,
    /// Listed processes that are gone or something else: pid and why.
    pub missing: Vec<(i32, String)>,
    /// What the operator should know of it, and what ends nothing.
    pub notes: Vec<Event>,
    /// The first end that a lock or a directory gave: another run's lock, a directory that cannot
    /// be opened.
    pub abort: Option<Abort>,
    /// What stands on disk, by path.
    pub targets: BTreeMap<PathBuf, SurveyedTarget>,
}

/// A target at the survey.
#[derive(Debug, Clone)]
pub struct SurveyedTarget {
    /// What it is.
    pub content: Content,
    /// Its last change of any kind, in nanoseconds since 1970; of a directory, that of its newest
    /// entry.
    pub ctime: i128,
    /// The digest of everything that is read through it and is none of it; none where that is not
    /// known.
    pub behind: Option<String>,
    /// Whether what it is must not be shown.
    pub secret: bool,
    /// What somebody else put there to become it, by the group that says where.
    pub staged: BTreeMap<String, StagedSource>,
}

/// What stands where a group's `source` looks.
#[derive(Debug, Clone)]
pub struct StagedSource {
    /// Where.
    pub path: PathBuf,
    /// What, or why it is not taken; none when nothing is there.
    pub content: Option<Result<Content, (Verdict, String)>>,
}

/// What a target becomes. To install is to make it `to`: it is `from`: exchange; it is `to`
/// already: nothing; anything else: hands off.
#[derive(Debug, Clone)]
pub struct TargetChange {
    /// Resolved path.
    pub path: PathBuf,
    /// What it is, and the way back; none where nobody has the bytes that are served now.
    pub from: Option<Content>,
    /// What it becomes.
    pub to: Content,
    /// Whether its content must not be shown.
    pub secret: bool,
}

/// The instances of one wave that read the same targets; without a target they are only signalled
/// and confirmed.
#[derive(Debug, Clone)]
pub struct Step {
    /// What is replaced, all of it before anybody is signalled.
    pub changes: Vec<TargetChange>,
    /// Who reads it.
    pub instances: Vec<PlannedInstance>,
    /// Whether this is the way back.
    pub undo: bool,
}

impl Step {
    /// Whether anybody gets a signal.
    #[must_use]
    pub fn is_work(&self) -> bool {
        self.instances
            .iter()
            .any(|m| m.instance.outcome != Outcome::Unchanged)
    }

    /// Each shift the other way round; none where the old bytes of one are not there.
    #[must_use]
    pub fn changes_back(&self) -> Option<Vec<TargetChange>> {
        let back = |s: &TargetChange| {
            Some(TargetChange {
                path: s.path.clone(),
                from: Some(s.to.clone()),
                to: s.from.clone()?,
                secret: s.secret,
            })
        };
        self.changes.iter().map(back).collect()
    }

    /// The way back: `from` and `to` change places, and who was touched is signalled again; so is
    /// who ran `to` already. None where there is no way back.
    #[must_use]
    pub fn flip(&self) -> Option<Self> {
        let shifts = self.changes_back()?;
        let moves = self.changes.iter().any(|s| {
            s.from
                .as_ref()
                .is_some_and(|from| from.sha256 != s.to.sha256)
        });
        let back = |m: &PlannedInstance| match m.instance.outcome {
            // It needed no signal for what goes away now.
            Outcome::Unchanged if moves => Some(PlannedInstance {
                instance: Instance {
                    outcome: Outcome::Confirmed,
                    ..m.instance.clone()
                },
                ..m.clone()
            }),
            // Who was put back alone is there already.
            Outcome::Reverted => None,
            _ => (m.is_touched() || m.may_run_new).then(|| m.clone()),
        };
        Some(Self {
            changes: shifts,
            instances: self.instances.iter().filter_map(back).collect(),
            undo: !self.undo,
        })
    }
}

impl TargetChange {
    /// Where the target is now; `disk` is its digest.
    #[must_use]
    pub fn report(&self, disk: Option<String>) -> TargetReport {
        let from = self.from.as_ref().map(|b| b.sha256.clone());
        TargetReport {
            host: "local",
            path: self.path.clone(),
            kind: self.to.kind(),
            from,
            to: self.to.sha256.clone(),
            disk,
            entries: Vec::new(),
            diff: None,
        }
    }
}

/// The first 12 digits, enough for people.
#[must_use]
pub fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}
