//! What is counted, and its page: `GET /-/metrics`.

use std::{fmt, sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::text,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

use crate::self_report::AttemptResult;

/// What the page is.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One label and its value.
type Label<T> = [(&'static str, T); 1];

/// Handles into the registry: to count is one atomic addition.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    requests: Counter,
    info: Family<Label<String>, Gauge>,
    reloads: Family<Label<&'static str>, Counter>,
    successful: Gauge,
    success_at: Gauge<f64, AtomicU64>,
    took: Histogram,
}

impl Metrics {
    /// A server that has just loaded its first config; the start is no reload.
    pub(super) fn new(sha256: &str, at: jiff::Timestamp) -> Self {
        // 0.1 ms to 1.6 s.
        let took = Histogram::new(exponential_buckets(0.0001, 4.0, 8));
        let mut new = Self {
            registry: Registry::with_prefix("hello"),
            requests: Counter::default(),
            info: Family::default(),
            reloads: Family::default(),
            successful: Gauge::default(),
            success_at: Gauge::default(),
            took,
        };
        let registry = &mut new.registry;
        registry.register("config_info", "The config that is served", new.info.clone());
        registry.register(
            "config_last_reload_successful",
            "Whether what the last reload found is served",
            new.successful.clone(),
        );
        let help = "When a load was successful last, in Unix time";
        registry.register_with_unit(
            "config_last_reload_success_timestamp",
            help,
            Unit::Seconds,
            new.success_at.clone(),
        );
        registry.register(
            "config_reloads",
            "Reloads by their result",
            new.reloads.clone(),
        );
        registry.register_with_unit(
            "config_reload_duration",
            "From the signal to the swap or the refusal",
            Unit::Seconds,
            new.took.clone(),
        );
        registry.register(
            "http_requests",
            "Requests, refused ones too",
            new.requests.clone(),
        );
        // A rate can only be seen of a series that was there before its first event.
        for result in [
            AttemptResult::Applied,
            AttemptResult::Unchanged,
            AttemptResult::Rejected,
            AttemptResult::RestartRequired,
            AttemptResult::IoError,
        ] {
            let _ = new.reloads.get_or_create(&label(result));
        }
        new.successful.set(1);
        new.serves(sha256, at);
        new
    }

    /// A request came.
    pub(super) fn request(&self) {
        self.requests.inc();
    }

    /// A reload ended; `sha256` is what is served after it.
    pub(super) fn reload(
        &self,
        result: AttemptResult,
        sha256: &str,
        at: jiff::Timestamp,
        took: Duration,
    ) {
        self.reloads.get_or_create(&label(result)).inc();
        self.took.observe(took.as_secs_f64());
        let successful = matches!(result, AttemptResult::Applied | AttemptResult::Unchanged);
        self.successful.set(successful.into());
        if successful {
            self.serves(sha256, at);
        }
    }

    fn serves(&self, sha256: &str, at: jiff::Timestamp) {
        self.info.clear();
        self.info
            .get_or_create(&[("sha256", sha256.to_owned())])
            .set(1);
        self.success_at.set(at.as_duration().as_secs_f64());
    }

    /// The page, as OpenMetrics text.
    ///
    /// # Errors
    /// None that is known: it is written to memory.
    pub(super) fn page(&self) -> Result<String, fmt::Error> {
        let mut page = String::with_capacity(4096);
        text::encode(&mut page, &self.registry)?;
        Ok(page)
    }
}

/// The name that `/-/config` uses, too.
fn label(result: AttemptResult) -> Label<&'static str> {
    let name = match result {
        AttemptResult::Applied => "applied",
        AttemptResult::Unchanged => "unchanged",
        AttemptResult::Rejected => "rejected",
        AttemptResult::RestartRequired => "restart_required",
        AttemptResult::IoError => "io_error",
    };
    [("result", name)]
}
