//! `hello watch`.

use std::{process::ExitCode, time::Duration};

use super::{
    fleet_file::FleetArg,
    refusal::UsageError,
    run::run_until_interrupted,
    state::{KeepArg, StateArg},
    values::OutputArg,
};
use crate::{
    config::Listen,
    execute::RunOptions,
    fleet::{self, Fleet, FleetError},
    protocol::Validate,
    report::{Exports, Output},
    serve::ReloadSignals,
    watch,
};

#[derive(Debug, clap::Args)]
pub(super) struct WatchArgs {
    /// Watch these groups, or all.
    ///
    /// A group without a `config` has nothing to watch, and is not part of it. Without a fleet
    /// file, name one kind: `hello kinds` lists them.
    groups: Vec<String>,
    #[command(flatten)]
    fleet: FleetArg,
    /// Begin a run when the content has not changed for this time.
    ///
    /// Steady changes cannot put the run off for more than ten times as long.
    #[arg(
        help_heading = "Rollout",
        long,
        value_name = "TIME",
        default_value = "1s",
        value_parser = fleet::parse_duration
    )]
    debounce: Duration,
    /// End after one run, with its exit code.
    ///
    /// For a timer, or a job beside a running daemon: without one the exit code is 3.
    #[arg(help_heading = "Rollout", long)]
    once: bool,
    /// Serve metrics at this address: HOST:PORT, or unix:PATH.
    ///
    /// The paths are /metrics and /-/healthy. Every peer may read them.
    #[arg(help_heading = "Output", long, value_name = "ADDRESS")]
    listen: Option<String>,
    #[command(flatten)]
    state: StateArg,
    #[command(flatten)]
    keep: KeepArg,
    #[command(flatten)]
    output: OutputArg,
    /// Print a line only for runs that did not converge.
    #[arg(help_heading = "Output", short, long)]
    quiet: bool,
    /// Print every event of each run, as `hello broadcast` does.
    #[arg(help_heading = "Output", short, long, conflicts_with = "quiet")]
    verbose: bool,
}

pub(super) fn watch(args: WatchArgs, signals: ReloadSignals) -> ExitCode {
    match options(args) {
        Ok(options) => run_until_interrupted(|interrupts| watch::run(options, signals, interrupts)),
        Err(e) => e.fail(),
    }
}

/// Returns the checked options.
///
/// # Errors
/// Fails if an option or the fleet cannot be used, or if there is nothing to watch.
fn options(args: WatchArgs) -> Result<watch::Options, UsageError> {
    let output = args.output.form();
    if output == Output::Json {
        return Err("a watch has no one object at the end: use -o jsonl"
            .to_owned()
            .into());
    }
    let listen: Option<Listen> = args
        .listen
        .map(|address| address.parse())
        .transpose()
        .map_err(|e| format!("--listen: {e}"))?;
    let state = args.state.resolve()?;
    let (fleet_arg, groups) = (args.fleet, args.groups);
    let load = move || load(&fleet_arg, &groups);
    let fleet = load().map_err(|e| e.to_string())?;
    if fleet.groups.is_empty() {
        return Err("no group has a `config`, so there is nothing to watch"
            .to_owned()
            .into());
    }
    Ok(watch::Options {
        fleet,
        load: Box::new(load),
        debounce: args.debounce,
        listen,
        once: args.once,
        shared: RunOptions {
            validate: Validate::Auto,
            dry_run: false,
            include_unresponsive: false,
            timeout: None,
            lock_timeout: Duration::ZERO,
            reason: None,
            state: state.path,
            state_args: state.args,
            keep: args.keep.keep,
            output,
            exports: Exports::default(),
            quiet: args.quiet,
            verbose: args.verbose,
        },
    })
}

/// Loads the groups that have something to watch.
fn load(fleet: &FleetArg, groups: &[String]) -> Result<Fleet, FleetError> {
    let mut fleet = fleet.clone().load(groups, groups.is_empty())?;
    fleet.groups.retain(|group| !group.config.is_empty());
    Ok(fleet)
}
