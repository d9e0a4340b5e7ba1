//! `hello serve`: answers HTTP with the message of its config, and swaps that config on SIGHUP
//! without dropping a request.

use std::{
    io,
    os::unix::net::UnixStream,
    path::PathBuf,
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
    connections::Connections,
    listener::Listener,
    manager::notify,
    state::{ConfigSource, LevelHandle, Server},
};
pub use self::{failure::Failure, proof::Proof};
use crate::{config::Listen, runtime, screen};

mod answer;
mod connections;
mod failure;
mod listener;
mod manager;
mod metrics;
mod proof;
mod seats;
mod state;

/// Checked options.
#[derive(Debug, Clone)]
pub struct Options {
    /// The config file.
    pub config: PathBuf,
    /// Wins over the file.
    pub listen: Option<Listen>,
    /// Longest that open requests are waited for at the end.
    pub drain: Duration,
    /// Who sees the proof.
    pub proof: Proof,
    /// JSON instead of lines for people.
    pub log_json: bool,
}

/// The SIGHUPs that this process takes.
#[derive(Debug)]
pub struct Hangups {
    /// One came since the last reload began.
    due: Arc<AtomicBool>,
    /// Readable after each.
    wakes: UnixStream,
}

impl Hangups {
    /// Takes them from now on. Until then one ends the process: nothing comes before this.
    ///
    /// # Errors
    /// The system's.
    pub fn catch() -> io::Result<Self> {
        let (wakes, wake) = UnixStream::pair()?;
        let due = Arc::new(AtomicBool::new(false));
        // In this order: whoever is woken finds it due.
        signal_hook::flag::register(SIGHUP, due.clone())?;
        signal_hook::low_level::pipe::register(SIGHUP, wake)?;
        // A parent may have left the signal blocked; the handlers above have replaced an inherited
        // ignore.
        let _ = SigSet::from(Signal::SIGHUP).thread_unblock();
        Ok(Self { due, wakes })
    }
}

/// Serves until SIGTERM or SIGINT, and reloads at `hangups`.
///
/// # Errors
/// See [`Failure`].
pub fn main(options: Options, hangups: Hangups) -> Result<(), Failure> {
    let levels = log_to_stderr(options.log_json);
    runtime::run(move || start(options, hangups, levels))?
}

fn log_to_stderr(json: bool) -> LevelHandle {
    let (filter, handle) = reload::Layer::new(LevelFilter::INFO);
    let registry = tracing_subscriber::registry().with(filter);
    let log = if json {
        screen::Log::Json
    } else {
        screen::Log::Lines
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(move || log)
        .with_target(false)
        .with_ansi(false);
    // A second logger in one process (a test) leaves the first in place.
    let _ = if json {
        tracing::subscriber::set_global_default(registry.with(lines.json()))
    } else {
        tracing::subscriber::set_global_default(registry.with(lines))
    };
    handle
}

/// Opens everything, then runs.
async fn start(options: Options, hangups: Hangups, levels: LevelHandle) -> Result<(), Failure> {
    let began = Instant::now();
    let source = ConfigSource::new(&options.config)?;
    let first = source.first()?;
    let bound = options
        .listen
        .is_none()
        .then(|| first.config.listen().to_owned());
    let listen = match options.listen {
        Some(listen) => listen,
        None => first.config.listen().parse().map_err(Failure::Invalid)?,
    };
    let server = Server::new(
        source,
        first,
        bound,
        options.proof,
        levels,
        hangups.due,
        began,
    )?;
    let wakes = coalesced(hangups.wakes)?;
    let (mut term, mut int) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let shutdown = async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
    };
    let listener = Listener::bind(&listen).await?;
    announce(&listener.url()?);
    run(listener, Arc::new(server), wakes, shutdown, options.drain).await;
    Ok(())
}

/// Serves until `shutdown`, reloading whenever `wakes` says that it may be due; then ends within
/// `drain`.
async fn run(
    listener: Listener,
    server: Arc<Server>,
    wakes: impl Stream<Item = ()>,
    shutdown: impl Future<Output = ()>,
    drain: Duration,
) {
    let connections = Connections::new(listener, Answers::new(server.clone()));
    let (mut wakes, mut shutdown) = (pin!(wakes.fuse()), pin!(shutdown));
    server.catch_up();
    notify(&[NotifyState::Ready]);
    loop {
        tokio::select! {
            accepted = connections.next() => connections.serve(accepted),
            Some(()) = wakes.next() => server.catch_up(),
            () = &mut shutdown => break,
        }
    }
    notify(&[NotifyState::Stopping]);
    server.drain();
    connections.drain(drain).await;
}

/// All signals that are pending are taken first and the file is read after the last of them:
/// coalesced, never dropped.
fn coalesced(wakes: UnixStream) -> io::Result<impl Stream<Item = ()>> {
    wakes.set_nonblocking(true)?;
    let wakes = tokio::net::UnixStream::from_std(wakes)?;
    Ok(stream::unfold(wakes, async |mut wakes| {
        let mut buffer = [0u8; 64];
        // The other end lives in the handler, as long as the process.
        wakes.read(&mut buffer).await.ok().filter(|n| *n > 0)?;
        while wakes.try_read(&mut buffer).is_ok_and(|n| n > 0) {}
        Some(((), wakes))
    }))
}

/// The first line on stdout: where it serves. Nobody has to read it.
fn announce(url: &str) {
    screen::answer([screen::line(url)]);
    tracing::info!(%url, "serving");
}
