//! `hello resume` and `hello revert`: one recipe, which goes on with an earlier run, forth or back.

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{
    event::{Abort, Event, Interrupts, Phase, Verdict},
    execute::{RunContext, Validate, emit_survey, execute, sweep},
    fleet::{Fleet, Group, OnBadConfig},
    host::{Host, Intent, SurveyRequest},
    plan::{Direction, Plan, RecoveryRequest, absent, unreplaced},
    report::{CommandContext, Output, Reporter, Summary},
    runs::{self, InterruptedRun, ProofCache, Retention, RunError, RunInfo, Staging, Verb},
    screen,
};

/// Checked options of the commands.
#[derive(Debug, Clone)]
pub struct Options {
    /// [`Verb::Resume`] or [`Verb::Revert`].
    pub verb: Verb,
    /// How the id of a run begins; without it, the newest open run.
    pub run: Option<String>,
    /// Today's fleet: its groups take the place of those of their name in the journal.
    pub fleet: Option<Fleet>,
    /// What validation must give.
    pub validate: Validate,
    /// Prepare, show, and drop what was staged.
    pub dry_run: bool,
    /// Whose endpoint is silent goes along; always where an old config is brought back.
    pub include_unresponsive: bool,
    /// Instead of each group's own timeout.
    pub timeout: Option<Duration>,
    /// How long another run's lock is waited for.
    pub lock_timeout: Duration,
    /// Why; kept in the journal.
    pub reason: Option<String>,
    /// Which runs are kept.
    pub keep: Retention,
    /// Where runs are kept.
    pub state: PathBuf,
    /// What commands need besides, so that they look there.
    pub state_args: String,
    /// What stdout carries.
    pub output: Output,
    /// No progress lines.
    pub quiet: bool,
    /// Every instance a line.
    pub verbose: bool,
}

