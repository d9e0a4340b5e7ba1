//! Which processes there were at a moment.

use std::{io, sync::Arc};

use crate::host::proc::{
    guard,
    kernel::{Stat, pids},
};

/// When a target became what it is: whoever was not there yet has read it.
#[derive(Debug, Clone, Default)]
pub(crate) struct ProcessSnapshot {
    /// Sorted; none where the kernel did not tell, and then every process may have been there.
    pids: Option<Arc<[i32]>>,
    /// By the clock that start times are counted by, in its ticks.
    ticks: u64,
    pub(crate) when: jiff::Timestamp,
}

impl ProcessSnapshot {
    /// Of this moment.
    ///
    /// # Errors
    /// The system's: the kernel does not tell which processes there are.
    pub(crate) fn now() -> io::Result<Self> {
        Ok(Self {
            pids: Some(pids()?.into()),
            ..Self::unseen()
        })
    }

    /// Of this moment, at which no process was looked at.
    pub(crate) fn unseen() -> Self {
        Self {
            pids: None,
            ticks: guard::ticks(),
            when: jiff::Timestamp::now(),
        }
    }

    /// The processes that were there, sorted.
    pub(crate) fn pids(&self) -> &[i32] {
        self.pids.as_deref().unwrap_or_default()
    }

    /// Whether a process of this pid and start time came later.
    pub(crate) fn is_before(&self, pid: i32, started: u64) -> bool {
        !self.was_there(pid) || started > self.ticks
    }

    pub(crate) fn was_there(&self, pid: i32) -> bool {
        self.pids
            .as_ref()
            .is_none_or(|pids| pids.binary_search(&pid).is_ok())
    }

    /// Whether the process that has this number now came later.
    pub(crate) fn is_new(&self, pid: i32) -> bool {
        !self.was_there(pid) || Stat::of(pid).is_ok_and(|stat| stat.started > self.ticks)
    }
}
