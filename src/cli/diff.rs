//! `hello diff`.

use std::process::ExitCode;

use super::{
    broadcast::change_request, fleet_file::FleetArg, refusal::UsageError, run::run_readonly,
    state::StateArg, values::OutputArg,
};
use crate::{change::ChangeRequest, diff, fleet::Fleet};

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
    /// Compare the disk with the `source` of each group.
    ///
    /// The files and keys are read as a run would read them. Groups without a `source` are not
    /// compared.
    #[arg(help_heading = "Change", long, conflicts_with_all = ["config", "set", "prune"])]
    source: bool,
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
    let change = if args.source {
        keep_sources(&mut fleet)?;
        Some(ChangeRequest::default())
    } else if args.config.is_empty() && args.set.is_empty() {
        None
    } else {
        Some(change_request(
            &args.config,
            &args.set,
            args.prune,
            &mut fleet,
        )?)
    };
    let state = args.state.resolve().ok();
    let (state, state_args) = state.map_or((None, String::new()), |state| {
        (Some(state.path), state.args)
    });
    Ok(diff::Options {
        fleet,
        change,
        state,
        state_args,
        output: args.output.form(),
    })
}

/// Removes the groups without a `source`.
///
/// # Errors
/// Fails if no group is left.
fn keep_sources(fleet: &mut Fleet) -> Result<(), String> {
    fleet.groups.retain(|group| group.source.is_some());
    if fleet.groups.is_empty() {
        return Err("--source compares with the `source` of a group, and no group has one".into());
    }
    Ok(())
}
