//! The end of a run, as its engine leaves it, and what the command line adds to it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::HostReport;
use crate::{
    event::{Abort, At, Event, Instance, Outcome, TargetReport, Verdict, failures},
    refusal::Hint,
};

/// How a run ended, before the command line adds the commands to type next.
#[derive(Debug)]
pub(crate) struct RunReport {
    /// The run's id; empty if it ended before one began.
    pub run: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Why, in one line.
    pub reason: String,
    /// Every target.
    pub targets: Vec<TargetReport>,
    /// Every instance.
    pub instances: Vec<Instance>,
    /// Every host; empty in a run over this machine alone.
    pub hosts: Vec<HostReport>,
    /// The waves of a dry run, in order.
    pub waves: Vec<WaveReport>,
    /// The gates, as their events.
    pub gates: Vec<Event>,
    /// Events that the operator should know of and that ended nothing: foreign locks, leftovers,
    /// late edits.
    pub notes: Vec<At<Event>>,
    /// True if this shows what a run would do.
    pub dry_run: bool,
    /// True if the config that it installed is an old one.
    pub back: bool,
    /// What a failure would lead to, in a dry run.
    pub after_failure: AfterFailure,
    /// The next step, where the verdict and the outcomes do not tell it.
    pub hint: Option<Hint>,
    /// What its instances are, where no run has begun.
    pub refusal: Option<Refusal>,
}

/// What the instances of a run are that has not begun: those that are the reason. How many others
/// there are is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Their failures are all of the reason.
    ByInstances,
    /// The reason says more than their failures.
    Other,
}

/// What follows a failure in a run that is shown and not carried out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum AfterFailure {
    /// Everything is rolled back.
    #[default]
    RollBack,
    /// The instances that failed are rolled back; the rest depends on the number of failures and on
    /// `on_failure` of their groups.
    RollBackFailed,
    /// Nothing is rolled back: the run has no rollback, or is one.
    Nothing,
}

/// A wave of a dry run, besides its instances, which carry its number.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct WaveReport {
    /// From 1.
    pub wave: usize,
    /// How many instances would be signalled.
    pub instances: usize,
    /// The wait before every proven instance is probed again.
    pub bake_seconds: f64,
    /// Commands that would have to exit 0 before the next wave.
    pub gates: Vec<Vec<String>>,
}

/// The command that shows how things stand, and touches nothing.
#[derive(Debug, Clone)]
pub(crate) enum Look {
    /// Shows what each instance runs now.
    Status(String),
    /// Shows what happened in a run, whose fleet may have another file today.
    History(String),
}

impl Look {
    /// Returns the command.
    pub(super) fn command(&self) -> String {
        match self {
            Self::Status(command) | Self::History(command) => command.clone(),
        }
    }

    /// Returns what the command shows.
    pub(super) fn what(&self) -> &'static str {
        match self {
            Self::Status(_) => "what each runs now",
            Self::History(_) => "what happened",
        }
    }
}

/// The parts of a summary that depend on the command line.
#[derive(Debug, Clone)]
pub(crate) struct CommandContext {
    /// The command that only reads.
    pub look: Look,
    /// The command that was run: `hello broadcast`.
    pub command: &'static str,
    /// The command that tells for each instance whether it can be reloaded. Without one, the hint
    /// names the first instance.
    pub doctor: Option<String>,
    /// The first digits of the run's id, as many as a command needs; empty if it has none.
    pub short_run: String,
    /// ` --state DIR`, to append to suggested commands; empty for the default directory.
    pub state_args: String,
    /// True for `--dry-run`, also where the run ended early.
    pub dry_run: bool,
}

impl RunReport {
    /// Returns a report without gates, waves and notes, of a run that has no id.
    #[must_use]
    pub(crate) fn new(
        verdict: Verdict,
        reason: String,
        targets: Vec<TargetReport>,
        instances: Vec<Instance>,
    ) -> Self {
        Self {
            run: String::new(),
            verdict,
            reason,
            targets,
            instances,
            hosts: Vec::new(),
            waves: Vec::new(),
            gates: Vec::new(),
            notes: Vec::new(),
            dry_run: false,
            back: false,
            after_failure: AfterFailure::default(),
            hint: None,
            refusal: None,
        }
    }

    /// Returns true if the bytes from before the run are known for each of its targets.
    pub(super) fn has_rollback_content(&self) -> bool {
        !self.run.is_empty()
            && !self.targets.is_empty()
            && self.targets.iter().all(|target| target.from.is_some())
    }

    /// Returns true if it converged on another config, and can be reverted.
    pub(super) fn can_be_undone(&self) -> bool {
        let is_change = |target: &TargetReport| target.from.as_ref() != Some(&target.to);
        self.verdict == Verdict::Converged
            && self.has_rollback_content()
            && self.targets.iter().any(is_change)
    }

    /// Counts the instances by outcome.
    #[must_use]
    pub(crate) fn counts(&self) -> BTreeMap<Outcome, usize> {
        let mut counts = BTreeMap::new();
        for instance in &self.instances {
            *counts.entry(instance.outcome).or_insert(0) += 1;
        }
        counts
    }
}

impl From<Abort> for RunReport {
    fn from(abort: Abort) -> Self {
        let hint = abort.hint.map(|hint| *hint);
        let is_by_instances = abort.by_instances || abort.reason == failures(&abort.instances);
        let refusal = if is_by_instances {
            Refusal::ByInstances
        } else {
            Refusal::Other
        };
        Self {
            hint,
            refusal: Some(refusal),
            ..Self::new(abort.verdict, abort.reason, Vec::new(), abort.instances)
        }
    }
}
