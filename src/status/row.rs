//! The row of one instance in the output of `hello status`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    fleet::Group,
    inventory::HostName,
    screen::{self, Table},
    step::short,
};

/// The columns of the table on the screen.
pub(super) const COLUMNS: [&str; 5] = ["STATUS", "GROUP", "PID", "CONFIG", "ENDPOINT"];

/// The cell for something that is not there, or is not known.
pub(super) const NONE: &str = "-";

/// The state of an instance, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It runs the config on its disk.
    Ok,
    /// Nothing disagrees, and the config that it runs is not known.
    NoFault,
    /// Something disagrees.
    Fault,
}

impl State {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NoFault => "no fault",
            Self::Fault => "FAULT",
        }
    }
}

/// The present state of one instance.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Instance")]
pub(super) struct Row {
    /// Its host; `local` is this machine.
    pub(super) host: HostName,
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
    /// Why the proofs of earlier runs say nothing of it.
    #[serde(skip)]
    pub(super) doubt: Option<String>,
    /// Everything that the operator should check; empty if all agrees.
    pub(super) faults: Vec<String>,
}

/// A target that an instance reads.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Target")]
pub(super) struct RowTarget {
    #[serde(with = "crate::exact")]
    #[schemars(with = "crate::exact::Shape<'static>")]
    pub(super) path: PathBuf,
    /// The revision of a key; none of a file or directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) rev: Option<String>,
    /// Digest on disk.
    pub(super) disk: Option<String>,
    /// The digest of the content that the instance runs, and how that is known.
    pub(super) runs: Option<String>,
    /// How it is known.
    pub(super) known: KnownBy,
}

/// How the content that an instance runs is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
            host: HostName::local(),
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
            doubt: None,
            faults: Vec::new(),
        }
    }

    /// Returns the word for its state.
    pub(super) fn state(&self) -> State {
        let is_known = |target: &RowTarget| target.known != KnownBy::No;
        if !self.faults.is_empty() {
            State::Fault
        } else if !self.targets.is_empty() && self.targets.iter().all(is_known) {
            State::Ok
        } else {
            State::NoFault
        }
    }

    /// Appends it to a table of the columns [`COLUMNS`].
    pub(super) fn add_to(&self, table: &mut Table) {
        table.row([
            self.state().word(),
            &self.group,
            &self.pid_cell(),
            &self.config_cell(),
            self.endpoint.as_deref().unwrap_or(NONE),
        ]);
        self.add_below(table);
    }

    /// Returns its pid. A process that is listed and missing may have none.
    pub(super) fn pid_cell(&self) -> String {
        if self.pid > 0 {
            self.pid.to_string()
        } else {
            NONE.to_owned()
        }
    }

    /// Returns the config that it runs, in one cell.
    pub(super) fn config_cell(&self) -> String {
        match self.targets.as_slice() {
            [] => NONE.to_owned(),
            [target] => self.content(target),
            targets => screen::counted(targets.len(), "target"),
        }
    }

    /// Appends what does not fit into cells below its row.
    pub(super) fn add_below(&self, table: &mut Table) {
        if self.targets.len() > 1 {
            for target in &self.targets {
                let path = target.path.display().to_string();
                table.below(&screen::line(&format!("{path}: {}", self.content(target))));
            }
        }
        self.faults.iter().for_each(|fault| table.below(fault));
        if let Some(why) = &self.unvalidated {
            table.below(&format!("not validated: {why}"));
        }
    }

    /// Returns the content of a target that it runs, and how that is known.
    fn content(&self, target: &RowTarget) -> String {
        let runs = target.runs.as_deref().map_or(NONE, short);
        match target.known {
            KnownBy::SelfReport => {
                format!("sha256:{runs} generation {}", self.generation.unwrap_or(0))
            }
            KnownBy::Proven => format!("proven on sha256:{runs}"),
            KnownBy::Started => format!("started on sha256:{runs}"),
            KnownBy::No => "not known".to_owned(),
        }
    }
}
