//! One process to reload, as the plan, the journal and the reports show it.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Failure, Outcome, Proof};
use crate::{
    fleet::{Group, Trigger},
    inventory::HostName,
};

/// The cause of a process's reload.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ReloadsBy {
    /// The signal of its group.
    Signal,
    /// The command of its group.
    Command,
}

impl ReloadsBy {
    /// Returns what makes the instances of a group reload.
    #[must_use]
    pub(crate) fn of(group: &Group) -> Self {
        match group.trigger() {
            Trigger::Signal(_) => Self::Signal,
            Trigger::Command(_) => Self::Command,
        }
    }
}

/// One process to reload. Its identity is `host`, `pid` and `started`, never the pid alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Instance {
    /// The host.
    #[serde(default = "HostName::local")]
    pub host: HostName,
    /// The group of the fleet.
    pub group: String,
    /// Process number.
    pub pid: i32,
    /// Start time in clock ticks since boot, from `/proc/PID/stat`.
    pub started: u64,
    /// The executable, as `/proc/PID/exe` shows it.
    #[serde(
        serialize_with = "crate::exact::absent::path",
        deserialize_with = "crate::exact::absent::path_or_none"
    )]
    #[schemars(with = "Option<crate::exact::Shape<'static>>")]
    pub exe: PathBuf,
    /// Its URL.
    #[serde(
        serialize_with = "crate::exact::absent::text",
        deserialize_with = "crate::exact::absent::text_or_none"
    )]
    #[schemars(with = "Option<String>")]
    pub endpoint: String,
    /// The files and directories of its config, resolved; or the URL of its key.
    #[serde(with = "crate::exact")]
    #[schemars(with = "Vec<crate::exact::Shape<'static>>")]
    pub targets: Vec<PathBuf>,
    /// The number of its wave, from 1. All instances of one wave are signalled together; the next
    /// wave starts only when this one is proven. 0 for a skipped instance.
    pub wave: usize,
    /// The cause of its reload; none where its host has not reported it.
    #[serde(default)]
    pub reloads_by: Option<ReloadsBy>,
    /// How it ended.
    pub outcome: Outcome,
    /// Its first failure.
    pub failure: Option<Failure>,
    /// The last lines of its group's `log` since the signal that failed, which its failure quotes.
    /// Never of a secret config.
    #[serde(default)]
    pub log: Vec<String>,
    /// True where its validator passed the candidate.
    pub validated: bool,
    /// Digest that it ran at the survey; none where it cannot report that.
    pub before: Option<String>,
    /// Digest that it was last proven to run.
    pub after: Option<String>,
    /// From its last signal to its proof, in microseconds.
    pub took_us: Option<u64>,
    /// The proof of its outcome.
    pub proof: Option<Proof>,
    /// Its URL before the signal, where that changed.
    pub moved_from: Option<String>,
    /// The process that it is the successor of.
    pub successor_of: Option<i32>,
    /// The command that starts it again; only where it died.
    pub start: Option<String>,
    /// Pids of draining workers: they end once their last connection does.
    pub draining: Vec<i32>,
    /// True where it was seen to open each of its targets after its signal; none where that is not
    /// known.
    pub opened: Option<bool>,
}

impl Instance {
    /// Returns an untouched instance of which only the identity is known.
    #[must_use]
    pub fn new(group: &str, pid: i32, started: u64) -> Self {
        Self {
            host: HostName::local(),
            group: group.into(),
            pid,
            started,
            exe: PathBuf::new(),
            endpoint: String::new(),
            targets: Vec::new(),
            wave: 1,
            reloads_by: None,
            outcome: Outcome::Untouched,
            failure: None,
            log: Vec::new(),
            validated: false,
            before: None,
            after: None,
            took_us: None,
            proof: None,
            moved_from: None,
            successor_of: None,
            start: None,
            draining: Vec::new(),
            opened: None,
        }
    }
}
