//! What an instance tells of itself: shapes that `serve` answers with and `confirm` reads.
#![expect(missing_docs, reason = "the fields are the names of the JSON on the wire")]

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

/// Digest of the bytes that the served config was parsed from.
pub const X_CONFIG_SHA256: &str = "x-config-sha256";
/// Rises with every applied config.
pub const X_CONFIG_GENERATION: &str = "x-config-generation";
/// `PID:START-TICKS` of the process that answers.
pub const X_INSTANCE: &str = "x-instance";

/// `GET /-/config`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Told {
    pub v: u32,
    pub instance: InstanceId,
    pub effective: Effective,
    pub last_attempt: Attempt,
    pub restart_required: Vec<String>,
    pub restart_only: BTreeMap<String, String>,
}

/// Who answers; `started` is in clock ticks since boot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InstanceId {
    pub pid: i32,
    pub started: u64,
    pub exe: PathBuf,
    pub version: String,
}

/// What is served.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Effective {
    pub sha256: String,
    pub generation: u64,
    pub loaded_at: jiff::Timestamp,
    pub path: PathBuf,
}

/// The last time the config file was looked at; `seq` rises every time, so that
/// "has not looked yet" and "looked and refused" are different answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Attempt {
    pub seq: u64,
    pub sha256: Option<String>,
    pub result: AttemptResult,
    pub error: Option<String>,
    pub at: jiff::Timestamp,
    pub took_us: u64,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptResult {
    Applied,
    Unchanged,
    Rejected,
    RestartRequired,
    IoError,
}
