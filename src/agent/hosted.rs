//! The run that this agent hosts, and how long it waits for its coordinator.

use std::{rc::Rc, time::Duration};

use tokio::sync::watch;

use super::{
    card::{Card, EndedBy},
    lease::Lease,
    run::AgentRun,
    successor::Successor,
};
use crate::{event::Interrupts, kernel::since_boot};

/// The stamps in the journal in the time of a commit-confirmed timer.
const STAMPS: u32 = 4;

/// The lease, the timer and the end of a session.
#[derive(Debug)]
pub(super) struct Control {
    level: watch::Sender<u8>,
    pub(super) lease: Lease,
    /// The session, once its socket is open: it waits for its coordinator from then on.
    pub(super) card: Option<Rc<Card>>,
    /// The commit-confirmed timer, while it is armed.
    pub(super) armed: Option<Duration>,
    /// The last time that the journal got a stamp, as the silence of the lease counts.
    stamped: Duration,
    /// The connections that have attached so far.
    pub(super) attached: u64,
    /// Set as soon as the session is to end.
    pub(super) ended_by: Option<EndedBy>,
    /// Coordinators that wait for that end.
    pub(super) successors: Vec<Successor>,
}

impl Control {
    /// Passes an interrupt of the operator on.
    pub(super) fn interrupt(&self, level: u8) {
        self.level.send_replace(level);
    }

    /// Notes that the coordinator is there. Returns true if the journal is to have it: a timer that
    /// a new agent goes on with counts from there.
    pub(super) fn hear(&mut self) -> bool {
        self.lease.renew();
        let now = since_boot();
        let is_due = |timer: Duration| now.saturating_sub(self.stamped) >= timer / STAMPS;
        let is_due = self.armed.is_some_and(is_due);
        if is_due {
            self.stamped = now;
        }
        is_due
    }

    /// Notes that the session is to end, and why. The first reason holds.
    pub(super) fn end(&mut self, by: EndedBy) {
        self.ended_by.get_or_insert(by);
    }

    /// Returns the time that is left for the coordinator: of the commit-confirmed timer if it is
    /// armed, else of the lease. None without a session that waits, or once it is to end.
    pub(super) fn left(&self) -> Option<Duration> {
        let waits = self.waits() && self.ended_by.is_none();
        waits.then(|| match self.armed {
            Some(timer) => timer.saturating_sub(self.lease.silence()),
            None => self.lease.left(),
        })
    }

    /// Ends the session, since its coordinator was not heard in time.
    pub(super) fn end_late(&mut self) {
        self.end(match self.armed {
            Some(_) => EndedBy::Timer,
            None => EndedBy::Lease,
        });
    }

    /// Tells whether the session waits for its coordinator after its connection has ended.
    pub(super) fn waits(&self) -> bool {
        self.card.is_some()
    }
}

/// The run of a coordinator.
#[derive(Debug)]
pub(super) struct Hosted {
    pub(super) run: Option<AgentRun>,
    pub(super) interrupts: Interrupts,
    pub(super) control: Control,
}

impl Hosted {
    /// Tells whether the run has begun here and has an armed timer. Nothing but its `finish` ends
    /// that. A run that has not begun leaves the timer of the run that it continues as it was.
    pub(super) fn is_guarded(&self) -> bool {
        let has_begun = self.run.as_ref().is_some_and(AgentRun::has_begun);
        has_begun && self.control.armed.is_some()
    }

    pub(super) fn new(lease: Duration) -> Self {
        let (level, interrupts) = watch::channel(0);
        Self {
            run: None,
            interrupts,
            control: Control {
                level,
                lease: Lease::new(lease),
                card: None,
                armed: None,
                stamped: Duration::ZERO,
                attached: 0,
                ended_by: None,
                successors: Vec::new(),
            },
        }
    }
}
