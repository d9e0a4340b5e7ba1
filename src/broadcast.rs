//! `hello broadcast`: from its options to its verdict.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use crate::{
    change::{ChangeRequest, Changes},
    event::{Abort, Event, Interrupts, Verdict},
    execute::{RunContext, RunOptions, Validate, emit_survey, execute, open_host, survey},
    fleet::{Count, Fleet},
    host::{Intent, SurveyRequest},
    names,
    plan::{Plan, PlanRequest},
    report::{CommandContext, Look, RunReport, Summary},
    runs::{self, ProofCache, ShortIds, Verb},
    screen,
};

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
    /// The options that every command with a run has.
    pub shared: RunOptions,
}

/// Runs the command to its verdict, and reports every end.
pub(crate) async fn run(mut options: Options, mut interrupts: Interrupts) -> Verdict {
    let mut reporter = options.shared.reporter();
    if options.shared.validate == Validate::Off {
        options
            .fleet
            .groups
            .iter_mut()
            .for_each(|g| g.validate.clear());
    }
    let report = carry_out(&options, &mut interrupts, &mut |event| {
        reporter.event(event);
    })
    .await;
    let summary = summarize(&options, report);
    reporter.finish(&summary);
    summary.verdict
}

/// Carries out the command, and returns its end. A run that did not begin has an end too.
pub(crate) async fn carry_out(
    options: &Options,
    interrupts: &mut Interrupts,
    on_event: &mut impl FnMut(&Event),
) -> RunReport {
    let report = attempt(options, interrupts, on_event).await;
    report.unwrap_or_else(RunReport::from)
}

/// Adds the commands to type next.
#[must_use]
pub(crate) fn summarize(options: &Options, report: RunReport) -> Summary {
    let context = command_context(options, &report.run);
    Summary::new(report, &context)
}

/// Returns the arguments that select the groups of the run.
fn selection(fleet: &Fleet) -> String {
    match &fleet.path {
        Some(path) => format!("--fleet {}", screen::quote(path)),
        None => {
            let groups = fleet.groups.iter().map(|g| screen::quote(&g.name));
            groups.collect::<Vec<_>>().join(" ")
        }
    }
}

fn doctor_command(options: &Options) -> String {
    format!("hello doctor {}", selection(&options.fleet))
}

fn command_context(options: &Options, run: &str) -> CommandContext {
    let selection = selection(&options.fleet);
    CommandContext {
        look: Look::Status(format!(
            "hello status {selection}{}",
            options.shared.state_args
        )),
        command: match options.verb {
            Verb::Watch => "hello watch",
            _ => "hello broadcast",
        },
        doctor: Some(doctor_command(options)),
        short_run: ShortIds::of(&options.shared.state).lasting(run).to_owned(),
        state_args: options.shared.state_args.clone(),
        dry_run: options.shared.dry_run,
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
    let mut host = open_host(&options.shared.state, &id, options.shared.dry_run, on_event);
    let groups: Vec<_> = fleet.groups.iter().cloned().map(Arc::new).collect();
    let sources: BTreeSet<&str> = fleet
        .groups
        .iter()
        .filter(|group| group.source.is_some() && changes.adopts(&group.name))
        .map(|group| group.name.as_str())
        .collect();
    let adopts = changes.adopt() && sources.is_empty();
    let request = SurveyRequest {
        lock: (!options.shared.dry_run).then_some(options.shared.lock_timeout),
        timeout: options.shared.timeout,
        intent: if adopts {
            Intent::Adopt
        } else {
            Intent::Install
        },
        also: &[],
        sources: &sources,
    };
    let found = survey(&mut host, &groups, request, interrupts, on_event).await?;
    emit_survey(&found, &fleet.groups, fleet.path.as_deref(), on_event);
    let surveyed: Vec<PathBuf> = found.targets.keys().cloned().collect();
    let name_runs = |abort| name_open_runs(abort, options, &surveyed);
    let proven = ProofCache::load(&options.shared.state);
    let request = PlanRequest {
        fleet,
        changes: &changes,
        count: options.count,
        overwrite: options.overwrite,
        include_unresponsive: options.shared.include_unresponsive,
        proven: &proven,
    };
    let plan = Plan::new(found, &request, |sha256| {
        runs::stored(&options.shared.state, sha256)
    });
    let plan = plan.map_err(name_runs)?;
    if !options.now && !options.shared.include_unresponsive {
        for event in plan.unheld() {
            on_event(&event);
            host.note(event);
        }
    }
    let context = RunContext {
        id: &id,
        verb: options.verb,
        of: None,
        replaces: &options.replaces,
        state: &options.shared.state,
        groups: &fleet.groups,
        order: &fleet.order,
        strict: options.shared.validate == Validate::Strict,
        dry_run: options.shared.dry_run,
        now: options.now,
        back: false,
        reason: options.shared.reason.as_deref(),
        unreplaced: None,
        keep: options.shared.keep,
    };
    execute(context, plan, host, interrupts, on_event)
        .await
        .map_err(name_runs)
}

/// Names the open runs over the surveyed targets in a refusal: they are why these are not what a
/// run expects, or they would meet the same guard.
fn name_open_runs(abort: Abort, options: &Options, surveyed: &[PathBuf]) -> Abort {
    let RunOptions {
        state, state_args, ..
    } = &options.shared;
    let groups = options.fleet.groups.iter().map(|g| g.name.as_str());
    let groups: Vec<&str> = groups.collect();
    let open = runs::left_over(state, surveyed, &groups);
    let Some(newest) = open.last().filter(|_| abort.verdict == Verdict::Refused) else {
        return abort;
    };
    let ids = names::list(open.iter().rev().map(|run| &run.id), ", ", names::MOST);
    let runs = if open.len() == 1 { "run" } else { "runs" };
    let why = format!("; left open over the same targets: {runs} {ids}");
    let what = match &abort.hint {
        Some(hint) => hint.what.clone(),
        None => "nothing was touched; why, what to do about it, and what ends the open run:".into(),
    };
    let first = match &abort.hint {
        Some(hint) => hint.commands.clone(),
        None => vec![doctor_command(options)],
    };
    let next = runs::next(state, newest, state_args);
    let commands = first.into_iter().chain(next).collect();
    Abort {
        reason: format!("{}{why}", abort.reason),
        ..abort
    }
    .with_hint(&what, commands)
}
