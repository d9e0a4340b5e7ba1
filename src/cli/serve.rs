//! `hello serve` and `hello check`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use super::{refusal::fail, values::Proof};
use crate::{
    check::{self, CheckError},
    config::Listen,
    event::Verdict,
    fleet, screen,
    serve::{self, ReloadSignals},
};

#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// Serve the config in this TOML file (message, listen, log).
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Listen on HOST:PORT or unix:PATH instead of `listen` in the file.
    ///
    /// Port 0 picks a free port. The first line on stdout is the address.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Let open requests finish for up to this time after SIGTERM.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "10s",
        value_parser = fleet::parse_duration
    )]
    drain: Duration,
    /// Show the proof headers and /-/* to these peers.
    #[arg(long, value_enum, value_name = "PEERS", default_value_t = Proof::Loopback)]
    proof: Proof,
    /// Log as JSON lines.
    #[arg(long)]
    log_json: bool,
}

pub(super) fn serve(args: ServeArgs, signals: ReloadSignals) -> ExitCode {
    let listen: Option<Listen> = match args.listen.map(|address| address.parse()).transpose() {
        Ok(listen) => listen,
        Err(e) => return fail(Verdict::Usage.exit(), &format!("--listen: {e}")),
    };
    let options = serve::Options {
        config: args.config,
        listen,
        drain: args.drain,
        proof: args.proof.into(),
        log_json: args.log_json,
    };
    match serve::main(options, signals) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => fail(Verdict::Failed.exit(), &e.to_string()),
    }
}

pub(super) fn check(file: &Path) -> ExitCode {
    match check::check(file) {
        Ok(sha256) => {
            let text = format!("{}: valid sha256:{sha256}", file.display());
            screen::answer([screen::row(&text)]);
            ExitCode::SUCCESS
        }
        Err(CheckError::Unreadable(why)) => fail(Verdict::Failed.exit(), &why),
        Err(CheckError::Invalid { rendered, .. }) => fail(Verdict::Invalid.exit(), &rendered),
    }
}
