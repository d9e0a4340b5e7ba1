//! `hello serve`: serves the message of its config over HTTP, and swaps the config on SIGHUP
//! without dropping a request.

use std::{
    io,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    pin::pin,
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use futures_util::{Stream, StreamExt, stream};
use nix::sys::signal::{SigSet, Signal};
use sd_notify::NotifyState;
use signal_hook::consts::SIGHUP;
use tokio::{
    io::AsyncReadExt,
    signal::unix::{SignalKind, signal},
};
use tracing_subscriber::{filter::LevelFilter, layer::SubscriberExt, reload};

use self::{
    answer::Answers,
    last_good::{Kept, LastGood},
    source::{ConfigSource, LoadError, Loaded},
    state::{LevelHandle, Server},
};
pub(crate) use self::{
    connections::Connections, listener::Listener, manager::notify, metrics::CONTENT_TYPE,
};
pub use self::{failure::Failure, proof::Proof};
use crate::{config::Listen, fleet::Key, runtime, screen, self_report::LayerOrigin};

mod answer;
mod connections;
mod failure;
mod last_good;
mod listener;
mod manager;
mod metrics;
mod proof;
mod seats;
mod source;
mod state;

/// Checked options.
#[derive(Debug, Clone)]
pub struct Options {
    /// The config file; none if the config comes from a store alone.
    pub config: Option<PathBuf>,
    /// The key in a store whose value lies over the file.
    pub store: Option<Key>,
    /// The directory that the config of a store is kept in, for a start without the store.
    pub last_good: Option<PathBuf>,
    /// The address instead of that of the file.
    pub listen: Option<Listen>,
    /// The longest wait for open requests at the end.
    pub drain: Duration,
    /// The peers that see the proof.
    pub proof: Proof,
    /// Log JSON instead of text.
    pub log_json: bool,
}

/// The SIGHUPs to this process.
#[derive(Debug)]
pub struct ReloadSignals {
    /// True if one came since the last reload began.
    due: Arc<AtomicBool>,
    /// A socket that is readable after each.
    wakes: UnixStream,
}

impl ReloadSignals {
    /// Catches SIGHUP from now on. An earlier one ends the process, so nothing may come before
    /// this.
    ///
    /// # Errors
    /// Fails if the signal cannot be caught.
    pub fn catch() -> io::Result<Self> {
        let (wakes, wake) = UnixStream::pair()?;
        let due = Arc::new(AtomicBool::new(false));
        // In this order: the thread that the socket wakes finds the reload due.
        signal_hook::flag::register(SIGHUP, due.clone())?;
        signal_hook::low_level::pipe::register(SIGHUP, wake)?;
        // A parent may have left the signal blocked; the handlers above have replaced an inherited
        // ignore.
        let _ = SigSet::from(Signal::SIGHUP).thread_unblock();
        Ok(Self { due, wakes })
    }

    /// Returns one item for all signals that are pending, for a command that has no server.
    ///
    /// # Errors
    /// Fails if the socket cannot be registered.
    pub(crate) fn into_wakes(self) -> io::Result<impl Stream<Item = ()>> {
        coalesced(self.wakes)
    }
}

/// Serves until SIGTERM or SIGINT, and reloads at `signals`.
///
/// # Errors
/// Fails if the server cannot start; see [`Failure`].
pub fn main(options: Options, signals: ReloadSignals) -> Result<(), Failure> {
    let levels = log_to_stderr(options.log_json);
    runtime::run(move || start(options, signals, levels))?
}

/// Reads and merges the layers as a server would, and returns the digest of all.
///
/// # Errors
/// Fails if a layer cannot be read, or if the config is not valid.
pub fn check(
    config: Option<&Path>,
    store: Option<Key>,
    over: Option<&Path>,
) -> Result<String, Failure> {
    let source = ConfigSource::new(config, store)?;
    if let Some(over) = over {
        let reading = source.with_value(over.to_owned()).read();
        return reading.loaded().map(|loaded| loaded.sha256);
    }
    runtime::run(move || async move { source.read_all().await.loaded() })?
        .map(|loaded| loaded.sha256)
}

fn log_to_stderr(json: bool) -> LevelHandle {
    let (filter, handle) = reload::Layer::new(LevelFilter::INFO);
    let registry = tracing_subscriber::registry().with(filter);
    let log = if json {
        screen::Log::Json
    } else {
        screen::Log::Lines
    };
    let text = tracing_subscriber::fmt::layer()
        .with_writer(move || log)
        .with_target(false)
        .with_ansi(false);
    // A second logger in one process (a test) leaves the first in place.
    let _ = if json {
        tracing::subscriber::set_global_default(registry.with(text.json()))
    } else {
        tracing::subscriber::set_global_default(registry.with(text))
    };
    handle
}

/// Opens the config and the listener, then serves.
async fn start(
    options: Options,
    signals: ReloadSignals,
    levels: LevelHandle,
) -> Result<(), Failure> {
    let began = Instant::now();
    let source = ConfigSource::new(options.config.as_deref(), options.store)?;
    let last_good = options.last_good.as_deref().map(LastGood::open);
    let last_good = last_good.transpose()?;
    let (first, degraded) = first_config(&source, last_good.as_ref()).await?;
    let bound = options
        .listen
        .is_none()
        .then(|| first.config.listen().to_owned());
    let listen = match options.listen {
        Some(listen) => listen,
        None => first.config.listen().parse()?,
    };
    let server = Server::new(
        source,
        first,
        bound,
        options.proof,
        levels,
        signals.due,
        began,
    )?;
    if let Some(why) = degraded {
        server.degrade(why);
    }
    let wakes = coalesced(signals.wakes)?;
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let shutdown = async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    };
    let listener = Listener::bind(&listen).await?;
    announce(&listener.url()?);
    let server = Arc::new(server);
    let reloads = reloads(server.clone(), wakes, last_good);
    run(listener, server, reloads, shutdown, options.drain).await;
    Ok(())
}

