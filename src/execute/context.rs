//! The context of a run.

use std::path::Path;

use crate::{
    fleet::{Group, Order},
    runs::{Retention, Verb},
};

/// Everything about a run besides its plan.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RunContext<'a> {
    /// The run's id.
    pub id: &'a str,
    /// The command.
    pub verb: Verb,
    /// The earlier run that it continues or reverts.
    pub of: Option<&'a str>,
    /// Open runs that it takes the place of if it proves every instance.
    pub replaces: &'a [String],
    /// The state directory.
    pub state: &'a Path,
    /// The groups, with every default filled in.
    pub groups: &'a [Group],
    /// For each group of the fleet, the groups that it comes after.
    pub order: &'a Order,
    /// Every instance must have a validator, and it must pass.
    pub strict: bool,
    /// Prepare, show, and drop what was staged.
    pub dry_run: bool,
    /// No bake, no gate, and no rollback.
    pub now: bool,
    /// The config that it installs is an old one.
    pub back: bool,
    /// The operator's reason, for the journal.
    pub reason: Option<&'a str>,
    /// Instances that have gone since the earlier run, for the reason of a good end.
    pub unreplaced: Option<&'a str>,
    /// Which runs are kept.
    pub keep: Retention,
}
