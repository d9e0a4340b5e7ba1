//! This machine, with everything that a run holds on it.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use crate::{
    event::{Direction, Event},
    fleet::Group,
    host::{
        parallel::admission::Slot,
        probe::limits::ProbeLimits,
        proc::snapshot::ProcessSnapshot,
        reload::{
            context::ProofContext,
            opened::{self, Openings},
        },
        target::{
            behind::Follow,
            install::Target,
            lock::{Intent, Locked},
        },
    },
    runs::Staging,
    step::TargetChange,
};

/// The options of a survey.
#[derive(Debug, Clone, Copy)]
pub struct SurveyRequest<'a> {
    /// The longest wait for another run's lock. None if no lock is taken; else each target is
    /// locked before it is read.
    pub lock: Option<Duration>,
    /// The limit from a signal to its proof, instead of each group's own.
    pub timeout: Option<Duration>,
    /// The operation that the run locks directories for.
    pub intent: Intent,
    /// Targets to read, and to lock, even if no instance reads them.
    pub also: &'a [PathBuf],
    /// The groups whose new content is read from their `source`.
    pub sources: &'a BTreeSet<&'a str>,
}

/// This machine, with everything that a run holds on it.
#[derive(Debug)]
pub struct LocalHost {
    pub(in crate::host) run: String,
    /// What another run says of this one if it finds its locks held; empty for nothing.
    pub(in crate::host) note: String,
    pub(in crate::host) limits: Arc<ProbeLimits>,
    /// The most instances that are signalled and waited for at once: each needs descriptors.
    pub(in crate::host) parallel_reloads: usize,
    pub(in crate::host) dirs: BTreeMap<PathBuf, Arc<OwnedFd>>,
    /// True if the lock of each of `dirs` is held.
    pub(in crate::host) locked: bool,
    /// The locks of `dirs`.
    pub(in crate::host) locks: Vec<Locked>,
    pub(in crate::host) targets: BTreeMap<PathBuf, Target>,
    /// The record of staged files; each is written here before it is made.
    pub(in crate::host) staging: Arc<Staging>,
    /// Notes to the operator that do not end the run.
    pub(in crate::host) notes: Vec<Event>,
    pub(in crate::host) held_files: HeldFiles,
    pub(in crate::host) groups: Vec<Arc<Group>>,
    /// The processes at the beginning of the survey, and its time.
    pub(in crate::host) surveyed: ProcessSnapshot,
    /// The content that is read through each target.
    pub(in crate::host) follows: BTreeMap<PathBuf, Follow>,
    /// The processes and the time when each target got its present content.
    pub(in crate::host) since: BTreeMap<PathBuf, ProcessSnapshot>,
    /// The watch for processes that open the targets.
    pub(in crate::host) openings: Openings,
}

/// The number of old files that were exchanged away and stay open until the end of the run. Each
/// costs a descriptor.
#[derive(Debug, Default)]
pub(in crate::host) struct HeldFiles {
    /// The limit: a quarter of all descriptors. Signals and probes need the others.
    pub(in crate::host) limit: usize,
    pub(in crate::host) held: usize,
    /// Files that are not held, since the limit was reached.
    pub(in crate::host) not_held: usize,
}

/// Edits by other programs in files that this run has exchanged away.
#[derive(Debug, Default)]
pub struct LateEdits {
    /// The path, a description and, if it can be read, the edited content of each.
    pub late: Vec<(PathBuf, String, Option<Vec<u8>>)>,
    /// The number of files in which an edit would not be seen.
    pub not_held: usize,
}

impl LocalHost {
    /// Returns this machine, with nothing held, for the run named `run`.
    #[must_use]
    pub(in crate::host) fn new(run: &str) -> Self {
        let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile)
            .current
            .unwrap_or(1 << 20);
        // An instance needs one descriptor for its pidfd and one for the watch of that. The rest is
        // for connections, files and locks.
        let per_instance = descriptors.saturating_sub(256 + opened::descriptors()) / 2;
        let held_files = HeldFiles {
            limit: usize::try_from(descriptors / 4).unwrap_or(usize::MAX),
            ..HeldFiles::default()
        };
        Self {
            run: run.into(),
            note: String::new(),
            limits: Arc::default(),
            parallel_reloads: usize::try_from(per_instance).unwrap_or(usize::MAX).max(16),
            dirs: BTreeMap::new(),
            locked: false,
            locks: Vec::new(),
            targets: BTreeMap::new(),
            staging: Arc::default(),
            notes: Vec::new(),
            held_files,
            groups: Vec::new(),
            surveyed: ProcessSnapshot::default(),
            follows: BTreeMap::new(),
            since: BTreeMap::new(),
            openings: Openings::default(),
        }
    }

    /// Returns the revision of a target that is a key: that of the survey, or that of this run's
    /// write.
    pub(in crate::host) fn revision(&self, path: &Path) -> Option<String> {
        let rev = self.targets.get(path)?.revision()?;
        Some(rev.to_owned())
    }

    /// Returns what an instance must prove that reads the targets of `changes`. The instances that
    /// are about to be signalled are added to `mark_signalled`.
    pub(super) fn proof_context<'a>(
        &'a self,
        changes: &'a [TargetChange],
        direction: Direction,
        slot: &'a Slot,
        mark_signalled: &'a RefCell<BTreeSet<(i32, u64)>>,
    ) -> ProofContext<'a> {
        ProofContext {
            changes,
            since: &self.since,
            surveyed: &self.surveyed,
            direction,
            slot,
            mark_signalled,
            targets: &self.targets,
            openings: &self.openings,
        }
    }
}
