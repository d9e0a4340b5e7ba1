//! `hello resume` and `hello revert`: both continue an earlier run, forward or back.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    event::{Abort, Direction, Event, Interrupts, Verdict},
    execute::{RunContext, Validate, emit_survey, execute, open_host, survey},
    fleet::{Fleet, Group, OnBadConfig},
    host::{Intent, SurveyRequest},
    plan::{Plan, RecoveryRequest, absent, unreplaced},
    report::{CommandContext, Look, RunReport, Summary},
    runs::{self, InterruptedRun, ProofCache, ShortIds, Verb},
    screen,
    step::Survey,
};

mod direction;
mod last;
mod options;

use self::direction::{direction, no_run};
pub(crate) use self::{last::last, options::Options};

/// Runs the command to its verdict, and reports every end.
pub(crate) async fn run(options: Options, mut interrupts: Interrupts) -> Verdict {
    let mut reporter = options.shared.reporter();
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
    let context = command_context(options, &report);
    Summary::new(report, &context)
}

fn command_context(options: &Options, report: &RunReport) -> CommandContext {
    let run = match &options.run {
        _ if !report.run.is_empty() => format!(" {}", report.run),
        Some(run) if report.verdict != Verdict::NoMatch => format!(" {}", screen::quote(run)),
        _ => String::new(),
    };
    let command = match options.verb {
        Verb::Revert => "hello revert",
        _ => "hello resume",
    };
    CommandContext {
        look: Look::History(format!("hello history{run}{}", options.shared.state_args)),
        command,
        doctor: None,
        short_run: ShortIds::of(&options.shared.state)
            .lasting(&report.run)
            .to_owned(),
        state_args: options.shared.state_args.clone(),
        dry_run: options.shared.dry_run,
    }
}

async fn attempt(
    options: &Options,
    interrupts: &mut Interrupts,
    on_event: &mut impl FnMut(&Event),
) -> Result<RunReport, Abort> {
    let id = runs::new_id();
    // Files of killed runs are removed also where no run is left to continue.
    let mut host = open_host(&options.shared.state, &id, options.shared.dry_run, on_event);
    let left = load(options)?;
    let direction = direction(options, &left)?;
    // A revert of a revert installs the new config again.
    let back = left.back ^ (direction == Direction::Back);
    let at_once = back || direction == Direction::Back;
    let groups: Vec<_> = left
        .groups
        .iter()
        .map(|g| Arc::new(with_validation(g, options.shared.validate, at_once)))
        .collect();
    let targets: Vec<PathBuf> = left.targets.iter().map(|t| t.path.clone()).collect();
    let request = SurveyRequest {
        lock: (!options.shared.dry_run).then_some(options.shared.lock_timeout),
        timeout: options.shared.timeout,
        intent: Intent::Install,
        also: &targets,
        // The bytes of the earlier run are in its folder. Its store may have others by now.
        sources: &BTreeSet::new(),
    };
    let found = survey(&mut host, &groups, request, interrupts, on_event).await?;
    let folder = options.shared.state.join("runs").join(&left.id);
    emit_survey(&found, &left.groups, Some(&folder), on_event);
    absent(&found, &left).iter().for_each(&mut *on_event);
    let unreplaced = unreplaced(&found, &left);
    let plan = recovery_plan(options, &left, direction, at_once, found)?;
    let context = RunContext {
        id: &id,
        verb: match direction {
            Direction::Back => Verb::Revert,
            Direction::Forward => Verb::Resume,
        },
        of: Some(&left.id),
        replaces: &[],
        state: &options.shared.state,
        // The journal keeps the groups with their validators.
        groups: &left.groups,
        order: &left.order,
        strict: options.shared.validate == Validate::Strict,
        dry_run: options.shared.dry_run,
        // If an instance does not prove the old config, it is named. The run never installs the new
        // config again by itself.
        now: at_once,
        back,
        reason: options.shared.reason.as_deref(),
        unreplaced: unreplaced.as_deref(),
        keep: options.shared.keep,
    };
    execute(context, plan, host, interrupts, on_event)
        .await
        .map_err(|abort| with_command(abort, options, &left, at_once))
}

fn recovery_plan(
    options: &Options,
    left: &InterruptedRun,
    direction: Direction,
    at_once: bool,
    found: Survey,
) -> Result<Plan, Abort> {
    let proven = ProofCache::load(&options.shared.state);
    let request = RecoveryRequest {
        left,
        direction,
        at_once,
        include_unresponsive: options.shared.include_unresponsive || at_once,
        proven: &proven,
    };
    let stored = |sha256: &str| runs::stored(&options.shared.state, sha256);
    let later =
        |path: &Path, sha256: &str| runs::later(&options.shared.state, &left.id, path, sha256);
    Plan::recover(found, request, stored, later)
}

/// Reads the earlier run, with the groups of `--fleet`.
fn load(options: &Options) -> Result<InterruptedRun, Abort> {
    let run = InterruptedRun::find(&options.shared.state, options.run.as_deref());
    let mut left = run.map_err(|e| no_run(options, &e))?;
    if let Some(fleet) = &options.fleet {
        renew(&mut left, fleet)?;
    }
    Ok(left)
}

/// Returns the group as the survey uses it. With `--validate=off` an old config is restored without
/// validation, also where a bad one would end the process.
fn with_validation(group: &Group, validate: Validate, at_once: bool) -> Group {
    let mut group = group.clone();
    if validate == Validate::Off {
        group.validate.clear();
        if at_once {
            group.on_bad_config = OnBadConfig::Keeps;
        }
    }
    group
}

/// Names the command that restores the old config without validation, where validation refused it.
fn with_command(abort: Abort, options: &Options, left: &InterruptedRun, at_once: bool) -> Abort {
    if !abort.by_validation || !at_once {
        return abort;
    }
    let command = format!(
        "hello revert {} --validate=off{}",
        left.id, options.shared.state_args
    );
    abort.with_hint(
        "nothing was touched; to restore the old config without validation:",
        vec![command],
    )
}

/// Replaces groups of the journal, which may have been wrong, by those of the same name in `fleet`.
/// The readings of the journal mean nothing if the assertions differ.
///
/// # Errors
/// Fails if `fleet` has none of the groups.
fn renew(left: &mut InterruptedRun, fleet: &Fleet) -> Result<(), Abort> {
    let mut renewed = 0;
    for group in &mut left.groups {
        let Some(today) = fleet.groups.iter().find(|today| today.name == group.name) else {
            continue;
        };
        renewed += 1;
        if today.confirm != group.confirm {
            let instances = left.instances.iter().filter(|i| i.group == group.name);
            instances.for_each(|i| drop(left.readings.remove(&(i.pid, i.started))));
        }
        group.clone_from(today);
    }
    if renewed > 0 {
        return Ok(());
    }
    let names: Vec<String> = left
        .groups
        .iter()
        .map(|group| format!("`{}`", group.name))
        .collect();
    Err(Abort::new(
        Verdict::Usage,
        format!(
            "--fleet has no group of run {}: {}",
            left.id,
            names.join(", ")
        ),
    ))
}
