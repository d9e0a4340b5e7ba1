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
#[command(group = clap::ArgGroup::new("mode").required(true))]
pub(super) struct AgentArgs {
    /// Exchange messages over stdin and stdout.
    #[arg(long, group = "mode")]
    stdio: bool,
    /// Guard the commit-confirmed timers that a reboot has left.
    ///
    /// For each open run of this host whose timer is armed: wait for the end of the timer, and roll
    /// back then, unless the run ends before. The command ends once no such run is left. A unit
    /// starts it at boot.
    #[arg(long, group = "mode")]
    resume_armed: bool,
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
    let options = agent::Options {
        file: args.fleet,
        state,
        keep: args.keep.keep,
    };
    if args.resume_armed {
        return run_readonly(agent::resume_armed(options));
    }
    run_readonly(agent::run(options))
}
