//! Processes that started after the survey.

use std::time::{Duration, Instant};

use crate::{
    fleet::Group,
    host::{
        discover::scan::Scan,
        proc::{kernel::pids, snapshot::ProcessSnapshot},
    },
};

/// A scan during a run, and which processes started after the survey. One serves every instance
/// that waits for a successor.
#[derive(Debug)]
pub(crate) struct NewProcesses {
    began: Instant,
    took: Duration,
    /// Empty if no process is new.
    pub(crate) scan: Scan,
    new: Vec<i32>,
}

impl NewProcesses {
    pub(crate) fn look(surveyed: &ProcessSnapshot) -> Self {
        let began = Instant::now();
        // If `/proc` cannot be listed, no process is new.
        let listed = pids().unwrap_or_default();
        let new: Vec<i32> = listed
            .iter()
            .copied()
            .filter(|pid| surveyed.is_new(*pid))
            .collect();
        let scan = if new.is_empty() {
            Scan::default()
        } else {
            Scan::of(&listed)
        };
        Self {
            began,
            took: began.elapsed(),
            scan,
            new,
        }
    }

    /// Tells whether it began at most `old` ago, or so recently that another scan would leave no
    /// time for anything else.
    pub(crate) fn serves(&self, old: Duration) -> bool {
        self.began.elapsed() < old + 4 * self.took
    }

    /// Tells whether a new process may be one of `group`, by its executable. A busy machine always
    /// has new processes, and hardly ever one of the group.
    pub(crate) fn may_have(&self, group: &Group) -> bool {
        self.new.iter().any(|pid| self.scan.may_be(group, *pid))
    }
}
