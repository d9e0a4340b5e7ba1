//! `hello broadcast`: the recipe of a run.

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{
    change::{ChangeRequest, Changes},
    event::{Abort, Event, Interrupts, Phase, Verdict},
    execute::{RunContext, Validate, emit_survey, execute, sweep},
    fleet::{Count, Fleet},
    host::{Host, Intent, SurveyRequest},
    plan::{Plan, PlanRequest},
    report::{CommandContext as Addressed, Output, Reporter, Summary},
    runs::{self, ProofCache, Retention, Staging, Verb},
    screen,
};

/// Checked options of the command.
#[derive(Debug, Clone)]
pub struct Options {
    /// The fleet, read and selected.
    pub fleet: Fleet,
    /// The change, not yet read.
    pub change: ChangeRequest,
    /// One `--config` is taken for targets that differ now.
    pub overwrite: bool,
    /// What validation must give.
    pub validate: Validate,
    /// Prepare, show, and drop what was staged.
    pub dry_run: bool,
    /// Instead of each group's own count.
    pub count: Option<Count>,
    /// Instead of each group's own timeout.
    pub timeout: Option<Duration>,
    /// How long another run's lock is waited for.
    pub lock_timeout: Duration,
    /// Whose endpoint is silent goes along, proven by the new config alone.
    pub include_unresponsive: bool,
    /// No bake, no gate, and nothing goes back by itself.
    pub now: bool,
    /// Why; kept in the journal.
    pub reason: Option<String>,
    /// Where runs are kept.
    pub state: PathBuf,
    /// What commands need besides, so that they look there.
    pub state_args: String,
    /// Which of them.
    pub keep: Retention,
    /// What stdout carries.
    pub output: Output,
    /// No progress lines.
    pub quiet: bool,
    /// Every instance a line.
    pub verbose: bool,
}

/// Runs the command to its verdict; every end is reported.
pub async fn run(mut options: Options, mut halts: Interrupts) -> Verdict {
    let mut reporter = Reporter::new(options.output, options.quiet, options.verbose);
    if options.validate == Validate::Off {
        options
            .fleet
            .groups
            .iter_mut()
            .for_each(|g| g.validate.clear());
    }
    let summary = attempt(&options, &mut halts, &mut |event| reporter.event(event))
        .await
        .unwrap_or_else(Summary::aborted);
    let (look, doctor) = match &options.fleet.path {
        Some(path) => {
            let path = screen::quote(path);
            (
                format!("hello status --fleet {path}{}", options.state_args),
                format!("hello doctor --fleet {path}"),
            )
        }
        None => {
            let groups: Vec<String> = options
                .fleet
                .groups
                .iter()
                .map(|g| screen::quote(&g.name))
                .collect();
            let groups = groups.join(" ");
            (
                format!("hello status {groups}{}", options.state_args),
                format!("hello doctor {groups}"),
            )
        }
    };
    let summary = summary.addressed(Addressed {
        status_command: look,
        help: "hello broadcast --help".into(),
        doctor: Some(doctor),
        state_args: options.state_args.clone(),
        dry_run: options.dry_run,
    });
    reporter.finish(&summary);
    summary.verdict
}

async fn attempt(
    options: &Options,
    halts: &mut Interrupts,
    on_event: &mut impl FnMut(&Event),
) -> Result<Summary, Abort> {
    let changes = Changes::read(&options.change)?;
    // One that only shows what it would do touches nothing.
    let left_beside = if options.dry_run {
        Vec::new()
    } else {
        sweep(&options.state)
    };
    left_beside.iter().for_each(&mut *on_event);
    let id = runs::new_id();
    let mut host = Host::local(&id);
    host.record_in(if options.dry_run {
        Staging::where_possible(&options.state, &id)
    } else {
        Staging::of(&options.state, &id)
    });
    left_beside.into_iter().for_each(|event| host.note(event));
    let groups: Vec<_> = options.fleet.groups.iter().cloned().map(Arc::new).collect();
    let adopts = changes.adopt()
        && options
            .fleet
            .groups
            .iter()
            .all(|group| group.source.is_none());
    let intent = if adopts {
        Intent::Adopt
    } else {
        Intent::Install
    };
    let look = SurveyRequest {
        lock: (!options.dry_run).then_some(options.lock_timeout),
        timeout: options.timeout,
        intent,
        also: &[],
    };
    on_event(&Event::Phase {
        phase: Phase::Surveying,
        done: 0,
        all: 0,
    });
    let seen = tokio::select! {
        seen = host.survey(&groups, look) => seen,
        Ok(_) = halts.wait_for(|n| *n > 0) => return Err(Abort::interrupted()),
    };
    emit_survey(
        &seen,
        &options.fleet.groups,
        options.fleet.path.as_deref(),
        on_event,
    );
    let proven = ProofCache::load(&options.state).with_open_runs(&options.state);
    let wish = PlanRequest {
        fleet: &options.fleet,
        changes: &changes,
        count: options.count,
        overwrite: options.overwrite,
        include_sick: options.include_unresponsive,
        proven: &proven,
    };
    let plan = Plan::new(seen, &wish, |sha256| runs::stored(&options.state, sha256))?;
    let unheld = if options.now || options.include_unresponsive {
        Vec::new()
    } else {
        plan.unheld()
    };
    for event in unheld {
        on_event(&event);
        host.note(event);
    }
    let terms = RunContext {
        id: &id,
        verb: Verb::Broadcast,
        of: None,
        state: &options.state,
        groups: &options.fleet.groups,
        order: &options.fleet.order,
        strict: options.validate == Validate::Strict,
        dry_run: options.dry_run,
        now: options.now,
        back: false,
        reason: options.reason.as_deref(),
        keep: options.keep,
    };
    execute(terms, plan, host, halts, on_event).await
}
