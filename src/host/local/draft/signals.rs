//! The reaction of a process to each reload signal.

use super::fact::{About, Fact};
use crate::{
    fleet::Signal,
    host::proc::guard::{self, Disposition},
};

/// The reload signals that a group may name.
const SIGNALS: [Signal; 3] = [Signal::Hup, Signal::Usr1, Signal::Usr2];

/// The reaction to each reload signal; none where it cannot be read.
#[derive(Debug)]
pub(super) struct Signals([Option<Disposition>; 3]);

impl Signals {
    /// Reads the reactions of a process.
    pub(super) fn of(pid: i32) -> Self {
        Self(SIGNALS.map(|signal| guard::disposition(pid, signal).ok()))
    }

    /// Tells whether the process takes the signal.
    pub(super) fn takes(&self, signal: Signal) -> bool {
        self.of_signal(signal).is_some_and(is_taken)
    }

    /// Returns the signals that the process takes.
    pub(super) fn taken(&self) -> Vec<Signal> {
        let taken = SIGNALS.into_iter().filter(|signal| self.takes(*signal));
        taken.collect()
    }

    /// Returns what the process does with the signal, as a clause.
    pub(super) fn clause(&self, signal: Signal) -> &'static str {
        clause(self.of_signal(signal))
    }

    /// Returns a fact about each signal.
    pub(super) fn facts(&self) -> Vec<Fact> {
        let fact = |signal: Signal| {
            let clause = self.clause(signal);
            Fact::seen(About::Signals, format!("{}: {clause}", signal.name()))
        };
        SIGNALS.into_iter().map(fact).collect()
    }

    fn of_signal(&self, signal: Signal) -> Option<Disposition> {
        let index = SIGNALS.iter().position(|known| *known == signal)?;
        self.0.get(index).copied().flatten()
    }
}

fn is_taken(disposition: Disposition) -> bool {
    match disposition {
        Disposition::Caught
        | Disposition::Awaited
        | Disposition::InSigwait
        | Disposition::Blocked => true,
        Disposition::Ignored | Disposition::Default => false,
    }
}

fn clause(disposition: Option<Disposition>) -> &'static str {
    match disposition {
        Some(Disposition::Caught) => "a handler takes it",
        Some(Disposition::Awaited) => "a signalfd waits for it",
        Some(Disposition::InSigwait) => "a thread waits for it in sigwait",
        Some(Disposition::Blocked) => "a handler takes it once it is not blocked",
        Some(Disposition::Ignored) => "is ignored",
        Some(Disposition::Default) => "has no handler and would end it",
        None => "cannot be read",
    }
}
