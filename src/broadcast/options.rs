//! The checked options of a broadcast.

use std::time::Duration;

use crate::{
    change::ChangeRequest,
    execute::RunOptions,
    fleet::{Count, Fleet, Share},
    inventory::Expression,
    runs::Verb,
};

/// The hosts of a broadcast over other machines, and its groups there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    /// The hosts that `--on` selects; all if it is empty.
    pub on: Expression,
    /// Those of them that are not part of it.
    pub except: Expression,
    /// Replaces `max_unreachable` of the file.
    pub max_unreachable: Option<Share>,
    /// End the sessions of another coordinator first.
    pub take_over: bool,
    /// The commit-confirmed timer that each host arms.
    pub confirm_within: Option<Duration>,
    /// The groups; the only one of each host if it is empty.
    pub groups: Vec<String>,
    /// Without a name, every group of a host.
    pub every: bool,
}

/// Checked options of the command.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The fleet, read and selected.
    pub fleet: Fleet,
    /// The change, not yet read.
    pub change: ChangeRequest,
    /// Install one `--config` over targets that differ now.
    pub overwrite: bool,
    /// Replaces each group's own count.
    pub count: Option<Count>,
    /// No bake, no gate, and no rollback.
    pub now: bool,
    /// [`Verb::Broadcast`], or [`Verb::Watch`] for a run that no operator has begun.
    pub verb: Verb,
    /// Open runs that this one takes the place of if it proves every instance.
    pub replaces: Vec<String>,
    /// The hosts, if the fleet has any.
    pub selection: Selection,
    /// The options that every command with a run has.
    pub shared: RunOptions,
}
