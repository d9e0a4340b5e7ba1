//! `hello show`.

use std::process::ExitCode;

use super::{refusal::fail, state::StateArg, values::OutputArg};
use crate::{event::Verdict, show};

#[derive(Debug, clap::Args)]
#[command(override_usage = "hello show [OPTIONS] <RUN|SHA>")]
pub(super) struct ShowArgs {
    /// Show this run, or this stored content.
    ///
    /// The first digits of an id or a SHA-256. @ is the last run, @-1 the one before. `sha256:`
    /// before the digits means a content.
    #[arg(value_name = "RUN|SHA")]
    name: String,
    /// Show a content that is a secret too.
    ///
    /// A config is a secret where not every user may read its file, or where its group says so.
    #[arg(help_heading = "Output", long)]
    reveal: bool,
    #[command(flatten)]
    output: OutputArg,
    #[command(flatten)]
    state: StateArg,
}

pub(super) fn show(args: ShowArgs) -> ExitCode {
    match args.state.resolve() {
        Ok(state) => ExitCode::from(show::run(&show::Options {
            name: args.name,
            reveal: args.reveal,
            state: state.path,
            state_args: state.args,
            output: args.output.form(),
        })),
        Err(why) => fail(Verdict::Usage.exit(), &why.to_string()),
    }
}
