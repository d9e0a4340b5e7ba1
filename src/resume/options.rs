//! The options of `hello resume` and `hello revert`.

use crate::{execute::RunOptions, fleet::Fleet, runs::Verb};

/// Checked options of the commands.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// [`Verb::Resume`] or [`Verb::Revert`].
    pub verb: Verb,
    /// The name of the run; without it, the newest open run.
    pub run: Option<String>,
    /// Today's fleet: its groups replace those of the same name in the journal.
    pub fleet: Option<Fleet>,
    /// The options that every command with a run has.
    pub shared: RunOptions,
}
