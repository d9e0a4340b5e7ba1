//! The end of a run as data.

use std::collections::BTreeMap;

use serde::Serialize;

use super::hint::Hint;
use crate::{
    event::{Abort, Event, Instance, Outcome, TargetReport, VERSION, Verdict},
    exact::absent,
};

/// How a run ended, before the command line adds the commands to type next.
#[derive(Debug)]
pub struct RunReport {
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
    /// The waves of a dry run, in order.
    pub waves: Vec<WaveReport>,
    /// The gates, as their events.
    pub gates: Vec<Event>,
    /// Events that the operator should know of and that ended nothing: foreign locks, leftovers,
    /// late edits.
    pub notes: Vec<Event>,
    /// True if this shows what a run would do.
    pub dry_run: bool,
    /// True if the config that it installed is an old one.
    pub back: bool,
}

/// A wave of a dry run, besides its instances, which carry its number.
#[derive(Debug, Serialize)]
pub struct WaveReport {
    /// From 1.
    pub wave: usize,
    /// How many instances would be signalled.
    pub instances: usize,
    /// The wait before every proven instance is probed again.
    pub bake_seconds: f64,
    /// Commands that would have to exit 0 before the next wave.
    pub gates: Vec<Vec<String>>,
}

/// The parts of a summary that depend on the command line.
#[derive(Debug, Clone)]
pub struct CommandContext {
    /// The command that shows what each instance runs now.
    pub status_command: String,
    /// The command that shows the arguments.
    pub help: String,
    /// The command that tells for each instance whether it can be reloaded. Without one, the hint
    /// names the first instance.
    pub doctor: Option<String>,
    /// ` --state DIR`, to append to suggested commands; empty for the default directory.
    pub state_args: String,
    /// True for `--dry-run`, also where the run ended early.
    pub dry_run: bool,
}

/// The end of a run, as `-o json` prints it.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Version of this shape.
    v: u32,
    #[serde(serialize_with = "absent::text")]
    pub(super) run: String,
    dry_run: bool,
    /// How the run ended.
    pub verdict: Verdict,
    pub(super) exit: u8,
    pub(super) reason: String,
    /// The commands to type next; those that only read come first.
    next: Vec<String>,
    pub(super) targets: Vec<TargetReport>,
    pub(super) instances: Vec<Instance>,
    /// Number of instances by outcome.
    pub(super) counts: BTreeMap<Outcome, usize>,
    #[serde(serialize_with = "absent::list")]
    pub(super) waves: Vec<WaveReport>,
    #[serde(serialize_with = "absent::list")]
    gates: Vec<Event>,
    #[serde(serialize_with = "absent::list")]
    notes: Vec<Event>,
    /// See [`RunReport::dry_run`].
    #[serde(skip)]
    pub(super) is_preview: bool,
    #[serde(skip)]
    pub(super) hint: Option<Hint>,
}

impl RunReport {
    /// Returns a report without gates, waves and notes, of a run that has no id.
    #[must_use]
    pub fn new(
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
            waves: Vec::new(),
            gates: Vec::new(),
            notes: Vec::new(),
            dry_run: false,
            back: false,
        }
    }

    /// Counts the instances by outcome.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Outcome, usize> {
        let mut counts = BTreeMap::new();
        for instance in &self.instances {
            *counts.entry(instance.outcome).or_insert(0) += 1;
        }
        counts
    }
}

impl From<Abort> for RunReport {
    fn from(abort: Abort) -> Self {
        Self::new(abort.verdict, abort.reason, Vec::new(), abort.instances)
    }
}

impl Summary {
    /// Returns the summary of a run for the command line that asked for it.
    #[must_use]
    pub fn new(report: RunReport, context: &CommandContext) -> Self {
        let hint = Hint::of(&report, context);
        let next = hint.as_ref().map(|hint| hint.commands.clone());
        Self {
            hint,
            ..Self::without_hint(report, next.unwrap_or_default(), context.dry_run)
        }
    }

    /// Returns the summary of a command line that names no run.
    #[must_use]
    pub fn refused(abort: Abort, next: Vec<String>, dry_run: bool) -> Self {
        Self::without_hint(abort.into(), next, dry_run)
    }

    fn without_hint(report: RunReport, next: Vec<String>, dry_run: bool) -> Self {
        Self {
            v: VERSION,
            dry_run,
            exit: report.verdict.exit(),
            next,
            counts: report.counts(),
            run: report.run,
            verdict: report.verdict,
            reason: report.reason,
            targets: report.targets,
            instances: report.instances,
            waves: report.waves,
            gates: report.gates,
            notes: report.notes,
            is_preview: report.dry_run,
            hint: None,
        }
    }
}
