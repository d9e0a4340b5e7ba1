//! A run that continues an earlier one, as a command orders it.

use crate::{fleet::Fleet, runs::Verb, session::context::SessionOptions};

/// The origin of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The operator of this machine.
    Operator,
    /// The commit-confirmed timer of the earlier run.
    Timer,
    /// The coordinator of a run over hosts.
    Coordinator {
        /// The earlier run has reached its goal here. It is looked at again, and must still be what
        /// the targets hold.
        is_over: bool,
    },
}

/// A run that continues an earlier one.
#[derive(Debug, Clone)]
pub(crate) struct RecoverOrder {
    /// [`Verb::Resume`] or [`Verb::Revert`].
    pub(crate) verb: Verb,
    /// The name of the run; without it, the newest open run.
    pub(crate) run: Option<String>,
    /// Today's fleet: its groups replace those of the same name in the journal.
    pub(crate) fleet: Option<Fleet>,
    /// The origin of the command.
    pub(crate) caller: Caller,
    /// The options of every run.
    pub(crate) options: SessionOptions,
}
