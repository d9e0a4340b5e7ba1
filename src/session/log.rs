//! The events of a run on its host, on their way to the coordinator and to the journal.

use std::io;

use crate::{
    event::{Event, Interrupts},
    runs::{Journal, ProvenInstance},
};

/// A record of a run that outlives the coordinator.
pub(crate) trait EventStore {
    /// Appends an event.
    ///
    /// # Errors
    /// Fails if the event could not be kept.
    fn record(&mut self, event: &Event) -> io::Result<()>;

    /// Keeps proofs for later runs, where that is possible.
    async fn keep_proofs(&self, proofs: Vec<ProvenInstance>, interrupts: &Interrupts);
}

impl EventStore for Journal {
    fn record(&mut self, event: &Event) -> io::Result<()> {
        Self::record(self, event)
    }

    async fn keep_proofs(&self, proofs: Vec<ProvenInstance>, interrupts: &Interrupts) {
        Self::keep_proofs(self, proofs, interrupts).await;
    }
}

/// Both readers of a run's events.
pub(super) struct EventLog<'a, J> {
    pub(super) journal: &'a mut J,
    pub(super) emit: &'a mut dyn FnMut(&Event),
    /// True once the journal has missed an event.
    pub(super) journal_failed: &'a mut bool,
    /// The seconds of the commit-confirmed timer; the intent has them, so that it is armed by the
    /// same line.
    pub(super) armed_s: Option<u64>,
}

impl<J: EventStore> EventLog<'_, J> {
    /// Emits an event and appends it to the journal. A phase is only shown while it lasts, and is
    /// not kept.
    pub(super) fn emit(&mut self, event: &Event) {
        (self.emit)(event);
        if !matches!(event, Event::Phase { .. }) {
            *self.journal_failed |= self.journal.record(event).is_err();
        }
    }
}
