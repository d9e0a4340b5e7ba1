//! `hello serve`: answers HTTP with the message of its config, and swaps that config on SIGHUP without dropping a request.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use axum::{
    Router,
    extract::{ConnectInfo, Extension, Request, State, connect_info::Connected},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
    serve::IncomingStream,
};
use sd_notify::NotifyState;
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, UnixListener},
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use tracing_subscriber::{Registry, filter::LevelFilter, layer::SubscriberExt, reload};

use crate::{
    config::{self, Config, Level, Listen, MAX_CONFIG, ReadError},
    fault::Fault,
    told::{Attempt, AttemptResult, Effective, InstanceId, Told, X_CONFIG_GENERATION, X_CONFIG_SHA256, X_INSTANCE},
};

/// Why the server could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The config at start cannot be read.
    #[error("cannot read the config `{0}`: {1}")]
    Unreadable(PathBuf, ReadError),
    /// The config at start is none.
    #[error("the config is not valid\n{0}")]
    Invalid(String),
    /// The address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(String, io::Error),
    /// The system said no.
    #[error("cannot serve: {0}")]
    Io(#[from] io::Error),
    /// `/proc` does not tell who this process is.
    #[error("cannot read /proc/self: {0}")]
    Proc(#[from] procfs::ProcError),
}

/// Who sees the proof headers and `/-/*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Peers on loopback or a Unix socket.
    Loopback,
    /// Everybody.
    Any,
}

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

/// Where the config comes from: a file.
#[derive(Debug, Clone)]
pub struct ConfigSource(PathBuf);

impl ConfigSource {
    fn load(&self) -> (Option<String>, Result<Config, LoadError>) {
        match config::read(&self.0, MAX_CONFIG) {
            Err(ReadError::Io(e)) => (None, Err(LoadError::Io(e.to_string()))),
            Err(e) => (None, Err(LoadError::Io(e.to_string()))),
            Ok(bytes) => (Some(config::digest(&bytes)), config::parse(&bytes).map_err(LoadError::Invalid)),
        }
    }
}

enum LoadError {
    Io(String),
    Invalid(Fault),
}

/// What one request sees, whole.
#[derive(Debug, Clone)]
struct Snapshot {
    message: Arc<str>,
    sha256: HeaderValue,
    told: Told,
}

#[derive(Debug)]
struct Server {
    now: ArcSwap<Snapshot>,
    instance: HeaderValue,
    source: ConfigSource,
    /// The `listen` of the file at start; none where the command line decides.
    bound: Option<String>,
    proof: Proof,
    draining: watch::Receiver<bool>,
}

/// Serves until SIGTERM or SIGINT; `hangups` is readable after every SIGHUP.
///
/// # Errors
/// See [`Failure`].
pub fn main(options: Options, hangups: UnixStream) -> Result<(), Failure> {
    let levels = log_to_stderr(options.log_json);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run(options, hangups, levels))
}

/// Changes what is logged while it runs.
type LevelHandle = reload::Handle<LevelFilter, Registry>;

fn log_to_stderr(json: bool) -> LevelHandle {
    let (filter, handle) = reload::Layer::new(LevelFilter::INFO);
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_target(false).with_ansi(false);
    // A second logger in one process (a test) leaves the first in place.
    let _ =
        if json { tracing::subscriber::set_global_default(registry.with(lines.json())) } else { tracing::subscriber::set_global_default(registry.with(lines)) };
    handle
}

