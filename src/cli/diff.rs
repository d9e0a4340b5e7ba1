//! `hello diff`.

use std::process::ExitCode;

use super::{
    broadcast::change_request, fleet_file::FleetArg, refusal::UsageError, run::run_readonly,
    state::StateArg, values::OutputArg,
};
use crate::diff;

#[derive(Debug, clap::Args)]
pub(super) struct DiffArgs {
    /// Compare the targets of these groups, or of all.
    ///
    /// Without a fleet file, name one kind: `hello kinds` lists them.
    groups: Vec<String>,
    #[command(flatten)]
    fleet: FleetArg,
    /// Compare the disk with this file or directory.
    ///
    /// Without the option and --set, the disk is compared with what the instances run. A PATH
    /// without GROUP needs one group. GROUP=PATH may be repeated.
    #[arg(
        help_heading = "Change",
        long,
        value_name = "[GROUP=]PATH",
        conflicts_with = "set"
    )]
    config: Vec<String>,
    /// Remove entries that only the live directory has.
    #[arg(help_heading = "Change", long, requires = "config")]
    prune: bool,
    /// Compare the disk with itself after this key is set.
    ///
    /// KEY=@FILE reads the value from a file. The option may be repeated.
    #[arg(help_heading = "Change", long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    output: OutputArg,
    #[command(flatten)]
    state: StateArg,
}

pub(super) fn diff(args: DiffArgs) -> ExitCode {
    match options(args) {
        Ok(options) => run_readonly(diff::run(options)),
        Err(e) => e.fail(),
    }
}

fn options(args: DiffArgs) -> Result<diff::Options, UsageError> {
    let every = args.groups.is_empty();
    let mut fleet = args.fleet.load(&args.groups, every)?;
    let change = if args.config.is_empty() && args.set.is_empty() {
        None
    } else {
        Some(change_request(
            &args.config,
            &args.set,
            args.prune,
            &mut fleet,
        )?)
    };
    Ok(diff::Options {
        fleet,
        change,
        state: args.state.resolve().ok().map(|state| state.path),
        output: args.output.form(),
    })
}
