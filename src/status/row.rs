//! The row of one instance in the output of `hello status`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use crate::{fleet::Group, screen, step::short};

/// The present state of one instance.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Instance")]
pub(super) struct Row {
    /// Its group.
    pub(super) group: String,
    /// Process number.
    pub(super) pid: i32,
    /// Start time in clock ticks since boot; 0 for a listed process that is not there.
    pub(super) started: u64,
    /// Its URL.
    pub(super) endpoint: Option<String>,
    /// The first target; its digests follow.
    #[serde(with = "crate::exact")]
    #[schemars(with = "Option<crate::exact::Shape<'static>>")]
    pub(super) path: Option<PathBuf>,
    /// Digest that it runs.
    pub(super) runs: Option<String>,
    /// Digest on disk.
    pub(super) disk: Option<String>,
    /// Number of configs that it has loaded, as it reports.
    pub(super) generation: Option<u64>,
    /// Seconds since it loaded its config, as it reports.
    pub(super) age_s: Option<i64>,
    /// Every target of the instance.
    pub(super) targets: Vec<RowTarget>,
    /// Why its validator has no result for the content on the disk. None if it has one, or there is
    /// no validator.
    pub(super) unvalidated: Option<String>,
    /// Everything that the operator should check; empty if all agrees.
    pub(super) faults: Vec<String>,
}

/// A target that an instance reads.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Target")]
pub(super) struct RowTarget {
    #[serde(with = "crate::exact")]
    #[schemars(with = "crate::exact::Shape<'static>")]
    pub(super) path: PathBuf,
    /// Digest on disk.
    pub(super) disk: Option<String>,
    /// The digest of the content that the instance runs, and how that is known.
    pub(super) runs: Option<String>,
    /// How it is known.
    pub(super) known: KnownBy,
}

/// How the content that an instance runs is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "Known")]
pub(super) enum KnownBy {
    /// The instance reports it.
    SelfReport,
    /// A run proved it, and the process is still the same.
    Proven,
    /// The instance reads the target only at its start, and started after the last change.
    Started,
    /// It is not known.
    No,
}

impl Row {
    pub(super) fn new(group: &Group, pid: i32, started: u64) -> Self {
        Self {
            group: group.name.clone(),
            pid,
            started,
            endpoint: None,
            path: None,
            runs: None,
            disk: None,
            generation: None,
            age_s: None,
            targets: Vec::new(),
            unvalidated: None,
            faults: Vec::new(),
        }
    }

    /// Returns the line for the screen.
    pub(super) fn line(&self) -> String {
        let describe = |target: &RowTarget| {
            let runs = target.runs.as_deref().map_or("-", short);
            let content = match target.known {
                KnownBy::SelfReport => {
                    format!("sha256:{runs} generation {}", self.generation.unwrap_or(0))
                }
                KnownBy::Proven => format!("proven on sha256:{runs}"),
                KnownBy::Started => format!("started on sha256:{runs}"),
                KnownBy::No => "not known".to_owned(),
            };
            if self.targets.len() > 1 {
                format!("{} {content}", target.path.display())
            } else {
                content
            }
        };
        let targets: Vec<String> = self.targets.iter().map(describe).collect();
        let mut result = if self.faults.is_empty() {
            "ok".to_owned()
        } else {
            self.faults.join("; ")
        };
        result.extend(
            self.unvalidated
                .iter()
                .map(|why| format!("; not validated: {why}")),
        );
        let parts = [
            format!("{} pid {}", self.group, self.pid),
            self.endpoint.clone().unwrap_or_else(|| "-".into()),
            targets.join(", "),
            result,
        ];
        let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        screen::row(&parts.join(" ")).into_owned()
    }
}

/// Returns the lines that name processes which match and are no part of the fleet. The operator
/// must see that these were not checked.
pub(crate) fn skipped_lines(skipped: &[(i32, String)]) -> impl Iterator<Item = String> {
    skipped
        .iter()
        .map(|(pid, why)| screen::worded("Skipped", &format!("pid {pid} {why}")))
}
