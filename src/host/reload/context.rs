//! What a process must prove that has not read the old config.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::{
    host::{
        parallel::admission::Slot, proc::snapshot::ProcessSnapshot, reload::opened::Openings,
        target::install::Target,
    },
    step::{Content, PlannedInstance, TargetChange},
};

/// What a new process must prove.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProofContext<'a> {
    pub(crate) changes: &'a [TargetChange],
    /// Since when each target is what it is.
    pub(crate) since: &'a BTreeMap<PathBuf, ProcessSnapshot>,
    /// Who was there by then, as an orphaned worker, takes nobody's place.
    pub(crate) surveyed: &'a ProcessSnapshot,
    pub(crate) undo: bool,
    /// Of the one that is waited for.
    pub(crate) slot: &'a Slot,
    /// The instances that were about to be signalled, by pid and start time.
    pub(crate) mark_signalled: &'a RefCell<BTreeSet<(i32, u64)>>,
    /// The targets of the run, by path.
    pub(crate) targets: &'a BTreeMap<PathBuf, Target>,
    /// Who opens them.
    pub(crate) openings: &'a Openings,
}

impl ProofContext<'_> {
    /// From now on, `member` may have been signalled.
    pub(crate) fn begin_signal(&self, member: &PlannedInstance) {
        self.mark_signalled.borrow_mut().insert(member.id);
        self.openings.begin(member);
    }

    pub(crate) fn new_content(&self) -> Option<&Content> {
        self.changes.first().map(|s| &s.to)
    }

    /// When the last of the targets became what it is.
    pub(crate) fn proof_since(&self) -> jiff::Timestamp {
        self.changes
            .iter()
            .filter_map(|s| self.since.get(&s.path))
            .map(|since| since.when)
            .max()
            .unwrap_or(jiff::Timestamp::MIN)
    }

    pub(crate) fn came_later(&self, pid: i32, started: u64) -> bool {
        self.changes.iter().all(|s| {
            self.since
                .get(&s.path)
                .is_some_and(|since| since.is_before(pid, started))
        })
    }

    /// The target that holds other bytes by now than this run has placed there. A process that
    /// started meanwhile may have read these.
    pub(crate) fn replaced(&self) -> Option<&Path> {
        let holds = |s: &TargetChange| {
            self.targets
                .get(&s.path)
                .is_some_and(|target| target.holds(&s.to))
        };
        self.changes
            .iter()
            .find(|s| !holds(s))
            .map(|s| s.path.as_path())
    }
}