fn filter(level: Level) -> LevelFilter {
    match level {
        Level::Off => LevelFilter::OFF,
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}

async fn run(options: Options, hangups: UnixStream, levels: LevelHandle) -> Result<(), Failure> {
    let began = Instant::now();
    let source = ConfigSource(std::path::absolute(&options.config)?);
    let bytes = config::read(&source.0, MAX_CONFIG).map_err(|e| Failure::Unreadable(source.0.clone(), e))?;
    let first = config::parse(&bytes).map_err(|e| Failure::Invalid(e.render(&source.0, &bytes)))?;
    // A logger that is not ours (a test's) keeps its own level.
    let _ = levels.reload(filter(first.log));
    let (tell, draining) = watch::channel(false);
    let bound = options.listen.is_none().then(|| listen_of(&first).to_owned());
    let listen = match options.listen {
        Some(listen) => listen,
        None => listen_of(&first).parse().map_err(|e: String| Failure::Invalid(e))?,
    };
    let server = Arc::new(Server::new(source, first, &config::digest(&bytes), bound, options.proof, draining.clone(), began)?);
    let app = router(server.clone());
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    hangups.set_nonblocking(true)?;
    let mut hangups = tokio::net::UnixStream::from_std(hangups)?;

    let mut stop = draining;
    let stopped = async move { drop(stop.wait_for(|d| *d).await) };
    let failed = |e| Failure::Listen(format!("{listen:?}"), e);
    let serving: std::pin::Pin<Box<dyn Future<Output = io::Result<()>>>> = match &listen {
        Listen::Tcp(address) => {
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            announce(&format!("http://{}/", listener.local_addr()?));
            Box::pin(axum::serve(listener, app.into_make_service_with_connect_info::<Peer>()).with_graceful_shutdown(stopped).into_future())
        }
        Listen::Unix(path) => {
            // A socket file that nobody listens on any more is left from an earlier life.
            if std::os::unix::net::UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused) {
                std::fs::remove_file(path)?;
            }
            let listener = UnixListener::bind(path).map_err(failed)?;
            announce(&format!("unix:{}", path.display()));
            Box::pin(axum::serve(listener, app.into_make_service_with_connect_info::<Peer>()).with_graceful_shutdown(stopped).into_future())
        }
    };
    notify(&[NotifyState::Ready]);
    tokio::pin!(serving);
    let mut buffer = [0u8; 64];
    loop {
        tokio::select! {
            ended = &mut serving => return ended.map_err(Into::into),
            // All pending signals are taken first and the file is read after the last of them: coalesced, never dropped.
            read = hangups.read(&mut buffer) => {
                read?;
                while hangups.try_read(&mut buffer).is_ok_and(|n| n > 0) {}
                server.reload(&levels);
            }
            _ = term.recv() => break,
            _ = int.recv() => break,
        }
    }
    notify(&[NotifyState::Stopping]);
    tell.send_replace(true);
    // Past the limit the connections that are left are closed with the process.
    let _ = tokio::time::timeout(options.drain, serving).await;
    if let Listen::Unix(path) = &listen {
        let _ = std::fs::remove_file(path);
    }
    Ok(())
}

/// The first line on stdout: where it serves. Nobody has to read it.
fn announce(url: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{url}").and_then(|()| out.flush());
    tracing::info!(%url, "serving");
}

/// Without a service manager there is nobody to tell.
fn notify(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}

fn listen_of(config: &Config) -> &str {
    config.listen()
}

impl Server {
    fn new(
        source: ConfigSource,
        config: Config,
        sha256: &str,
        bound: Option<String>,
        proof: Proof,
        draining: watch::Receiver<bool>,
        began: Instant,
    ) -> Result<Self, Failure> {
        let me = procfs::process::Process::myself()?;
        let (pid, started) = (me.pid, me.stat()?.starttime);
        let now = jiff::Timestamp::now();
        let told = Told {
            v: 1,
            instance: InstanceId { pid, started, exe: me.exe()?, version: env!("CARGO_PKG_VERSION").into() },
            effective: Effective { sha256: sha256.into(), generation: 1, loaded_at: now, path: source.0.clone() },
            last_attempt: Attempt { seq: 1, sha256: Some(sha256.into()), result: AttemptResult::Applied, error: None, at: now, took_us: micros(began) },
            restart_required: Vec::new(),
            restart_only: bound.iter().map(|l| ("listen".to_owned(), l.clone())).collect::<BTreeMap<_, _>>(),
        };
        let snapshot = Snapshot { message: config.message.into(), sha256: value(sha256), told };
        Ok(Self { now: ArcSwap::from_pointee(snapshot), instance: value(&format!("{pid}:{started}")), source, bound, proof, draining })
    }

