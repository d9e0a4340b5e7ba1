//! A run that continues an earlier one, as a command orders it.

use crate::{fleet::Fleet, runs::Verb, session::context::SessionOptions};

/// A run that continues an earlier one.
#[derive(Debug, Clone)]
pub(crate) struct RecoverOrder {
    /// [`Verb::Resume`] or [`Verb::Revert`].
    pub(crate) verb: Verb,
    /// The name of the run; without it, the newest open run.
    pub(crate) run: Option<String>,
    /// Today's fleet: its groups replace those of the same name in the journal.
    pub(crate) fleet: Option<Fleet>,
    /// The options of every run.
    pub(crate) options: SessionOptions,
}
