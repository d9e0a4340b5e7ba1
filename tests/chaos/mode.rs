//! The behaviour of the programs of a round on SIGHUP.

/// The behaviour of a rogue on the signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Reads its config and serves it at once.
    Good,
    /// Reads at once and serves later. A signal in between waits.
    SlowEarly,
    /// Waits, then reads and serves.
    SlowLate,
    /// Reads at once and serves later. A signal in between is lost.
    SlowDrop,
    /// Answers with an empty body while it loads, and then keeps the old config.
    Blank,
    /// Reports the new config everywhere, and serves the first one.
    Liar,
    /// Serves the new and the old config in turns.
    Alternates,
    /// Ends.
    Dies,
    /// Ends if the config contains `bad`.
    Dislikes,
    /// Keeps the old config silently if the new one contains `odd`.
    Silent,
    /// Keeps the old config if the new one contains `odd`, and reports that in its status.
    Tells,
    /// A master with a worker; the old worker ends when the new one serves.
    Workers,
    /// A master with a worker; the old worker goes on accepting beside the new one.
    KeepsWorker,
    /// Serves by itself and keeps its config. Starts one more helper, which does not listen.
    Helper,
    /// Executes itself again, with the signal blocked until it has a handler.
    Reexec,
    /// Executes itself again, without a handler for a moment.
    ReexecOpen,
    /// Reloads only on every second signal.
    Second,
    /// Hands its socket to a new process, and ends.
    Successor,
}

impl Mode {
    pub(crate) const ALL: [Self; 18] = [
        Self::Good,
        Self::SlowEarly,
        Self::SlowLate,
        Self::SlowDrop,
        Self::Blank,
        Self::Liar,
        Self::Alternates,
        Self::Dies,
        Self::Dislikes,
        Self::Silent,
        Self::Tells,
        Self::Workers,
        Self::KeepsWorker,
        Self::Helper,
        Self::Reexec,
        Self::ReexecOpen,
        Self::Second,
        Self::Successor,
    ];

    pub(crate) fn name(self) -> String {
        format!("{self:?}")
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.name() == name)
    }

    /// Whether the command line sets the time of its reload.
    pub(crate) fn is_slow(self) -> bool {
        matches!(
            self,
            Self::SlowEarly | Self::SlowLate | Self::SlowDrop | Self::Blank
        )
    }

    /// Whether workers answer instead of the process that takes the signal.
    pub(crate) fn has_workers(self) -> bool {
        matches!(self, Self::Workers | Self::KeepsWorker)
    }
}