    /// Reads and checks aside, then swaps one pointer; whatever is wrong, the old config is served on.
    fn reload(&self, levels: &LevelHandle) {
        let began = Instant::now();
        if let Ok(reloading) = NotifyState::monotonic_usec_now() {
            notify(&[NotifyState::Reloading, reloading]);
        }
        let (sha256, loaded) = self.source.load();
        let mut next = Snapshot::clone(&self.now.load());
        next.told.restart_required.clear();
        let (result, error) = match loaded {
            Err(LoadError::Io(why)) => (AttemptResult::IoError, Some(why)),
            Err(LoadError::Invalid(e)) => (AttemptResult::Rejected, Some(e.to_string())),
            Ok(config) if self.bound.as_deref().is_some_and(|b| b != listen_of(&config)) => {
                next.told.restart_required.push("listen".into());
                (AttemptResult::RestartRequired, Some("`listen` changed, which needs a restart".to_owned()))
            }
            Ok(_) if sha256.as_deref() == Some(&next.told.effective.sha256) => (AttemptResult::Unchanged, None),
            Ok(config) => {
                let _ = levels.reload(filter(config.log));
                next.message = config.message.into();
                next.sha256 = value(sha256.as_deref().unwrap_or_default());
                next.told.effective.sha256 = sha256.clone().unwrap_or_default();
                next.told.effective.generation += 1;
                next.told.effective.loaded_at = jiff::Timestamp::now();
                (AttemptResult::Applied, None)
            }
        };
        let seq = next.told.last_attempt.seq + 1;
        let status = format!("reload {seq}: {result:?} {}", error.as_deref().unwrap_or_default());
        match &error {
            None => tracing::info!(seq, ?result, sha256, generation = next.told.effective.generation, "reload"),
            Some(error) => tracing::error!(seq, ?result, sha256, %error, "reload: the old config is served on"),
        }
        next.told.last_attempt = Attempt { seq, sha256, result, error, at: jiff::Timestamp::now(), took_us: micros(began) };
        self.now.store(Arc::new(next));
        // Always, on refusal too: a manager that waits for it would wait for ever.
        notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
    }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Digits, hex and a colon: always a header value.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

#[derive(Debug, Clone, Copy)]
struct Peer {
    loopback: bool,
}

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        let remote: &SocketAddr = stream.remote_addr();
        Self { loopback: remote.ip().to_canonical().is_loopback() }
    }
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(_: IncomingStream<'_, UnixListener>) -> Self {
        Self { loopback: true }
    }
}

fn router(server: Arc<Server>) -> Router {
    Router::new()
        .route("/", get(message))
        .route("/-/config", get(told))
        .route("/-/healthy", get(healthy))
        .layer(middleware::from_fn_with_state(server.clone(), prove))
        .with_state(server)
}

/// One snapshot per request: its headers and its body cannot disagree.
async fn prove(State(server): State<Arc<Server>>, ConnectInfo(peer): ConnectInfo<Peer>, mut request: Request, next: Next) -> Response {
    let snapshot = server.now.load_full();
    let forwarded = ["forwarded", "x-forwarded-for"].iter().any(|h| request.headers().contains_key(*h));
    let trusted = peer.loopback || server.proof == Proof::Any;
    if request.uri().path().starts_with("/-/") && (!trusted || (forwarded && server.proof != Proof::Any)) {
        return (StatusCode::FORBIDDEN, "only for direct loopback peers; see --proof\n").into_response();
    }
    request.extensions_mut().insert(snapshot.clone());
    let mut response = next.run(request).await;
    if trusted {
        let headers = response.headers_mut();
        headers.insert(HeaderName::from_static(X_CONFIG_SHA256), snapshot.sha256.clone());
        headers.insert(HeaderName::from_static(X_CONFIG_GENERATION), snapshot.told.effective.generation.into());
        headers.insert(HeaderName::from_static(X_INSTANCE), server.instance.clone());
    }
    response
}

async fn message(Extension(snapshot): Extension<Arc<Snapshot>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], snapshot.message.to_string()).into_response()
}

async fn told(Extension(snapshot): Extension<Arc<Snapshot>>) -> Response {
    axum::Json(snapshot.told.clone()).into_response()
}

async fn healthy(State(server): State<Arc<Server>>) -> StatusCode {
    if *server.draining.borrow() { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }
}
