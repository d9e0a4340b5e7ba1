//! The config that is served, and how a reload changes it.

use std::{
    collections::BTreeMap,
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

use super::{
    failure::Failure,
    last_good::{Kept, LastGood},
    manager::notify,
    metrics::Metrics,
    proof::Proof,
    source::{ConfigSource, LoadError, Loaded, Reading, place},
};
use crate::{
    config::Level,
    kernel::Proc,
    self_report::{Attempt, AttemptResult, Effective, InstanceId, SelfReport},
};

/// A handle that changes the log level of the running server.
pub(super) type LevelHandle = reload::Handle<LevelFilter, Registry>;

/// The state that one request sees as a whole.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    pub(super) message: Bytes,
    pub(super) sha256: HeaderValue,
    /// The digest of the file; none where that is the one above.
    pub(super) file_sha256: Option<HeaderValue>,
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
        let Loaded {
            config,
            sha256,
            layers,
        } = first;
        let layers = if source.has_store() {
            layers
        } else {
            Vec::new()
        };
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
                path: source.path(),
                layers: layers.clone(),
            },
            last_attempt: Attempt {
                seq: 1,
                sha256: Some(sha256.clone()),
                result: AttemptResult::Applied,
                error: None,
                at: now,
                took_us: micros(began),
                layers,
            },
            degraded: None,
            restart_required: Vec::new(),
            restart_only: restart_only(bound.as_ref()),
        };
        let snapshot = Snapshot {
            message: config.message.into(),
            sha256: value(&sha256),
            file_sha256: of_file(&report.effective),
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
    /// result. A config with a store is reloaded by [`Self::catch_up_with_store`] instead: no
    /// request waits for a store.
    pub(super) fn catch_up(&self) {
        if !self.source.has_store() && self.take_due() {
            let began = begin();
            self.finish(began, self.source.read());
        }
    }

    /// Reloads from the store as long as signals come. Until a reload has ended, the old config is
    /// served.
    pub(super) async fn catch_up_with_store(&self, last_good: Option<&LastGood>) {
        while self.source.has_store() && self.take_due() {
            let began = begin();
            let reading = self.source.read_all().await;
            let kept = Kept::of(&reading);
            let is_applied = self.finish(began, reading);
            if let (Some(last_good), Some(kept), true) = (last_good, kept, is_applied) {
                last_good.keep(kept).await;
            }
        }
    }

    /// Returns true if a signal came since the last reload began.
    fn take_due(&self) -> bool {
        // After STOPPING=1 the service manager must not receive RELOADING=1.
        self.due.load(Ordering::Relaxed)
            && !self.draining()
            && self.due.swap(false, Ordering::AcqRel)
    }

    /// Says that the config is the one that an earlier process was the last to apply.
    pub(super) fn degrade(&self, why: String) {
        let mut next = Snapshot::clone(&self.current.load());
        tracing::error!(%why, "degraded: the last good config is served");
        notify(&[NotifyState::Status(&format!("degraded: {why}"))]);
        next.report.degraded = Some(why);
        self.metrics.set_degraded(true);
        self.current.store(Arc::new(next));
    }

    /// Takes over what a reload that began at `began` has read: swaps one pointer. After any error
    /// the old config stays. Returns true if the config is the one that was read.
    fn finish(&self, began: Instant, reading: Reading) -> bool {
        let mut next = Snapshot::clone(&self.current.load());
        let layers = if self.source.has_store() {
            reading.layers.clone()
        } else {
            Vec::new()
        };
        let sha256 = reading.sha256.clone();
        let (result, error) = self.load_into(&mut next, reading);
        let attempt = Attempt {
            seq: next.report.last_attempt.seq + 1,
            sha256,
            result,
            error,
            at: jiff::Timestamp::now(),
            took_us: micros(began),
            layers,
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
        matches!(result, AttemptResult::Applied | AttemptResult::Unchanged)
    }

    /// Loads what was read into `next`, which stays as it is unless the config is applied. Returns
    /// the result and the error of the attempt.
    fn load_into(&self, next: &mut Snapshot, reading: Reading) -> (AttemptResult, Option<String>) {
        next.report.restart_required.clear();
        let config = match reading.result {
            Ok(config) => config,
            Err(LoadError::Unread { origin, why }) => {
                let why = if self.source.has_store() {
                    format!("{}: {why}", place(&origin))
                } else {
                    why
                };
                return (AttemptResult::IoError, Some(why));
            }
            Err(LoadError::Invalid { text, .. }) => return (AttemptResult::Rejected, Some(text)),
        };
        if self.bound.as_deref().is_some_and(|b| b != config.listen()) {
            next.report.restart_required.push("listen".into());
            let why = "`listen` changed, which needs a restart".to_owned();
            return (AttemptResult::RestartRequired, Some(why));
        }
        next.report.degraded = None;
        self.metrics.set_degraded(false);
        let sha256 = reading.sha256.unwrap_or_default();
        if self.source.has_store() {
            // The same content may stand at another revision.
            next.report.effective.layers = reading.layers;
        }
        if sha256 == next.report.effective.sha256 {
            return (AttemptResult::Unchanged, None);
        }
        let _ = self.levels.reload(filter(config.log));
        next.message = config.message.into();
        next.sha256 = value(&sha256);
        next.report.effective.sha256 = sha256;
        next.report.effective.generation += 1;
        next.report.effective.loaded_at = jiff::Timestamp::now();
        next.file_sha256 = of_file(&next.report.effective);
        (AttemptResult::Applied, None)
    }
}

/// Tells the service manager that a reload begins, and returns the time.
fn begin() -> Instant {
    let began = Instant::now();
    if let Ok(reloading) = NotifyState::monotonic_usec_now() {
        notify(&[NotifyState::Reloading, reloading]);
    }
    began
}

/// Returns the digest of the file where it is another one than that of the whole config.
fn of_file(effective: &Effective) -> Option<HeaderValue> {
    let file = effective.of_file();
    (file != effective.sha256).then(|| value(file))
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
