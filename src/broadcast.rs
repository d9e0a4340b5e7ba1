//! `hello broadcast`: from its options to its verdict.

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{
    change::{ChangeRequest, Changes},
    event::{Abort, Event, Interrupts, Verdict},
    execute::{RunContext, Validate, emit_survey, execute, open_host, survey},
    fleet::{Count, Fleet},
    host::{Intent, SurveyRequest},
    plan::{Plan, PlanRequest},
    report::{CommandContext, Output, Reporter, RunReport, Summary},
    runs::{self, ProofCache, Retention, Verb},
    screen,
};

/// Checked options of the command.
#[derive(Debug, Clone)]
pub struct Options {
    /// The fleet, read and selected.
    pub fleet: Fleet,
    /// The change, not yet read.
    pub change: ChangeRequest,
    /// Install one `--config` over targets that differ now.
    pub overwrite: bool,
    /// Whether a validator must pass.
    pub validate: Validate,
    /// Prepare, show, and drop what was staged.
    pub dry_run: bool,
    /// Replaces each group's own count.
    pub count: Option<Count>,
    /// Replaces each group's own timeout.
    pub timeout: Option<Duration>,
    /// Longest wait for the lock of another run.
    pub lock_timeout: Duration,
    /// Include unresponsive instances; only the new config proves them.
    pub include_unresponsive: bool,
    /// No bake, no gate, and no rollback.
    pub now: bool,
    /// The operator's reason, for the journal.
    pub reason: Option<String>,
    /// The state directory.
    pub state: PathBuf,
    /// ` --state DIR`, to append to suggested commands; empty for the default directory.
    pub state_args: String,
    /// Which runs are kept.
    pub keep: Retention,
    /// What stdout carries.
    pub output: Output,
    /// Show no progress lines.
    pub quiet: bool,
    /// Show a line for every instance.
    pub verbose: bool,
}

/// Runs the command to its verdict, and reports every end.
pub async fn run(mut options: Options, mut interrupts: Interrupts) -> Verdict {
    let mut reporter = Reporter::new(options.output, options.quiet, options.verbose);
    if options.validate == Validate::Off {
        options
            .fleet
            .groups
            .iter_mut()
            .for_each(|g| g.validate.clear());
    }
    let report = attempt(&options, &mut interrupts, &mut |event| {
        reporter.event(event);
    })
    .await
    .unwrap_or_else(RunReport::from);
    let summary = Summary::new(report, &command_context(&options));
    reporter.finish(&summary);
    summary.verdict
}

fn command_context(options: &Options) -> CommandContext {
    let fleet = &options.fleet;
    let selection = match &fleet.path {
        Some(path) => format!("--fleet {}", screen::quote(path)),
        None => {
            let groups = fleet.groups.iter().map(|g| screen::quote(&g.name));
            groups.collect::<Vec<_>>().join(" ")
        }
    };
    CommandContext {
        status_command: format!("hello status {selection}{}", options.state_args),
        help: "hello broadcast --help".into(),
        doctor: Some(format!("hello doctor {selection}")),
        state_args: options.state_args.clone(),
        dry_run: options.dry_run,
    }
}

async fn attempt(
    options: &Options,
    interrupts: &mut Interrupts,
    on_event: &mut impl FnMut(&Event),
) -> Result<RunReport, Abort> {
    let changes = Changes::read(&options.change)?;
    let fleet = &options.fleet;
    let id = runs::new_id();
    let mut host = open_host(&options.state, &id, options.dry_run, on_event);
    let groups: Vec<_> = fleet.groups.iter().cloned().map(Arc::new).collect();
    let adopts = changes.adopt() && fleet.groups.iter().all(|group| group.source.is_none());
    let request = SurveyRequest {
        lock: (!options.dry_run).then_some(options.lock_timeout),
        timeout: options.timeout,
        intent: if adopts {
            Intent::Adopt
        } else {
            Intent::Install
        },
        also: &[],
    };
    let found = survey(&mut host, &groups, request, interrupts, on_event).await?;
    emit_survey(&found, &fleet.groups, fleet.path.as_deref(), on_event);
    let proven = ProofCache::load(&options.state).with_open_runs(&options.state);
    let request = PlanRequest {
        fleet,
        changes: &changes,
        count: options.count,
        overwrite: options.overwrite,
        include_unresponsive: options.include_unresponsive,
        proven: &proven,
    };
    let plan = Plan::new(found, &request, |sha256| {
        runs::stored(&options.state, sha256)
    })?;
    if !options.now && !options.include_unresponsive {
        for event in plan.unheld() {
            on_event(&event);
            host.note(event);
        }
    }
    let context = RunContext {
        id: &id,
        verb: Verb::Broadcast,
        of: None,
        state: &options.state,
        groups: &fleet.groups,
        order: &fleet.order,
        strict: options.validate == Validate::Strict,
        dry_run: options.dry_run,
        now: options.now,
        back: false,
        reason: options.reason.as_deref(),
        unreplaced: None,
        keep: options.keep,
    };
    execute(context, plan, host, interrupts, on_event).await
}
