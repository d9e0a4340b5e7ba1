//! The metrics of the server, and their page `GET /-/metrics`.

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

/// The content type of the page.
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// One label and its value.
type Label<T> = [(&'static str, T); 1];

/// The metrics, as handles into their registry. Counting is one atomic addition.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    requests: Counter,
    info: Family<Label<String>, Gauge>,
    reloads: Family<Label<&'static str>, Counter>,
    successful: Gauge,
    degraded: Gauge,
    success_at: Gauge<f64, AtomicU64>,
    took: Histogram,
}

impl Metrics {
    /// Creates the metrics of a server that has loaded its first config; the start is not a reload.
    pub(super) fn new(sha256: &str, at: jiff::Timestamp) -> Self {
        // The bounds are 0.1 ms to 1.6 s.
        let took = Histogram::new(exponential_buckets(0.0001, 4.0, 8));
        let mut new = Self {
            registry: Registry::with_prefix("hello"),
            requests: Counter::default(),
            info: Family::default(),
            reloads: Family::default(),
            successful: Gauge::default(),
            degraded: Gauge::default(),
            success_at: Gauge::default(),
            took,
        };
        let registry = &mut new.registry;
        registry.register("config_info", "The config that is served", new.info.clone());
        registry.register(
            "config_last_reload_successful",
            "Whether the server serves the config that the last reload read",
            new.successful.clone(),
        );
        registry.register(
            "config_degraded",
            "Whether the config is that of an earlier process",
            new.degraded.clone(),
        );
        let help = "Time of the last successful load, in Unix time";
        registry.register_with_unit(
            "config_last_reload_success_timestamp",
            help,
            Unit::Seconds,
            new.success_at.clone(),
        );
        registry.register("config_reloads", "Reloads by result", new.reloads.clone());
        registry.register_with_unit(
            "config_reload_duration",
            "Time from the signal to the swap or the rejection",
            Unit::Seconds,
            new.took.clone(),
        );
        registry.register(
            "http_requests",
            "Requests, including refused ones",
            new.requests.clone(),
        );
        // Prometheus shows a rate only for a series that existed before its first event.
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
        new.set_served(sha256, at);
        new
    }

    /// Counts a request.
    pub(super) fn request(&self) {
        self.requests.inc();
    }

    /// Records whether the server serves the config of an earlier process.
    pub(super) fn set_degraded(&self, is_degraded: bool) {
        self.degraded.set(is_degraded.into());
    }

    /// Records a reload; `sha256` is the digest that is served after it.
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
            self.set_served(sha256, at);
        }
    }

    fn set_served(&self, sha256: &str, at: jiff::Timestamp) {
        self.info.clear();
        self.info
            .get_or_create(&[("sha256", sha256.to_owned())])
            .set(1);
        self.success_at.set(at.as_duration().as_secs_f64());
    }

    /// Returns the page as OpenMetrics text.
    ///
    /// # Errors
    /// Fails if the encoder fails; it writes to memory.
    pub(super) fn page(&self) -> Result<String, fmt::Error> {
        let mut page = String::with_capacity(4096);
        text::encode(&mut page, &self.registry)?;
        Ok(page)
    }
}

/// Returns the label of a result: the name that `/-/config` uses.
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
