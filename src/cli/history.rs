//! Commands about runs that were.

use std::{path::PathBuf, process::ExitCode};

use super::{refusal::fail, state::default_state};
use crate::{event::Verdict, forget, history, report::Output, runs::OpenRuns, screen};

#[derive(Debug, clap::Args)]
pub(super) struct HistoryArgs {
    /// What happened in this one; the first digits of its id are enough.
    run: Option<String>,
    /// So many, newest first.
    #[arg(
        short = 'n',
        long,
        value_name = "N",
        default_value_t = 20,
        conflicts_with = "run"
    )]
    last: usize,
    /// What stdout carries.
    #[arg(short, long, value_enum, default_value_t = Output::Screen)]
    output: Output,
    /// Where runs are kept.
    #[arg(long, value_name = "DIR", env = "HELLO_STATE")]
    state: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct ForgetArgs {
    /// A run's id, or the SHA-256 of a content; the first digits are enough, at least 8.
    #[arg(value_name = "RUN|SHA")]
    what: String,
    /// Give up a run that is open: it is closed and taken away, and processes and files stay as
    /// they are.
    #[arg(long)]
    abandon: bool,
    /// Where runs are kept.
    #[arg(long, value_name = "DIR", env = "HELLO_STATE")]
    state: Option<PathBuf>,
}

/// The state directory, and what commands that are named for it need besides.
pub(super) fn state_dir(named: Option<PathBuf>) -> Result<(PathBuf, String), String> {
    let usual = default_state();
    let state = named
        .or_else(|| usual.clone())
        .ok_or("no state directory: neither --state, HELLO_STATE nor HOME is set")?;
    let flag = if usual.as_ref() == Some(&state) {
        String::new()
    } else {
        format!(" --state {}", screen::quote(&state))
    };
    Ok((state, flag))
}

pub(super) fn history(args: HistoryArgs) -> ExitCode {
    match state_dir(args.state) {
        Ok((state, flag)) => ExitCode::from(history::run(&history::Options {
            run: args.run,
            last: args.last,
            state,
            flag,
            output: args.output,
        })),
        Err(why) => fail(Verdict::Usage.exit(), &why),
    }
}

pub(super) fn forget(args: ForgetArgs) -> ExitCode {
    match state_dir(args.state) {
        Ok((state, flag)) => ExitCode::from(forget::run(&forget::Options {
            what: args.what,
            state,
            flag,
            open: if args.abandon {
                OpenRuns::Abandoned
            } else {
                OpenRuns::Refused
            },
        })),
        Err(why) => fail(Verdict::Usage.exit(), &why),
    }
}
