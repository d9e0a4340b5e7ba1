//! `hello resume` and `hello revert`: both continue an earlier run, forward or back.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    event::{Abort, Direction, Event, Interrupts, Verdict},
    execute::{RunContext, RunOptions, Validate, emit_survey, execute, open_host, survey},
    fleet::{Fleet, Group, OnBadConfig},
    host::{Intent, SurveyRequest},
    plan::{Plan, RecoveryRequest, absent, unreplaced},
    report::{CommandContext, Reporter, RunReport, Summary},
    runs::{self, InterruptedRun, ProofCache, RunError, RunInfo, ShortIds, Verb},
    screen,
    step::Survey,
};

mod last;

pub(crate) use self::last::last;

/// Checked options of the commands.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// [`Verb::Resume`] or [`Verb::Revert`].
    pub verb: Verb,
    /// The name of the run; without it, the newest open run.
    pub run: Option<String>,
    /// Today's fleet: its groups replace those of the same name in the journal.
    pub fleet: Option<Fleet>,
    /// The options that every command with a run has.
    pub shared: RunOptions,
}

/// Runs the command to its verdict, and reports every end.
pub(crate) async fn run(options: Options, mut interrupts: Interrupts) -> Verdict {
    let mut reporter = Reporter::new(
        options.shared.output,
        options.shared.quiet,
        options.shared.verbose,
    )
    .exporting(options.shared.exports.clone());
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
        status_command: format!("hello history{run}{}", options.shared.state_args),
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
    let mut left = run.map_err(|e| no_run(&e))?;
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
    Abort {
        reason: format!(
            "{}\nto restore the old config without validation: hello revert {} --validate=off{}",
            abort.reason, left.id, options.shared.state_args
        ),
        ..abort
    }
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

/// Returns the direction of this run.
///
/// # Errors
/// Fails if there is nothing to continue, or if another run must be continued first.
fn direction(options: &Options, left: &InterruptedRun) -> Result<Direction, Abort> {
    if options.verb == Verb::Resume {
        ensure_open(options, left)?;
    }
    if let Some(later) = left.overtaken_by(&options.shared.state) {
        return Err(refused(format!(
            "run {later} came after run {} and was left open as well, so that one goes first: \
             `hello resume {later}{args}`, or `hello revert {later}{args}`",
            left.id,
            args = options.shared.state_args
        )));
    }
    // An open run that was restoring the old config is continued by a revert. One that came to its
    // end is reverted.
    let back = options.verb == Verb::Revert && !(left.back && left.info.open);
    if !back {
        return Ok(Direction::Forward);
    }
    if left.targets.is_empty() {
        let id = &left.id;
        return Err(refused(format!(
            "run {id} changed no config, so there is none to restore"
        )));
    }
    Ok(Direction::Back)
}

/// # Errors
/// Fails if the run came to its end, or if a later run took its place.
fn ensure_open(options: &Options, left: &InterruptedRun) -> Result<(), Abort> {
    let id = &left.id;
    let args = &options.shared.state_args;
    if let Some(later) = left.superseded_by() {
        let verb = if RunInfo::of(&options.shared.state, later).open {
            "resume"
        } else {
            "history"
        };
        return Err(refused(format!(
            "run {id} has its end in run {later}, which took its place: \
             `hello {verb} {later}{args}`"
        )));
    }
    if !left.info.open {
        return Err(refused(format!(
            "run {id} came to its end, and there is nothing to resume; `hello revert {id}{args}` \
             reverts it"
        )));
    }
    Ok(())
}

fn refused(why: String) -> Abort {
    Abort::new(Verdict::Refused, why)
}

fn no_run(e: &RunError) -> Abort {
    let hint = match e {
        RunError::NoneOpen(_) => "; one that came to its end must be named",
        RunError::Running(..) => "; wait for its end, or interrupt it",
        _ => "",
    };
    Abort::new(e.verdict(), format!("{e}{hint}"))
}