/// Runs the command to its verdict; every end is reported.
pub async fn run(options: Options, mut halts: Interrupts) -> Verdict {
    let mut reporter = Reporter::new(options.output, options.quiet, options.verbose);
    let summary = attempt(&options, &mut halts, &mut |event| reporter.event(event))
        .await
        .unwrap_or_else(Summary::aborted);
    let look = match (summary.run.as_str(), &options.run) {
        ("", None) => format!("hello history{}", options.state_args),
        ("", Some(run)) if summary.verdict != Verdict::NoMatch => {
            format!("hello history {}{}", screen::quote(run), options.state_args)
        }
        ("", Some(_)) => format!("hello history{}", options.state_args),
        (run, _) => format!("hello history {run}{}", options.state_args),
    };
    let summary = summary.addressed(CommandContext {
        status_command: look,
        help: format!(
            "hello {} --help",
            if options.verb == Verb::Revert {
                "revert"
            } else {
                "resume"
            }
        ),
        doctor: None,
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
    // Also where nothing is left to go on with.
    let left_beside = if options.dry_run {
        Vec::new()
    } else {
        sweep(&options.state)
    };
    left_beside.iter().for_each(&mut *on_event);
    let mut left =
        InterruptedRun::find(&options.state, options.run.as_deref()).map_err(|e| no_run(&e))?;
    if let Some(fleet) = &options.fleet {
        renew(&mut left, fleet)?;
    }
    let way = direction(options, &left)?;
    // Whether what is brought is an old config, whatever led there.
    let back = left.back ^ (way == Direction::Back);
    let id = runs::new_id();
    let mut host = Host::local(&id);
    host.record_in(if options.dry_run {
        Staging::where_possible(&options.state, &id)
    } else {
        Staging::of(&options.state, &id)
    });
    left_beside.into_iter().for_each(|event| host.note(event));
    // What the run was asked with stays in the journal of this one.
    let at_once = back || way == Direction::Back;
    let asked = |g: &Group| match options.validate {
        // An old config that must be there is brought back also where a bad one would end the
        // process.
        Validate::Off if at_once => Group {
            validate: Vec::new(),
            on_bad_config: OnBadConfig::Keeps,
            ..g.clone()
        },
        Validate::Off => Group {
            validate: Vec::new(),
            ..g.clone()
        },
        _ => g.clone(),
    };
    let groups: Vec<_> = left.groups.iter().map(asked).map(Arc::new).collect();
    let targets: Vec<PathBuf> = left.targets.iter().map(|t| t.path.clone()).collect();
    let look = SurveyRequest {
        lock: (!options.dry_run).then_some(options.lock_timeout),
        timeout: options.timeout,
        intent: Intent::Install,
        also: &targets,
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
        &left.groups,
        Some(&options.state.join("runs").join(&left.id)),
        on_event,
    );
    absent(&seen, &left).iter().for_each(&mut *on_event);
    let unreplaced = unreplaced(&seen, &left);
    let proven = ProofCache::load(&options.state);
    let aim = RecoveryRequest {
        left: &left,
        way,
        at_once,
        include_sick: options.include_unresponsive || at_once,
        proven: &proven,
    };
    let who =
        |path: &std::path::Path, sha256: &str| runs::later(&options.state, &left.id, path, sha256);
    let plan = Plan::recover(
        seen,
        aim,
        |sha256| runs::stored(&options.state, sha256),
        who,
    )?;
    let terms = RunContext {
        id: &id,
        verb: if way == Direction::Back {
            Verb::Revert
        } else {
            Verb::Resume
        },
        of: Some(&left.id),
        state: &options.state,
        groups: &left.groups,
        order: &left.order,
        strict: options.validate == Validate::Strict,
        dry_run: options.dry_run,
        // Who does not prove an old config is named; the config that it was to leave is brought
        // back by nobody.
        now: at_once,
        back,
        reason: options.reason.as_deref(),
        keep: options.keep,
    };
    let ended = execute(terms, plan, host, halts, on_event)
        .await
        .map(|mut summary| {
            // A good end that is one of fewer than there were says so.
            if let Some(lost) = unreplaced.filter(|_| summary.verdict == Verdict::Converged) {
                summary.reason += &format!("; {lost}");
            }
            summary
        });
    ended.map_err(|stop| match stop.by_validation && at_once {
        true => Abort {
            reason: format!(
                "{}\nto bring the old config back without validation: hello revert {} \
                             --validate=off{}",
                stop.reason, left.id, options.state_args
            ),
            ..stop
        },
        false => stop,
    })
}

/// Takes today's groups for those of their name in the journal, which may have been wrong. The
/// readings that the journal has of other assertions mean nothing then.
///
/// # Errors
/// `fleet.toml` has none of the groups.
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

/// Which way the run is gone on with.
///
/// # Errors
/// It came to its end, so there is nothing to go on with.
fn direction(options: &Options, left: &InterruptedRun) -> Result<Direction, Abort> {
    let refused = |why: String| Err(Abort::new(Verdict::Refused, why));
    match (options.verb, left.superseded_by()) {
        (Verb::Revert, _) => {}
        (_, Some(later)) => {
            let verb = if RunInfo::of(&options.state, later).open {
                "resume"
            } else {
                "history"
            };
            return refused(format!(
                "run {} has its end in run {later}, which took its place: `hello {verb} {later}{}`",
                left.id, options.state_args
            ));
        }
        _ if !left.past.open => {
            return refused(format!(
                "run {} came to its end, and there is nothing to go on with; `hello revert \
                 {0}{1}` undoes it",
                left.id, options.state_args
            ));
        }
        _ => {}
    }
    if let Some(later) = left.overtaken_by(&options.state) {
        let why = format!(
            "run {later} came after run {} and was left open as well, so that one goes first",
            left.id
        );
        return refused(format!(
            "{why}: `hello resume {later}{0}`, or `hello revert {later}{0}`",
            options.state_args
        ));
    }
    // It is the old config that is meant: an open run that was bringing it is gone on with. Only
    // one that had brought it is undone.
    let back = options.verb == Verb::Revert && !(left.back && left.past.open);
    if back && left.targets.is_empty() {
        return refused(format!(
            "run {} changed no config, so there is none to put back",
            left.id
        ));
    }
    Ok(if back {
        Direction::Back
    } else {
        Direction::Forward
    })
}

fn no_run(e: &RunError) -> Abort {
    let (verdict, hint) = match e {
        RunError::NoneOpen(_) => (Verdict::NoMatch, "; one that came to its end must be named"),
        RunError::Running(..) => (Verdict::Busy, "; wait for its end, or interrupt it"),
        RunError::Unknown(..) => (Verdict::NoMatch, ""),
        RunError::Ambiguous(..) => (Verdict::Usage, ""),
        RunError::State(..) | RunError::Unreadable(..) => (Verdict::Failed, ""),
    };
    Abort::new(verdict, format!("{e}{hint}"))
}
