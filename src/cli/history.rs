//! `hello history` and `hello forget`: commands about the runs that are kept.

use std::process::ExitCode;

use super::{refusal::fail, run::run_readonly, state::StateArg, values::OutputArg};
use crate::{event::Verdict, forget, history, runs::OpenRuns};

#[derive(Debug, clap::Args)]
pub(super) struct HistoryArgs {
    /// Show everything that happened in this run.
    ///
    /// RUN is the id of a run, or its first digits. @ is the last run, @-1 is the run before the
    /// last one, and so on.
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
    /// before; SHA the SHA-256 of a content.
    #[arg(value_name = "RUN|SHA")]
    id: String,
    /// Give up an open run: close and remove it.
    ///
    /// Processes and files stay as they are.
    #[arg(long)]
    abandon: bool,
    #[command(flatten)]
    state: StateArg,
}

pub(super) fn history(args: HistoryArgs) -> ExitCode {
    match args.state.resolve() {
        Ok(state) => ExitCode::from(history::run(&history::Options {
            run: args.run,
            last: args.last,
            state: state.path,
            state_args: state.args,
            output: args.output.form(),
        })),
        Err(why) => fail(Verdict::Usage.exit(), &why.to_string()),
    }
}

pub(super) fn forget(args: ForgetArgs) -> ExitCode {
    match args.state.resolve() {
        Ok(state) => run_readonly(forget::run(forget::Options {
            id: args.id,
            state: state.path,
            state_args: state.args,
            open: if args.abandon {
                OpenRuns::Abandoned
            } else {
                OpenRuns::Refused
            },
        })),
        Err(why) => fail(Verdict::Usage.exit(), &why.to_string()),
    }
}
