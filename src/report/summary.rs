//! The end of a run as data.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::{
    hint,
    hosts::{self, HostReport},
    run_report::{AfterFailure, CommandContext, Refusal, RunReport, WaveReport},
};
use crate::{
    event::{Abort, At, Event, HostState, Instance, Outcome, TargetReport, VERSION, Verdict},
    exact::absent,
    refusal::Hint,
};

/// The end of a run, as `-o json` prints it.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Summary {
    /// Version of this shape.
    #[schemars(extend("const" = VERSION))]
    v: u32,
    /// Id of the run; none where it ended before one began.
    #[serde(serialize_with = "absent::text")]
    #[schemars(with = "Option<String>")]
    pub(super) run: String,
    /// True for `--dry-run`.
    dry_run: bool,
    /// How the run ended.
    pub verdict: Verdict,
    /// The exit code of the verdict.
    pub(super) exit: u8,
    /// Why, in one line.
    pub(super) reason: String,
    /// The commands to type next; those that only read come first.
    pub(super) next: Vec<String>,
    /// Every target.
    pub(super) targets: Vec<TargetReport>,
    /// Every instance.
    pub(super) instances: Vec<Instance>,
    /// Number of instances by outcome.
    pub(super) counts: BTreeMap<Outcome, usize>,
    /// The waves of a dry run.
    #[serde(serialize_with = "absent::list")]
    #[schemars(with = "Option<Vec<WaveReport>>")]
    pub(super) waves: Vec<WaveReport>,
    /// The events of gates.
    #[serde(serialize_with = "absent::list")]
    #[schemars(with = "Option<Vec<At<Event>>>")]
    gates: Vec<At<Event>>,
    /// Events that the operator should know of and that ended nothing.
    #[serde(serialize_with = "absent::list")]
    #[schemars(with = "Option<Vec<At<Event>>>")]
    notes: Vec<At<Event>>,
    /// The hosts that are not `done`; absent in a run without a list of hosts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hosts: Option<Vec<HostReport>>,
    /// Number of hosts by state; absent in a run without a list of hosts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) host_counts: Option<BTreeMap<HostState, usize>>,
    /// See [`RunReport::dry_run`].
    #[serde(skip)]
    pub(super) is_preview: bool,
    /// See [`RunReport::after_failure`].
    #[serde(skip)]
    pub(super) after_failure: AfterFailure,
    /// See [`RunReport::refusal`].
    #[serde(skip)]
    pub(super) refusal: Option<Refusal>,
    #[serde(skip)]
    pub(super) hint: Option<Hint>,
    /// The command that was run: `hello broadcast`.
    #[serde(skip)]
    pub(super) command: &'static str,
    /// How to undo a run that converged.
    #[serde(skip)]
    pub(super) undo: Option<Hint>,
}

impl Summary {
    /// Returns the summary of a run for the command line that asked for it.
    #[must_use]
    pub(crate) fn new(report: RunReport, context: &CommandContext) -> Self {
        let next_step = hint::next_step(&report, context);
        let next = next_step.as_ref().map(|hint| hint.commands.clone());
        Self {
            undo: hint::undo(&report, context),
            hint: next_step,
            command: context.command,
            ..Self::without_hint(report, next.unwrap_or_default(), context.dry_run)
        }
    }

    /// Returns the summary of a command line that names no run.
    #[must_use]
    pub(crate) fn refused(abort: Abort, next: Vec<String>, dry_run: bool) -> Self {
        Self::without_hint(abort.into(), next, dry_run)
    }

    fn without_hint(report: RunReport, next: Vec<String>, dry_run: bool) -> Self {
        let counts = report.counts();
        let has_hosts = !report.hosts.is_empty();
        let host_counts = hosts::counts(report.hosts.iter().map(|host| host.state));
        let mut others = report.hosts;
        others.retain(|host| host.state != HostState::Done);
        Self {
            v: VERSION,
            dry_run,
            hosts: has_hosts.then_some(others),
            host_counts: has_hosts.then_some(host_counts),
            exit: report.verdict.exit(),
            next,
            counts,
            run: report.run,
            verdict: report.verdict,
            reason: report.reason,
            targets: report.targets,
            instances: report.instances,
            waves: report.waves,
            gates: report.gates.into_iter().map(At::local).collect(),
            notes: report.notes,
            is_preview: report.dry_run,
            after_failure: report.after_failure,
            refusal: report.refusal,
            hint: None,
            command: "hello",
            undo: None,
        }
    }
}
