//! `hello resume` and `hello revert`.

use std::{path::PathBuf, process::ExitCode};

use super::{refusal::UsageError, run::run_mutating, run_args::RunArgs};
use crate::{fleet::Fleet, resume, runs::Verb};

#[derive(Debug, clap::Args)]
pub(super) struct ResumeArgs {
    /// Continue from this run: the first digits of its id, @ for the last one. [default: open run]
    ///
    /// @-1 is the run before the last one, and so on. Without RUN, the newest open run is meant.
    #[arg(value_name = "RUN")]
    run: Option<String>,
    /// Use the groups of this file instead of those of the same name in the journal.
    ///
    /// For a run whose groups were wrong. Groups that the file does not have stay as they are.
    #[arg(long, value_name = "FILE")]
    fleet: Option<PathBuf>,
    #[command(flatten)]
    shared: RunArgs,
}

pub(super) fn run(verb: Verb, args: ResumeArgs) -> ExitCode {
    match options(verb, args) {
        Ok(options) => run_mutating(|interrupts| resume::run(options, interrupts)),
        Err(e) => e.fail(),
    }
}

fn options(verb: Verb, args: ResumeArgs) -> Result<resume::Options, UsageError> {
    let shared = args.shared.checked()?;
    let fleet = args
        .fleet
        .map(|path| Fleet::load(&path)?.select(&[], true))
        .transpose()
        .map_err(|e| e.to_string())?;
    Ok(resume::Options {
        verb,
        run: args.run,
        fleet,
        shared,
    })
}
