//! This machine, with what a run holds of it.

use std::{collections::BTreeMap, os::fd::OwnedFd, path::PathBuf, sync::Arc, time::Duration};

use crate::{
    event::Event,
    fleet::Group,
    host::{
        probe::limits::ProbeLimits,
        proc::snapshot::ProcessSnapshot,
        reload::opened::{self, Openings},
        target::{
            behind::Follow,
            install::Target,
            lock::{Intent, Locked},
        },
    },
    runs::Staging,
};

/// How a survey looks.
#[derive(Debug, Clone, Copy)]
pub struct SurveyRequest<'a> {
    /// Whether the lock of each target is taken before it is read, and how long another run's is
    /// waited for.
    pub lock: Option<Duration>,
    /// Instead of each group's own limit from a signal to its proof.
    pub timeout: Option<Duration>,
    /// Whether something may be installed.
    pub intent: Intent,
    /// Targets that are looked at, and locked, whether anybody reads them or not.
    pub also: &'a [PathBuf],
}

/// This machine, with what a run holds of it.
#[derive(Debug)]
pub struct LocalHost {
    pub(in crate::host) run: String,
    pub(in crate::host) limits: Arc<ProbeLimits>,
    /// So many instances are signalled and waited for at once: as many as there are descriptors
    /// for.
    pub(in crate::host) parallel_reloads: usize,
    pub(in crate::host) dirs: BTreeMap<PathBuf, Arc<OwnedFd>>,
    /// Whether the lock of each of `dirs` is held.
    pub(in crate::host) locked: bool,
    /// The locks of `dirs`.
    pub(in crate::host) locks: Vec<Locked>,
    pub(in crate::host) targets: BTreeMap<PathBuf, Target>,
    /// What is staged is written down here first.
    pub(in crate::host) staging: Arc<Staging>,
    /// What the operator should know, and what ends nothing.
    pub(in crate::host) notes: Vec<Event>,
    pub(in crate::host) held: Held,
    pub(in crate::host) groups: Vec<Arc<Group>>,
    /// When the survey began, and who was there by then.
    pub(in crate::host) surveyed: ProcessSnapshot,
    /// What is read through each target.
    pub(in crate::host) follows: BTreeMap<PathBuf, Follow>,
    /// Since when each target is what it is.
    pub(in crate::host) since: BTreeMap<PathBuf, ProcessSnapshot>,
    /// Who opens the targets.
    pub(in crate::host) openings: Openings,
}

/// Files that were exchanged away and stay open until the end: each costs a descriptor.
#[derive(Debug, Default)]
pub(in crate::host) struct Held {
    /// As many as there are descriptors for, beside those for signals and questions.
    pub(in crate::host) most: usize,
    pub(in crate::host) now: usize,
    /// Files for which there was none.
    pub(in crate::host) not: usize,
}

/// What came out of the end of a run on this host.
#[derive(Debug, Default)]
pub struct LateEdits {
    /// Edits that arrived in what was exchanged away: where, what, and the bytes.
    pub late: Vec<(PathBuf, String, Option<Vec<u8>>)>,
    /// Files of which that is not known.
    pub not_held: usize,
}

impl LocalHost {
    /// Of the run named `run`.
    #[must_use]
    pub(in crate::host) fn new(run: &str) -> Self {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile)
            .current
            .unwrap_or(1 << 20);
        // One descriptor for the pidfd and one for its watch; the rest is for connections, files
        // and locks.
        let at_once = usize::try_from(limit.saturating_sub(256 + opened::descriptors()) / 2)
            .unwrap_or(usize::MAX)
            .max(16);
        let held = Held {
            most: usize::try_from(limit / 4).unwrap_or(usize::MAX),
            ..Held::default()
        };
        let (dirs, locked, locks, targets, staging, notes, groups, surveyed, since) =
            Default::default();
        let (follows, openings) = Default::default();
        Self {
            run: run.into(),
            follows,
            limits: Arc::default(),
            parallel_reloads: at_once,
            dirs,
            locked,
            locks,
            targets,
            staging,
            notes,
            held,
            groups,
            surveyed,
            since,
            openings,
        }
    }
}
