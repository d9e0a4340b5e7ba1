//! Processes that came after the survey.

use std::time::{Duration, Instant};

use crate::{
    fleet::Group,
    host::{discover::scan::Scan, proc::snapshot::ProcessSnapshot},
};

/// A look at everybody, and who of them came after the survey: one serves all who wait for a
/// successor.
#[derive(Debug)]
pub(crate) struct NewProcesses {
    began: Instant,
    took: Duration,
    pub(crate) scan: Scan,
    new: Vec<i32>,
}

impl NewProcesses {
    pub(crate) fn look(surveyed: &ProcessSnapshot) -> Self {
        // Where the kernel tells of no process, none is new.
        let (began, scan) = (Instant::now(), Scan::take().unwrap_or_default());
        let new = scan.pids().filter(|pid| surveyed.is_new(*pid)).collect();
        Self {
            began,
            took: began.elapsed(),
            scan,
            new,
        }
    }

    /// Whether it began at most `old` ago, or so lately that another one would leave no time for
    /// anything else.
    pub(crate) fn serves(&self, old: Duration) -> bool {
        self.began.elapsed() < old + 4 * self.took
    }

    /// On a busy machine somebody is always new, and hardly ever one who may be meant.
    pub(crate) fn may_have(&self, group: &Group) -> bool {
        self.new.iter().any(|pid| self.scan.may_be(group, *pid))
    }
}
