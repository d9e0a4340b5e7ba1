//! Processes that started after the survey.

use std::{
    io,
    sync::OnceLock,
    time::{Duration, Instant},
};

use crate::{
    fleet::Group,
    host::{discover::scan::Scan, proc::snapshot::ProcessSnapshot},
    kernel::pids,
};

/// The processes during a run, and which of them started after the survey. One serves every
/// instance that waits for a successor.
#[derive(Debug)]
pub(crate) struct NewProcesses {
    began: Instant,
    took: Duration,
    listed: Vec<i32>,
    new: Vec<i32>,
    new_scan: Scan,
    /// A scan of `listed`, and how long it took.
    scan: OnceLock<(Scan, Duration)>,
}

impl NewProcesses {
    /// Lists the processes of this moment.
    ///
    /// # Errors
    /// Fails if `/proc` cannot be listed: then any number of processes may be new.
    pub(crate) fn look(surveyed: &ProcessSnapshot) -> io::Result<Self> {
        let began = Instant::now();
        let listed = pids()?;
        let new: Vec<i32> = listed
            .iter()
            .copied()
            .filter(|pid| surveyed.is_new(*pid))
            .collect();
        let new_scan = Scan::of(&new);
        Ok(Self {
            began,
            took: began.elapsed(),
            listed,
            new,
            new_scan,
            scan: OnceLock::new(),
        })
    }

    /// Returns a scan of all processes. It is read once, and only for a group that may have a new
    /// process: the table of 10,000 processes takes about 250 ms of one core.
    pub(crate) fn scan(&self) -> &Scan {
        let read = || {
            let began = Instant::now();
            (Scan::of(&self.listed), began.elapsed())
        };
        &self.scan.get_or_init(read).0
    }

    /// Tells whether it began at most `old` ago, or so recently that another scan would leave no
    /// time for anything else.
    pub(crate) fn serves(&self, old: Duration) -> bool {
        let took = self.took + self.scan.get().map_or(Duration::ZERO, |(_, took)| *took);
        self.began.elapsed() < old + 4 * took
    }

    /// Tells whether a new process may be one of `group`, by what it shows of itself. A busy
    /// machine always has new processes, and hardly ever one of the group.
    pub(crate) fn may_have(&self, group: &Group) -> bool {
        self.new
            .iter()
            .any(|pid| self.new_scan.may_match(group, *pid))
    }
}
