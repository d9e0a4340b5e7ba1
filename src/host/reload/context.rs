//! The context of a proof: what the run has installed, and when.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::{
    event::Direction,
    host::{
        parallel::admission::Slot, proc::snapshot::ProcessSnapshot, reload::opened::Openings,
        target::install::Target,
    },
    step::{Content, PlannedInstance, TargetChange},
};

/// The context in which one instance is proven.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProofContext<'a> {
    pub(crate) changes: &'a [TargetChange],
    /// The processes at the moment from which on each target holds its content.
    pub(crate) since: &'a BTreeMap<PathBuf, ProcessSnapshot>,
    /// The processes at the survey. A process of these, such as an orphaned worker, is no
    /// successor.
    pub(crate) surveyed: &'a ProcessSnapshot,
    pub(crate) direction: Direction,
    /// The slot of the instance that is proven.
    pub(crate) slot: &'a Slot,
    /// The instances that may have been signalled, by pid and start time.
    pub(crate) mark_signalled: &'a RefCell<BTreeSet<(i32, u64)>>,
    /// The targets of the run, by path.
    pub(crate) targets: &'a BTreeMap<PathBuf, Target>,
    /// The watch on processes that open the targets.
    pub(crate) openings: &'a Openings,
}

impl ProofContext<'_> {
    /// Records that `member` is about to be signalled.
    pub(crate) fn begin_signal(&self, member: &PlannedInstance) {
        self.mark_signalled.borrow_mut().insert(member.id);
        self.openings.begin(member);
    }

    /// Tells whether the output of a command about `member` may hold a secret.
    pub(crate) fn hides_output(&self, member: &PlannedInstance) -> bool {
        member.group.secret == Some(true) || self.changes.iter().any(|change| change.secret)
    }

    pub(crate) fn new_content(&self) -> Option<&Content> {
        self.changes.first().map(|change| &change.to)
    }

    /// Returns the time from which on all targets hold their content.
    pub(crate) fn proof_since(&self) -> jiff::Timestamp {
        self.changes
            .iter()
            .filter_map(|change| self.since.get(&change.path))
            .map(|since| since.when)
            .max()
            .unwrap_or(jiff::Timestamp::MIN)
    }

    /// Tells whether a process started after every target was installed.
    pub(crate) fn came_later(&self, pid: i32, started: u64) -> bool {
        self.changes.iter().all(|change| {
            self.since
                .get(&change.path)
                .is_some_and(|since| since.is_before(pid, started))
        })
    }

    /// Returns the target that does not hold the bytes which this run has installed. A process that
    /// started meanwhile may have read the others.
    pub(crate) fn replaced(&self) -> Option<&Path> {
        let holds = |change: &TargetChange| {
            self.targets
                .get(&change.path)
                .is_some_and(|target| target.holds(&change.to))
        };
        self.changes
            .iter()
            .find(|change| !holds(change))
            .map(|change| change.path.as_path())
    }
}
