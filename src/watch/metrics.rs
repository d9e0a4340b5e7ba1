//! The metrics of the watch.

use std::{
    collections::BTreeMap,
    fmt,
    path::PathBuf,
    sync::{Mutex, PoisonError, atomic::AtomicU64},
};

use prometheus_client::{
    encoding::text,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use crate::{event::Verdict, names::json_word};

/// One label and its value.
type Label = [(&'static str, String); 1];

/// The group, the target and the digest of a proven content.
type ProvenLabels = [(&'static str, String); 3];

type Seconds = Gauge<f64, AtomicU64>;

/// The digest of each target, by its path.
pub(super) type Contents = BTreeMap<PathBuf, String>;

/// The metrics, as handles into their registry.
#[derive(Debug)]
pub(super) struct Metrics {
    registry: Registry,
    successful: Family<Label, Gauge>,
    success_at: Family<Label, Seconds>,
    attempt_at: Family<Label, Seconds>,
    runs: Family<Label, Counter>,
    proven: Family<ProvenLabels, Gauge>,
    polling: Gauge,
    /// The series of `proven`, by group.
    shown: Mutex<BTreeMap<String, Contents>>,
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut new = Self {
            registry: Registry::with_prefix("hello_watch"),
            successful: Family::default(),
            success_at: Family::default(),
            attempt_at: Family::default(),
            runs: Family::default(),
            proven: Family::default(),
            polling: Gauge::default(),
            shown: Mutex::default(),
        };
        let registry = &mut new.registry;
        registry.register(
            "last_reload_successful",
            "Whether the last run over the group proved the wanted content on every instance",
            new.successful.clone(),
        );
        registry.register_with_unit(
            "last_reload_success_timestamp",
            "Time of the last run that proved the wanted content, in Unix time",
            Unit::Seconds,
            new.success_at.clone(),
        );
        registry.register_with_unit(
            "last_attempt_timestamp",
            "Time of the last run, in Unix time",
            Unit::Seconds,
            new.attempt_at.clone(),
        );
        registry.register("runs", "Runs by verdict", new.runs.clone());
        registry.register(
            "config_info",
            "The content that every instance of the group was last proven to run",
            new.proven.clone(),
        );
        registry.register(
            "polling",
            "Whether a place is read at intervals because the kernel does not tell its changes",
            new.polling.clone(),
        );
        // Prometheus shows a rate only for a series that existed before its first event.
        for verdict in Verdict::ALL {
            let _ = new.runs.get_or_create(&[("verdict", json_word(verdict))]);
        }
        new
    }

    /// Counts a run.
    pub(super) fn run(&self, verdict: Verdict) {
        self.runs
            .get_or_create(&[("verdict", json_word(verdict))])
            .inc();
    }

    /// Records the end of a run over a group.
    pub(super) fn attempt(&self, group: &str, verdict: Verdict, at: jiff::Timestamp) {
        let group = [("group", group.to_owned())];
        let at = at.as_duration().as_secs_f64();
        let successful = verdict == Verdict::Converged;
        self.attempt_at.get_or_create(&group).set(at);
        self.successful.get_or_create(&group).set(successful.into());
        if successful {
            self.success_at.get_or_create(&group).set(at);
        }
    }

    /// Shows what every instance of a group is proven to run; nothing if that is not known.
    pub(super) fn set_proven(&self, group: &str, contents: Contents) {
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let old = shown.insert(group.into(), contents.clone());
        for (target, sha256) in old.into_iter().flatten() {
            self.proven.remove(&proven_labels(group, &target, sha256));
        }
        for (target, sha256) in contents {
            let labels = proven_labels(group, &target, sha256);
            self.proven.get_or_create(&labels).set(1);
        }
    }

    /// Removes every series of a group that is watched no longer.
    pub(super) fn forget(&self, group: &str) {
        self.set_proven(group, Contents::new());
        let label = [("group", group.to_owned())];
        self.successful.remove(&label);
        self.success_at.remove(&label);
        self.attempt_at.remove(&label);
    }

    /// Shows whether a place is read at intervals.
    pub(super) fn set_polling(&self, polling: bool) {
        self.polling.set(polling.into());
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

fn proven_labels(group: &str, target: &std::path::Path, sha256: String) -> ProvenLabels {
    [
        ("group", group.to_owned()),
        ("target", target.display().to_string()),
        ("sha256", sha256),
    ]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn only_the_present_content_of_a_group_is_shown() {
        let metrics = Metrics::new();
        for sha256 in ["aa", "bb"] {
            metrics.set_proven("web", Contents::from([("/x".into(), sha256.into())]));
        }
        let page = metrics.page().unwrap();
        let series = "hello_watch_config_info{group=\"web\",target=\"/x\",sha256=\"bb\"} 1";
        assert!(page.contains(series), "{page}");
        assert!(!page.contains("\"aa\""), "{page}");
    }

    #[test]
    fn a_failure_keeps_the_time_of_the_last_success() {
        let metrics = Metrics::new();
        let at = |second| jiff::Timestamp::from_second(second).unwrap();
        metrics.attempt("web", Verdict::Converged, at(100));
        metrics.attempt("web", Verdict::Mixed, at(200));
        let page = metrics.page().unwrap();
        for line in [
            "hello_watch_last_reload_successful{group=\"web\"} 0",
            "hello_watch_last_reload_success_timestamp_seconds{group=\"web\"} 100.0",
            "hello_watch_last_attempt_timestamp_seconds{group=\"web\"} 200.0",
        ] {
            assert!(page.contains(line), "{page}");
        }
    }

    #[test]
    fn a_group_that_is_watched_no_longer_has_no_series() {
        let metrics = Metrics::new();
        metrics.attempt("web", Verdict::Converged, jiff::Timestamp::now());
        metrics.set_proven("web", Contents::from([("/x".into(), "aa".into())]));
        metrics.forget("web");
        assert!(!metrics.page().unwrap().contains("web"));
    }
}