/// Returns the config that the server starts with. Where the store does not give it, that is the
/// last good one, and the reason is returned too.
async fn first_config(
    source: &ConfigSource,
    last_good: Option<&LastGood>,
) -> Result<(Loaded, Option<String>), Failure> {
    let reading = if source.has_store() {
        source.read_all().await
    } else {
        source.read()
    };
    if let (
        Err(LoadError::Unread {
            origin: LayerOrigin::Url(url),
            why,
        }),
        Some(last_good),
    ) = (&reading.result, last_good)
    {
        let why = format!("{url}: {why}");
        return match last_good.load(source) {
            Ok(loaded) => Ok((loaded, Some(why))),
            Err(e) => Err(Failure::NoLastGood(why, Box::new(e))),
        };
    }
    let loaded = reading.loaded()?;
    if let (Some(last_good), Some(kept)) = (last_good, Kept::of_loaded(&loaded)) {
        last_good.keep(kept).await;
    }
    Ok((loaded, None))
}

/// Checks now and at each of `wakes` if a reload is due. Never returns while signals are caught.
async fn reloads(server: Arc<Server>, wakes: impl Stream<Item = ()>, last_good: Option<LastGood>) {
    let mut wakes = pin!(wakes);
    loop {
        server.catch_up();
        server.catch_up_with_store(last_good.as_ref()).await;
        if wakes.next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}

/// Serves until `shutdown`, beside `reloads`. Then ends within `drain`.
async fn run(
    listener: Listener,
    server: Arc<Server>,
    reloads: impl Future<Output = ()>,
    shutdown: impl Future<Output = ()>,
    drain: Duration,
) {
    let connections = Connections::new(listener, Answers::new(server.clone()));
    let mut reloads = pin!(reloads);
    let mut shutdown = pin!(shutdown);
    server.catch_up();
    notify(&[NotifyState::Ready]);
    loop {
        tokio::select! {
            accepted = connections.next() => connections.serve(accepted),
            () = &mut reloads => {}
            () = &mut shutdown => break,
        }
    }
    notify(&[NotifyState::Stopping]);
    server.drain();
    connections.drain(drain).await;
}

/// Returns one item for all signals that are pending. The file is read after the last of them, so
/// signals are coalesced and never lost.
fn coalesced(wakes: UnixStream) -> io::Result<impl Stream<Item = ()>> {
    wakes.set_nonblocking(true)?;
    let wakes = tokio::net::UnixStream::from_std(wakes)?;
    Ok(stream::unfold(wakes, async |mut wakes| {
        let mut buffer = [0u8; 64];
        // The handler keeps the other end open until the process ends.
        wakes.read(&mut buffer).await.ok().filter(|n| *n > 0)?;
        while wakes.try_read(&mut buffer).is_ok_and(|n| n > 0) {}
        Some(((), wakes))
    }))
}

/// Prints the address as the first line on stdout. The server goes on if no process reads it.
fn announce(url: &str) {
    screen::answer([screen::line(url)]);
    tracing::info!(%url, "serving");
}
