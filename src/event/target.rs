//! A target as the journal and the reports show it.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::inventory::HostName;

/// The kind of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TargetKind {
    File,
    Directory,
    /// A key of a store.
    Key,
}

/// The revisions of a key that a run replaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyReport {
    /// Its revision at the survey, which the first write expects.
    pub rev: String,
    /// Its revision after the last write of the run; none before, or where nothing was written.
    pub own: Option<String>,
}

/// The change of one entry of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EntryChange {
    Added,
    Changed,
    Removed,
}

/// One entry of a directory that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EntryReport {
    /// Path below the directory, on one line whatever characters are in it.
    pub path: String,
    /// Its change.
    pub change: EntryChange,
}

/// The key of a store that new content was read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceReport {
    /// Its URL.
    pub url: String,
    /// Its revision at the survey, which read it once.
    pub rev: String,
}

impl std::fmt::Display for SourceReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} revision {}", self.url, self.rev)
    }
}

/// A file, a directory or a key that a run replaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TargetReport {
    /// The host.
    #[serde(default = "HostName::local")]
    pub host: HostName,
    /// Its path, or the URL of a key.
    #[serde(with = "crate::exact")]
    #[schemars(with = "crate::exact::Shape<'static>")]
    pub path: PathBuf,
    /// Its kind; the digests of a directory are those of its archive.
    pub kind: TargetKind,
    /// Digest before the run; none where no copy of these bytes is known.
    pub from: Option<String>,
    /// Digest of the candidate.
    pub to: String,
    /// Digest on disk at the end.
    pub disk: Option<String>,
    /// True if its content must not be shown; none in a run of a version that did not record it.
    #[serde(default)]
    pub secret: Option<bool>,
    /// The revisions of a key; only where `kind` is `key`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<KeyReport>,
    /// The key of a store that `to` was read from; none if it comes from elsewhere.
    #[serde(default)]
    pub source: Option<SourceReport>,
    /// Changed entries of a directory; only of a dry run.
    #[serde(default)]
    pub entries: Vec<EntryReport>,
    /// Changed lines; only of a dry run, and never of a secret config.
    #[serde(default)]
    pub diff: Option<String>,
}
