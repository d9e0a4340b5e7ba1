//! The options of `hello resume` and `hello revert`.

use std::path::PathBuf;

use crate::{
    execute::RunOptions,
    fleet::{Fleet, Share},
    inventory::Expression,
    runs::Verb,
};

/// Checked options of the commands.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// [`Verb::Resume`] or [`Verb::Revert`].
    pub verb: Verb,
    /// The name of the run; without it, the newest open run.
    pub run: Option<String>,
    /// Today's fleet: its groups replace those of the same name in the journal.
    pub fleet: Option<Fleet>,
    /// The file that is read without `--fleet`, where there is such a file. It counts only for a
    /// run that this machine does not know: its hosts are asked.
    pub usual: Option<PathBuf>,
    /// The hosts of a run over other machines; all of its own if it is empty.
    pub on: Expression,
    /// Those of them that are not part of it.
    pub except: Expression,
    /// Replaces `max_unreachable` of the file.
    pub max_unreachable: Option<Share>,
    /// End the sessions of another coordinator first.
    pub take_over: bool,
    /// The options that every command with a run has.
    pub shared: RunOptions,
}
