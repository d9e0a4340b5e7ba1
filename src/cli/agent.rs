//! `hello agent`.

use std::{path::PathBuf, process::ExitCode};

use super::{
    run::run_readonly,
    state::{KeepArg, StateArg},
};
use crate::agent;

/// The file of a host. The working directory of an agent is the home of the user that sudo runs it
/// as, so no other place is searched.
const DEFAULT_FILE: &str = "/etc/hello/fleet.toml";

#[derive(Debug, clap::Args)]
pub(super) struct AgentArgs {
    /// Exchange messages over stdin and stdout.
    #[arg(long, required = true)]
    stdio: bool,
    /// Read the groups of this host from this file.
    #[arg(help_heading = "Instances", long, value_name = "FILE", default_value = DEFAULT_FILE)]
    fleet: PathBuf,
    #[command(flatten)]
    state: StateArg,
    #[command(flatten)]
    keep: KeepArg,
}

pub(super) fn agent(args: AgentArgs) -> ExitCode {
    let state = args.state.resolve().ok().map(|state| state.path);
    run_readonly(agent::run(agent::Options {
        file: args.fleet,
        state,
        keep: args.keep.keep,
    }))
}
