//! What is served now, and how a reload changes it.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use arc_swap::ArcSwap;
use axum::{body::Bytes, http::HeaderValue};
use sd_notify::NotifyState;
use tracing_subscriber::{Registry, filter::LevelFilter, reload};

use super::{failure::Failure, manager::notify, metrics::Metrics, proof::Proof};
use crate::{
    config::{self, Config, Level, MAX_CONFIG, ReadError},
    diagnostic::ConfigError,
    self_report::{Attempt, AttemptResult, Effective, InstanceId, SelfReport},
};

/// Changes what is logged while it runs.
pub(super) type LevelHandle = reload::Handle<LevelFilter, Registry>;

/// Where the config comes from: a file.
#[derive(Debug, Clone)]
pub(super) struct ConfigSource(PathBuf);

/// A config, and the digest of the bytes that it was parsed from.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) config: Config,
    sha256: String,
}

enum LoadError {
    Read(ReadError),
    Invalid {
        why: Box<ConfigError>,
        bytes: Vec<u8>,
    },
}

impl ConfigSource {
    /// The path is made absolute: it is told to others.
    pub(super) fn new(path: &Path) -> std::io::Result<Self> {
        Ok(Self(std::path::absolute(path)?))
    }

    /// At start, where a fault is shown with its place.
    pub(super) fn first(&self) -> Result<Loaded, Failure> {
        self.load().map_err(|e| match e {
            LoadError::Read(e) => Failure::Unreadable(self.0.clone(), e),
            LoadError::Invalid { why, bytes } => Failure::Invalid(why.render(&self.0, &bytes)),
        })
    }

    fn load(&self) -> Result<Loaded, LoadError> {
        let bytes = config::read(&self.0, MAX_CONFIG).map_err(LoadError::Read)?;
        match config::parse(&bytes) {
            Ok(config) => Ok(Loaded {
                config,
                sha256: config::digest(&bytes),
            }),
            Err(why) => Err(LoadError::Invalid {
                why: why.into(),
                bytes,
            }),
        }
    }
}

/// What one request sees, whole.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) message: Bytes,
    pub(super) sha256: HeaderValue,
    pub(super) told: SelfReport,
}

/// One server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) now: ArcSwap<Snapshot>,
    pub(super) instance: HeaderValue,
    pub(super) proof: Proof,
    pub(super) metrics: Metrics,
    source: ConfigSource,
    /// The `listen` of the file at start; none where the command line decides.
    bound: Option<String>,
    levels: LevelHandle,
    /// A signal came since the last reload began.
    due: Arc<AtomicBool>,
    draining: AtomicBool,
}

impl Server {
    /// `began` is when the first load did; `bound` is the `listen` that a reload must find again.
    pub(super) fn new(
        source: ConfigSource,
        first: Loaded,
        bound: Option<String>,
        proof: Proof,
        levels: LevelHandle,
        due: Arc<AtomicBool>,
        began: Instant,
    ) -> Result<Self, procfs::ProcError> {
        // A logger that is not ours (a test's) keeps its own level.
        let _ = levels.reload(filter(first.config.log));
        let me = procfs::process::Process::myself()?;
        let (pid, started) = (me.pid, me.stat()?.starttime);
        let now = jiff::Timestamp::now();
        let Loaded { config, sha256 } = first;
        let told = SelfReport {
            v: 1,
            instance: InstanceId {
                pid,
                started,
                exe: me.exe()?,
                version: env!("CARGO_PKG_VERSION").into(),
            },
            effective: Effective {
                sha256: sha256.clone(),
                generation: 1,
                loaded_at: now,
                path: source.0.clone(),
            },
            last_attempt: Attempt {
                seq: 1,
                sha256: Some(sha256.clone()),
                result: AttemptResult::Applied,
                error: None,
                at: now,
                took_us: micros(began),
            },
            restart_required: Vec::new(),
            restart_only: bound
                .iter()
                .map(|l| ("listen".to_owned(), l.clone()))
                .collect(),
        };
        let snapshot = Snapshot {
            message: config.message.into(),
            sha256: value(&sha256),
            told,
        };
        Ok(Self {
            now: ArcSwap::from_pointee(snapshot),
            instance: value(&format!("{pid}:{started}")),
            proof,
            metrics: Metrics::new(&sha256, now),
            source,
            bound,
            levels,
            due,
            draining: AtomicBool::new(false),
        })
    }

    /// Whether it is about to end.
    pub(super) fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// From now on it says that it is about to end.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Reloads if a signal came since the last reload began: an answer that is made after it says
    /// what it brought.
    pub(super) fn catch_up(&self) {
        // Who is about to end has told its manager so, and a reload would tell it otherwise.
        if self.due.load(Ordering::Relaxed)
            && !self.draining()
            && self.due.swap(false, Ordering::AcqRel)
        {
            self.reload();
        }
    }

    /// Reads and checks aside, then swaps one pointer; whatever is wrong, the old config is served
    /// on.
    fn reload(&self) {
        let began = Instant::now();
        if let Ok(reloading) = NotifyState::monotonic_usec_now() {
            notify(&[NotifyState::Reloading, reloading]);
        }
        let mut next = Snapshot::clone(&self.now.load());
        next.told.restart_required.clear();
        let (sha256, result, error) = match self.source.load() {
            Err(LoadError::Read(why)) => (None, AttemptResult::IoError, Some(why.to_string())),
            Err(LoadError::Invalid { why, bytes }) => (
                Some(config::digest(&bytes)),
                AttemptResult::Rejected,
                Some(why.to_string()),
            ),
            Ok(Loaded { config, sha256 })
                if self.bound.as_deref().is_some_and(|b| b != config.listen()) =>
            {
                next.told.restart_required.push("listen".into());
                (
                    Some(sha256),
                    AttemptResult::RestartRequired,
                    Some("`listen` changed, which needs a restart".to_owned()),
                )
            }
            Ok(Loaded { sha256, .. }) if sha256 == next.told.effective.sha256 => {
                (Some(sha256), AttemptResult::Unchanged, None)
            }
            Ok(Loaded { config, sha256 }) => {
                let _ = self.levels.reload(filter(config.log));
                next.message = config.message.into();
                next.sha256 = value(&sha256);
                next.told.effective.sha256.clone_from(&sha256);
                next.told.effective.generation += 1;
                next.told.effective.loaded_at = jiff::Timestamp::now();
                (Some(sha256), AttemptResult::Applied, None)
            }
        };
        let seq = next.told.last_attempt.seq + 1;
        let status = format!(
            "reload {seq}: {result:?} {}",
            error.as_deref().unwrap_or_default()
        );
        match &error {
            None => tracing::info!(
                seq,
                ?result,
                sha256,
                generation = next.told.effective.generation,
                "reload"
            ),
            Some(error) => {
                tracing::error!(seq, ?result, sha256, %error, "reload: the old config is served on")
            }
        }
        let at = jiff::Timestamp::now();
        self.metrics
            .reload(result, &next.told.effective.sha256, at, began.elapsed());
        next.told.last_attempt = Attempt {
            seq,
            sha256,
            result,
            error,
            at,
            took_us: micros(began),
        };
        self.now.store(Arc::new(next));
        // Always, on refusal too: a manager that waits for it would wait for ever.
        notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
    }
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

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Digits, hex and a colon: always a header value.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}
