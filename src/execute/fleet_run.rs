//! A run, besides the plans of its hosts.

use crate::{engine::GroupPolicy, runs::Verb, session::RunContext};

/// A run over prepared hosts, besides their plans.
#[derive(Debug)]
pub(crate) struct FleetRun {
    /// The run's id.
    pub(crate) id: String,
    /// The command.
    pub(crate) verb: Verb,
    /// The config that it installs is an old one.
    pub(crate) back: bool,
    /// No bake, no gate, and no rollback.
    pub(crate) now: bool,
    /// Show the run, and drop what was staged.
    pub(crate) dry_run: bool,
    /// Instances that have gone since the earlier run, for the reason of a good end.
    pub(crate) unreplaced: Option<String>,
    /// The groups of the run.
    pub(crate) groups: Vec<GroupPolicy>,
    /// The hosts that work on one request at once.
    pub(crate) parallel: usize,
}

impl FleetRun {
    /// Returns the run of a fleet of one host.
    pub(crate) fn of_this_host(context: &RunContext) -> Self {
        Self {
            id: context.options.id.clone(),
            verb: context.verb,
            back: context.back,
            now: context.now,
            dry_run: context.options.dry_run,
            unreplaced: context.unreplaced.clone(),
            groups: context
                .groups
                .iter()
                .map(|group| GroupPolicy {
                    name: group.name.clone(),
                    rollout: group.rollout.clone(),
                })
                .collect(),
            parallel: 1,
        }
    }
}
