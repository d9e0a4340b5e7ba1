//! A session as its visitors see it, and what ends it.

use std::cell::{Cell, RefCell};

use crate::event::{Event, SessionEnd};

/// Why a session ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EndedBy {
    /// The coordinator dismissed the host, or left it.
    Coordinator,
    /// Nothing was heard of the coordinator for the time of the lease.
    Lease,
    /// Another coordinator took it over, of this operator.
    TakeOver(String),
    /// The commit-confirmed timer.
    Timer,
    /// SIGTERM.
    Terminated,
}

impl EndedBy {
    /// Returns the event for the journal.
    pub(super) fn event(self) -> Event {
        let (by, operator) = match self {
            Self::Coordinator => (SessionEnd::Coordinator, None),
            Self::Lease => (SessionEnd::Lease, None),
            Self::TakeOver(operator) => (SessionEnd::TakeOver, Some(operator)),
            Self::Timer => (SessionEnd::Timer, None),
            Self::Terminated => (SessionEnd::Terminated, None),
        };
        Event::SessionEnded { by, operator }
    }
}

/// A session as its visitors see it, also while it carries out a request.
#[derive(Debug, Default)]
pub(super) struct Card {
    /// The id of the run.
    pub(super) id: String,
    /// The number of the last request that was carried out.
    pub(super) n: Cell<u64>,
    /// The fencing token.
    pub(super) epoch: Cell<u64>,
    /// The run that it continues.
    pub(super) of: RefCell<Option<String>>,
    /// Its groups, as the coordinator names them; all if it is empty.
    pub(super) groups: RefCell<Vec<String>>,
}
