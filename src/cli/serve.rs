//! `hello serve` and `hello check`.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use super::{
    refusal::{UsageError, fail},
    values::Proof,
};
use crate::{
    check::{self, CheckError},
    config::Listen,
    event::Verdict,
    fleet::{self, Key},
    screen,
    serve::{self, Failure, ReloadSignals},
};

#[derive(Debug, clap::Args)]
pub(super) struct ServeArgs {
    /// Serve the config in this TOML file (message, listen, log).
    #[arg(long, value_name = "FILE", required_unless_present = "store")]
    config: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
    /// Start with the config that was applied last if the store is away.
    ///
    /// Each config is kept in DIR. A server that starts with it says that it is degraded, and reads
    /// the store again on SIGHUP.
    #[arg(long, value_name = "DIR", requires = "store")]
    last_good: Option<PathBuf>,
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

/// The key that lies over the file.
#[derive(Debug, clap::Args)]
pub(super) struct StoreArgs {
    /// Lay the value of this key over the file, key by key.
    ///
    /// The URL begins with https://, etcd+https://, nats:// or exec://; `hello help stores` has
    /// more. SIGHUP reads file and store again.
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// Take the store's credentials and limits from [[store]] in this file.
    #[arg(long, value_name = "FILE", requires = "store")]
    fleet: Option<PathBuf>,
}

impl StoreArgs {
    /// Returns the key; none if no store is named.
    fn key(&self) -> Result<Option<Key>, UsageError> {
        let key = |url: &String| fleet::store_key(url, self.fleet.as_deref());
        Ok(self.store.as_ref().map(key).transpose()?)
    }
}

/// The arguments of `hello check`.
#[derive(Debug, clap::Args)]
pub(super) struct CheckArgs {
    /// Check this file.
    #[arg(required_unless_present_any = ["config", "store", "over"])]
    file: Option<PathBuf>,
    /// Check this file, as `hello serve` names it.
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    config: Option<PathBuf>,
    /// Lay this file over the other one, key by key, as the value of a key.
    ///
    /// A run whose target is a key validates a new value so, before it is in the store.
    #[arg(long, value_name = "FILE", conflicts_with = "store")]
    over: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
}

pub(super) fn serve(args: ServeArgs, signals: ReloadSignals) -> ExitCode {
    let listen: Option<Listen> = match args.listen.map(|address| address.parse()).transpose() {
        Ok(listen) => listen,
        Err(e) => return fail(Verdict::Usage.exit(), &format!("--listen: {e}")),
    };
    let store = match args.store.key() {
        Ok(store) => store,
        Err(e) => return e.fail(),
    };
    let options = serve::Options {
        config: args.config,
        store,
        last_good: args.last_good,
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

pub(super) fn check(args: CheckArgs) -> ExitCode {
    let file = args.file.or(args.config);
    match (args.store.key(), file) {
        (Err(e), _) => e.fail(),
        (Ok(None), Some(file)) if args.over.is_none() => check_file(&file),
        (Ok(key), file) => check_layers(file.as_deref(), key, args.over.as_deref()),
    }
}

/// Checks the config that a server would merge from these layers.
fn check_layers(file: Option<&Path>, store: Option<Key>, over: Option<&Path>) -> ExitCode {
    let places: Vec<String> = file
        .into_iter()
        .chain(over)
        .map(|file| file.display().to_string())
        .chain(store.as_ref().map(|key| key.url.clone()))
        .collect();
    match serve::check(file, store, over) {
        Ok(sha256) => {
            let text = format!("{}: valid sha256:{sha256}", places.join(" and "));
            screen::answer([screen::row(&text)]);
            ExitCode::SUCCESS
        }
        Err(e @ Failure::Invalid(_)) => fail(Verdict::Invalid.exit(), &e.to_string()),
        Err(e) => fail(Verdict::Failed.exit(), &e.to_string()),
    }
}

fn check_file(file: &Path) -> ExitCode {
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
