//! The config that is served, and how a reload changes it.

use std::{
    collections::BTreeMap,
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
    kernel::Proc,
    self_report::{Attempt, AttemptResult, Effective, InstanceId, SelfReport},
};

/// A handle that changes the log level of the running server.
pub(super) type LevelHandle = reload::Handle<LevelFilter, Registry>;

/// The file of the config.
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
    /// The path becomes absolute, because the self-report names it.
    pub(super) fn new(path: &Path) -> std::io::Result<Self> {
        Ok(Self(std::path::absolute(path)?))
    }

    /// Loads the config at start. An error shows the line of the file.
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

/// The state that one request sees as a whole.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) message: Bytes,
    pub(super) sha256: HeaderValue,
    pub(super) report: SelfReport,
}

/// The state of the server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) current: ArcSwap<Snapshot>,
    pub(super) instance: HeaderValue,
    pub(super) proof: Proof,
    pub(super) metrics: Metrics,
    source: ConfigSource,
    /// The `listen` of the file at start; none if the command line gives the address.
    bound: Option<String>,
    levels: LevelHandle,
    /// True if a signal came since the last reload began.
    due: Arc<AtomicBool>,
    draining: AtomicBool,
}

impl Server {
    /// Creates the state from the first config. `began` is the time when its load began; a reload
    /// must find `listen` equal to `bound`.
    pub(super) fn new(
        source: ConfigSource,
        first: Loaded,
        bound: Option<String>,
        proof: Proof,
        levels: LevelHandle,
        due: Arc<AtomicBool>,
        began: Instant,
    ) -> Result<Self, Failure> {
        // The logger of a test is another one and keeps its level.
        let _ = levels.reload(filter(first.config.log));
        let process = Proc::own().map_err(Failure::Proc)?;
        let stat = process.stat().map_err(Failure::Proc)?;
        let exe = process.link("exe").map_err(Failure::Proc)?;
        let (pid, started) = (stat.pid, stat.started);
        let now = jiff::Timestamp::now();
        let Loaded { config, sha256 } = first;
        let report = SelfReport {
            v: 1,
            instance: InstanceId {
                pid,
                started,
                exe,
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
            restart_only: restart_only(bound.as_ref()),
        };
        let snapshot = Snapshot {
            message: config.message.into(),
            sha256: value(&sha256),
            report,
        };
        Ok(Self {
            current: ArcSwap::from_pointee(snapshot),
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

    /// Tells whether the server is about to end.
    pub(super) fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Marks the server as about to end.
    pub(super) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Reloads if a signal came since the last reload began, so that a later response shows the
    /// result.
    pub(super) fn catch_up(&self) {
        // After STOPPING=1 the service manager must not receive RELOADING=1.
        if self.due.load(Ordering::Relaxed)
            && !self.draining()
            && self.due.swap(false, Ordering::AcqRel)
        {
            self.reload();
        }
    }

    /// Loads the config, then swaps one pointer. After any error the old config stays.
    fn reload(&self) {
        let began = Instant::now();
        if let Ok(reloading) = NotifyState::monotonic_usec_now() {
            notify(&[NotifyState::Reloading, reloading]);
        }
        let mut next = Snapshot::clone(&self.current.load());
        let (sha256, result, error) = self.load_into(&mut next);
        let attempt = Attempt {
            seq: next.report.last_attempt.seq + 1,
            sha256,
            result,
            error,
            at: jiff::Timestamp::now(),
            took_us: micros(began),
        };
        log_attempt(&attempt, next.report.effective.generation);
        self.metrics.reload(
            result,
            &next.report.effective.sha256,
            attempt.at,
            began.elapsed(),
        );
        let status = format!(
            "reload {}: {result:?} {}",
            attempt.seq,
            attempt.error.as_deref().unwrap_or_default()
        );
        next.report.last_attempt = attempt;
        self.current.store(Arc::new(next));
        // A rejected reload is ready too: the service manager waits for READY=1 (sd_notify(3)).
        notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
    }

    /// Loads the config into `next`, which stays as it is unless the config is applied. Returns the
    /// digest of the file, the result and the error of the attempt.
    fn load_into(&self, next: &mut Snapshot) -> (Option<String>, AttemptResult, Option<String>) {
        next.report.restart_required.clear();
        match self.source.load() {
            Err(LoadError::Read(why)) => (None, AttemptResult::IoError, Some(why.to_string())),
            Err(LoadError::Invalid { why, bytes }) => (
                Some(config::digest(&bytes)),
                AttemptResult::Rejected,
                Some(why.to_string()),
            ),
            Ok(Loaded { config, sha256 })
                if self.bound.as_deref().is_some_and(|b| b != config.listen()) =>
            {
                next.report.restart_required.push("listen".into());
                (
                    Some(sha256),
                    AttemptResult::RestartRequired,
                    Some("`listen` changed, which needs a restart".to_owned()),
                )
            }
            Ok(Loaded { sha256, .. }) if sha256 == next.report.effective.sha256 => {
                (Some(sha256), AttemptResult::Unchanged, None)
            }
            Ok(Loaded { config, sha256 }) => {
                let _ = self.levels.reload(filter(config.log));
                next.message = config.message.into();
                next.sha256 = value(&sha256);
                next.report.effective.sha256.clone_from(&sha256);
                next.report.effective.generation += 1;
                next.report.effective.loaded_at = jiff::Timestamp::now();
                (Some(sha256), AttemptResult::Applied, None)
            }
        }
    }
}

fn log_attempt(attempt: &Attempt, generation: u64) {
    let Attempt {
        seq,
        sha256,
        result,
        error,
        ..
    } = attempt;
    match error {
        None => tracing::info!(seq, ?result, sha256, generation, "reload"),
        Some(error) => {
            tracing::error!(seq, ?result, sha256, %error, "reload: the old config stays in use")
        }
    }
}

/// Returns the settings that a reload cannot change, with their values.
fn restart_only(bound: Option<&String>) -> BTreeMap<String, String> {
    bound
        .map(|listen| ("listen".to_owned(), listen.clone()))
        .into_iter()
        .collect()
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

/// Returns `text` as a header value. Digests, digits and colons are always valid.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}
