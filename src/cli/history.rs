//! `hello history` and `hello forget`: commands about the runs that are kept.

use std::{path::PathBuf, process::ExitCode};

use super::{
    fleet_file::{FleetArg, usual_file},
    hosts::SelectArgs,
    refusal::{UsageError, fail},
    run::run_readonly,
    state::StateArg,
    values::OutputArg,
};
use crate::{event::Verdict, forget, history, runs::OpenRuns};

#[derive(Debug, clap::Args)]
pub(super) struct HistoryArgs {
    /// Show everything that happened in this run.
    ///
    /// RUN is the id of a run, or its first digits. @ is the last run, @-1 is the run before the
    /// last one, and so on. Over hosts, list how it ended on each.
    #[arg(value_name = "RUN")]
    run: Option<String>,
    /// List the last N runs.
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value_t = 20,
        conflicts_with = "run"
    )]
    last: usize,
    /// Ask the hosts of the fleet file for their runs.
    ///
    /// Each host answers from its own journals, also about runs that this machine does not know.
    /// --on and --except do the same for some hosts.
    #[arg(help_heading = "Hosts", long)]
    gather: bool,
    #[command(flatten)]
    select: SelectArgs,
    #[command(flatten)]
    fleet: FleetArg,
    #[command(flatten)]
    output: OutputArg,
    #[command(flatten)]
    state: StateArg,
}

#[derive(Debug, clap::Args)]
pub(super) struct ForgetArgs {
    /// Remove this run, or this content from every run.
    ///
    /// The first 8 digits or more. RUN is the id of a run, @ for the last one or @-1 for the one
    /// before; SHA the SHA-256 of a content. A run over hosts is also removed on its hosts.
    #[arg(value_name = "RUN|SHA")]
    id: String,
    /// Give up an open run: close and remove it.
    ///
    /// Processes and files stay as they are.
    #[arg(long)]
    abandon: bool,
    #[command(flatten)]
    select: SelectArgs,
    /// Read the hosts from this file.
    ///
    /// With it, or with --on or --except, this machine need not know the run or content. It is
    /// named by all digits then.
    #[arg(help_heading = "Hosts", long, value_name = "FILE")]
    fleet: Option<PathBuf>,
    /// Remove only what this machine keeps, and ask no host.
    #[arg(help_heading = "Hosts", long, conflicts_with_all = ["on", "except", "fleet"])]
    here: bool,
    #[command(flatten)]
    state: StateArg,
}

pub(super) fn history(args: HistoryArgs) -> ExitCode {
    let state = match args.state.resolve() {
        Ok(state) => state,
        Err(why) => return fail(Verdict::Usage.exit(), &why.to_string()),
    };
    let options = history::Options {
        run: args.run,
        last: args.last,
        state: state.path,
        state_args: state.args,
        output: args.output.form(),
    };
    let (on, except) = args.select.expressions();
    if !args.gather && on.is_empty() && except.is_empty() {
        return ExitCode::from(history::run(&options));
    }
    match args.fleet.load_with_hosts() {
        Ok(fleet) => run_readonly(history::run_over_hosts(
            options,
            history::HostSelection { fleet, on, except },
        )),
        Err(e) => UsageError::from(e).fail(),
    }
}

pub(super) fn forget(args: ForgetArgs) -> ExitCode {
    let state = match args.state.resolve() {
        Ok(state) => state,
        Err(why) => return fail(Verdict::Usage.exit(), &why.to_string()),
    };
    let (on, except) = args.select.expressions();
    run_readonly(forget::run(forget::Options {
        id: args.id,
        state: state.path,
        state_args: state.args,
        open: if args.abandon {
            OpenRuns::Abandoned
        } else {
            OpenRuns::Refused
        },
        hosts: forget::HostChoice {
            here: args.here,
            fleet: args.fleet,
            usual: usual_file(),
            on,
            except,
        },
    }))
}
