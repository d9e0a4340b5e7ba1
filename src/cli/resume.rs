//! `hello resume` and `hello revert`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::{
    fleet_file::usual_file,
    hosts::RunHostsArgs,
    refusal::{UsageError, fail, fail_with},
    run::run_mutating,
    run_args::RunArgs,
};
use crate::{
    event::Verdict,
    fleet::{Fleet, FleetError},
    report::remove_leftovers,
    resume,
    runs::Verb,
    screen,
};

#[derive(Debug, clap::Args)]
pub(super) struct ResumeArgs {
    /// Continue this run, or the newest open one.
    ///
    /// RUN is the id of a run, or its first digits. @ is the last run, @-1 the one before, and so
    /// on.
    #[arg(value_name = "RUN")]
    run: Option<String>,
    #[command(flatten)]
    more: ContinueArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct RevertArgs {
    /// Revert this run, or the open or last one.
    ///
    /// RUN is the id of a run, or its first digits. @ is the last run, @-1 the one before, and so
    /// on. Without RUN, the newest open run is meant. If none is open, it is the last run that
    /// changed a config and was not reverted; it is shown, and reverted if you say yes.
    #[arg(value_name = "RUN")]
    run: Option<String>,
    /// Revert the last run without a question.
    ///
    /// The option is needed without RUN where no terminal is.
    #[arg(short, long)]
    yes: bool,
    #[command(flatten)]
    more: ContinueArgs,
}

/// The options that both commands have.
#[derive(Debug, clap::Args)]
struct ContinueArgs {
    /// Use the groups of this file.
    ///
    /// They take the place of the groups of the same name in the journal. For a run whose
    /// groups were wrong. Groups that the file does not have stay as they are.
    #[arg(help_heading = "Instances", long, value_name = "FILE")]
    fleet: Option<PathBuf>,
    #[command(flatten)]
    hosts: RunHostsArgs,
    #[command(flatten)]
    shared: RunArgs,
}

pub(super) fn resume(args: ResumeArgs) -> ExitCode {
    match options(Verb::Resume, args.run, args.more) {
        Ok(options) => run_mutating(|interrupts| resume::run(options, interrupts)),
        Err(e) => e.fail(),
    }
}

pub(super) fn revert(args: RevertArgs) -> ExitCode {
    let mut options = match options(Verb::Revert, args.run, args.more) {
        Ok(options) => options,
        Err(e) => return e.fail(),
    };
    if options.run.is_none() {
        // Asked before interrupts are caught and before anything is locked: Ctrl-C ends it here.
        match choose(&options, args.yes) {
            Ok(run) => options.run = run,
            Err(code) => return code,
        }
    }
    run_mutating(|interrupts| resume::run(options, interrupts))
}

/// Returns the last run if the operator wants it reverted; none if an open run comes first, or if
/// this machine has no run to revert and its hosts may have one.
fn choose(options: &resume::Options, yes: bool) -> Result<Option<String>, ExitCode> {
    let shared = &options.shared;
    if !shared.dry_run {
        // As every run does at its beginning, also where no run follows.
        remove_leftovers(&shared.state);
    }
    let last = match resume::last(&shared.state) {
        Ok(Some(last)) => last,
        Ok(None) => return Ok(None),
        Err(abort) if abort.verdict == Verdict::NoMatch && has_hosts(options) => return Ok(None),
        Err(abort) => {
            let command = format!("hello history{}", shared.state_args);
            let action = "nothing was touched; see what there is:";
            let code = abort.verdict.exit();
            return Err(fail_with(code, &abort.reason, action, command));
        }
    };
    let is_settled = yes || shared.dry_run;
    if !(shared.quiet && is_settled) {
        screen::tell(&last.text);
    }
    if is_settled {
        return Ok(Some(last.id));
    }
    if !screen::can_ask() {
        let command = format!("hello revert {}{}", last.short, shared.state_args);
        let why = "there is no terminal to ask whether the last run is to be reverted";
        let action = "name the run, or add --yes:";
        return Err(fail_with(Verdict::Usage.exit(), why, action, command));
    }
    if screen::confirm("Revert it?") {
        Ok(Some(last.id))
    } else {
        let why = "nothing was touched: the question was not answered with yes";
        Err(fail(Verdict::Failed.exit(), why))
    }
}

/// Tells whether the fleet file of the command, or the usual one, names hosts.
fn has_hosts(options: &resume::Options) -> bool {
    match (&options.fleet, &options.usual) {
        (Some(fleet), _) => fleet.hosts.is_some(),
        (None, Some(usual)) => Fleet::load(usual).is_ok_and(|fleet| fleet.hosts.is_some()),
        (None, None) => false,
    }
}

/// Loads a fleet file with every group, or with its hosts.
fn load(path: &Path) -> Result<Fleet, FleetError> {
    let fleet = Fleet::load(path)?;
    if fleet.hosts.is_some() {
        return Ok(fleet);
    }
    fleet.select(&[], true)
}

fn options(
    verb: Verb,
    run: Option<String>,
    more: ContinueArgs,
) -> Result<resume::Options, UsageError> {
    let shared = more.shared.checked()?;
    let fleet = more.fleet.map(|path| load(&path)).transpose()?;
    let take_over = more.hosts.takes_over();
    let (on, except, max_unreachable) = more.hosts.parts();
    Ok(resume::Options {
        verb,
        run,
        fleet,
        usual: usual_file(),
        on,
        except,
        max_unreachable,
        take_over,
        shared,
    })
}
