//! The self-report of an instance: the JSON that `serve` answers with and a probe reads.
use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

/// Digest of the bytes that the served config was parsed from.
pub(crate) const X_CONFIG_SHA256: &str = "x-config-sha256";
/// Digest of the file's bytes, where the served config has another layer as well.
pub(crate) const X_CONFIG_FILE_SHA256: &str = "x-config-file-sha256";
/// Rises with every applied config.
pub(crate) const X_CONFIG_GENERATION: &str = "x-config-generation";
/// `PID:START-TICKS` of the process that answers.
pub(crate) const X_INSTANCE: &str = "x-instance";

/// The answer to `GET /-/config`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SelfReport {
    pub v: u32,
    pub instance: InstanceId,
    pub effective: Effective,
    pub last_attempt: Attempt,
    /// Why the config is that of an earlier process, where the store did not answer at the start.
    #[serde(default)]
    pub degraded: Option<String>,
    pub restart_required: Vec<String>,
    pub restart_only: BTreeMap<String, String>,
}

/// Why an answer is not a self-report.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoSelfReport {
    /// It is not the JSON of a self-report.
    #[error("{0}")]
    Shape(#[from] serde_json::Error),
    /// A digest is not valid.
    #[error("`{0}` is not 64 lower-case hex digits")]
    Digest(&'static str),
}

impl SelfReport {
    /// Reads the answer to `GET /-/config`.
    ///
    /// # Errors
    /// Fails if it is no such answer.
    pub(crate) fn read(body: &[u8]) -> Result<Self, NoSelfReport> {
        let report: Self = serde_json::from_slice(body)?;
        if !is_digest(&report.effective.sha256) {
            return Err(NoSelfReport::Digest("effective.sha256"));
        }
        match &report.last_attempt.sha256 {
            Some(sha256) if !is_digest(sha256) => Err(NoSelfReport::Digest("last_attempt.sha256")),
            _ => Ok(report),
        }
    }
}

/// Tells whether `text` is a SHA-256 in lower-case hex.
#[must_use]
pub(crate) fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Tells whether `text` is the `PID:START-TICKS` of a process.
#[must_use]
pub(crate) fn is_instance(text: &str) -> bool {
    let digits = |text: &str| {
        !text.is_empty() && text.len() <= 20 && text.bytes().all(|b| b.is_ascii_digit())
    };
    text.split_once(':')
        .is_some_and(|(pid, started)| digits(pid) && digits(started))
}

/// The process that answers; `started` is in clock ticks since boot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct InstanceId {
    pub pid: i32,
    pub started: u64,
    #[serde(with = "crate::exact")]
    pub exe: PathBuf,
    pub version: String,
}

/// The config that is served.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Effective {
    pub sha256: String,
    pub generation: u64,
    pub loaded_at: jiff::Timestamp,
    /// The file; empty for a config that comes from a store alone.
    #[serde(with = "crate::exact")]
    pub path: PathBuf,
    /// The layers of a config with a store, the first below the others; else empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<LayerReport>,
}

impl Effective {
    /// Returns the digest of the file's content, also where another layer lies over it.
    #[must_use]
    pub(crate) fn of_file(&self) -> &str {
        file_of(&self.layers).unwrap_or(&self.sha256)
    }

    /// Tells whether a layer is a key of a store.
    #[must_use]
    pub(crate) fn has_key(&self) -> bool {
        let mut layers = self.layers.iter();
        layers.any(|layer| matches!(layer.origin, LayerOrigin::Url(_)))
    }
}

/// One layer of a config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LayerReport {
    /// Its place.
    #[serde(flatten)]
    pub origin: LayerOrigin,
    /// The digest of its content.
    pub sha256: String,
    /// The revision of its key; none of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rev: Option<String>,
}

/// The place of a layer: `"path"` or `"url"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LayerOrigin {
    Path(#[serde(with = "crate::exact")] PathBuf),
    Url(String),
}

/// Returns the digest of the layer that is a file.
fn file_of(layers: &[LayerReport]) -> Option<&str> {
    let mut files = layers
        .iter()
        .filter(|layer| matches!(layer.origin, LayerOrigin::Path(_)));
    files.next().map(|layer| layer.sha256.as_str())
}

/// The last time that the process read its config file. `seq` rises every time, so that "not read
/// yet" and "read and rejected" are different answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Attempt {
    pub seq: u64,
    pub sha256: Option<String>,
    pub result: AttemptResult,
    pub error: Option<String>,
    pub at: jiff::Timestamp,
    pub took_us: u64,
    /// The layers that were read, of a config with a store.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<LayerReport>,
}

impl Attempt {
    /// Returns the digest of the file's content that was read, also where another layer lies over
    /// it.
    #[must_use]
    pub(crate) fn of_file(&self) -> Option<&str> {
        file_of(&self.layers).or(self.sha256.as_deref())
    }
}

/// The result of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AttemptResult {
    Applied,
    Unchanged,
    Rejected,
    RestartRequired,
    IoError,
}
