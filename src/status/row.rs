//! One instance, as `status` finds it.

use std::path::PathBuf;

use serde::Serialize;

use crate::{fleet::Group, screen, step::short};

/// One instance, as it is now.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) group: String,
    pub(super) pid: i32,
    pub(super) started: u64,
    pub(super) endpoint: Option<String>,
    /// The first target, and the digests of that.
    #[serde(with = "crate::exact")]
    pub(super) path: Option<PathBuf>,
    pub(super) runs: Option<String>,
    pub(super) disk: Option<String>,
    pub(super) generation: Option<u64>,
    pub(super) age_s: Option<i64>,
    /// All of them.
    pub(super) targets: Vec<RowTarget>,
    /// Why its validator says nothing of what stands on the disk; null where it says something, or
    /// there is none.
    pub(super) unvalidated: Option<String>,
    /// Everything that a person should look at; empty when all agrees.
    pub(super) faults: Vec<String>,
}

/// What an instance reads.
#[derive(Debug, Serialize)]
pub(super) struct RowTarget {
    #[serde(with = "crate::exact")]
    pub(super) path: PathBuf,
    pub(super) disk: Option<String>,
    /// What it runs of that, and how that is known.
    pub(super) runs: Option<String>,
    pub(super) known: KnownBy,
}

/// How it is known what an instance runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum KnownBy {
    /// It tells it.
    SelfReport,
    /// A run proved it, and the process is the same.
    Proven,
    /// It reads that only at its start, and started after the last change.
    Started,
    /// It is not.
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

    /// For people.
    pub(super) fn line(&self) -> String {
        let what = |target: &RowTarget| {
            let runs = target.runs.as_deref().map_or("-", short);
            let what = match target.known {
                KnownBy::SelfReport => {
                    format!("sha256:{runs} generation {}", self.generation.unwrap_or(0))
                }
                KnownBy::Proven => format!("proven on sha256:{runs}"),
                KnownBy::Started => format!("started on sha256:{runs}"),
                KnownBy::No => "not known".to_owned(),
            };
            if self.targets.len() > 1 {
                format!("{} {what}", target.path.display())
            } else {
                what
            }
        };
        let what = self.targets.iter().map(what).collect::<Vec<_>>().join(", ");
        let who = [
            format!("{} pid {}", self.group, self.pid),
            self.endpoint.clone().unwrap_or_else(|| "-".into()),
            what,
        ];
        let mut said = if self.faults.is_empty() {
            "ok".to_owned()
        } else {
            self.faults.join("; ")
        };
        said.extend(
            self.unvalidated
                .iter()
                .map(|why| format!("; not validated: {why}")),
        );
        let all = who
            .into_iter()
            .filter(|part| !part.is_empty())
            .chain([said])
            .collect::<Vec<_>>()
            .join(" ");
        screen::row(&all).into_owned()
    }
}
