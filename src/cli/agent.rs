//! `hello agent`.

use std::{path::PathBuf, process::ExitCode};

use super::{
    run::run_readonly,
    state::{KeepArg, StateArg},
};
use crate::{
    agent,
    inventory::{HostName, is_label},
};

/// The file of a host. The working directory of an agent is the home of the user that sudo runs it
/// as, so no other place is searched.
const DEFAULT_FILE: &str = "/etc/hello/fleet.toml";

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("mode").required(true))]
pub(super) struct AgentArgs {
    /// Exchange messages over stdin and stdout.
    #[arg(long, group = "mode")]
    stdio: bool,
    /// Listen on this NATS server for coordinators: nats://HOST or nats://HOST:PORT.
    ///
    /// The agent goes on until SIGTERM. A [[store]] of the fleet file with this URL has the
    /// certificates and the credentials; a server on another machine must speak TLS. SIGHUP checks
    /// the fleet file. The subject of this host is hello.FLEET.h.NAME, where FLEET is the `fleet`
    /// of [agent].
    #[cfg(feature = "nats")]
    #[arg(long, group = "mode", value_name = "URL")]
    nats: Option<String>,
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
    /// The name of this host. Default: the `name` of [agent]; with --nats, else the host name.
    #[arg(help_heading = "Instances", long, value_name = "HOST", value_parser = HostName::new)]
    name: Option<HostName>,
    /// A label of this host, besides those of [agent]; may be repeated.
    #[arg(help_heading = "Instances", long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    #[command(flatten)]
    state: StateArg,
    #[command(flatten)]
    keep: KeepArg,
}

fn label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=');
    let pair = pair.filter(|(key, value)| is_label(key, value));
    pair.map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| format!("{text:?} is no label: KEY=VALUE"))
}

pub(super) fn agent(args: AgentArgs) -> ExitCode {
    let state = args.state.resolve().ok().map(|state| state.path);
    let options = agent::Options {
        file: args.fleet,
        name: args.name,
        labels: args.label.into_iter().collect(),
        state,
        keep: args.keep.keep,
    };
    #[cfg(feature = "nats")]
    if let Some(url) = args.nats {
        return run_readonly(async move { agent::serve_nats(options, &url).await });
    }
    if args.resume_armed {
        return run_readonly(agent::resume_armed(options));
    }
    run_readonly(agent::run(options))
}
