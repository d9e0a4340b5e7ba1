//! The processes that existed at one moment.

use std::{io, sync::Arc};

use crate::{
    host::proc::guard,
    kernel::{Stat, is_gone, pids},
};

/// The moment at which a target got its content: a process that started later has read it.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProcessSnapshot {
    /// Sorted; none if they were not listed, and then every process may have existed.
    pids: Option<Arc<[i32]>>,
    /// The moment by the clock of start times, in its ticks.
    ticks: u64,
    pub(crate) when: jiff::Timestamp,
}

impl ProcessSnapshot {
    /// Lists the processes of this moment.
    ///
    /// # Errors
    /// Fails if `/proc` cannot be listed.
    pub(crate) fn now() -> io::Result<Self> {
        Ok(Self {
            pids: Some(pids()?.into()),
            ..Self::unseen()
        })
    }

    /// Notes this moment without a list of processes.
    pub(crate) fn unseen() -> Self {
        Self {
            pids: None,
            ticks: guard::ticks(),
            when: jiff::Timestamp::now(),
        }
    }

    /// The processes that existed, sorted.
    pub(crate) fn pids(&self) -> &[i32] {
        self.pids.as_deref().unwrap_or_default()
    }

    /// Tells whether a process of this pid and start time started later.
    pub(crate) fn is_before(&self, pid: i32, started: u64) -> bool {
        !self.was_there(pid) || started > self.ticks
    }

    /// Tells whether a process had this pid, as far as that is known.
    pub(crate) fn was_there(&self, pid: i32) -> bool {
        self.pids
            .as_ref()
            .is_none_or(|pids| pids.binary_search(&pid).is_ok())
    }

    /// Tells whether the process that has this pid now started later, or cannot be read.
    pub(crate) fn is_new(&self, pid: i32) -> bool {
        let started_later =
            || Stat::of(pid).map_or_else(|e| !is_gone(&e), |stat| stat.started > self.ticks);
        !self.was_there(pid) || started_later()
    }
}
