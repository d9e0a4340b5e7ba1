//! What a coordinator asks a host to survey for a run.

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{event::TargetKind, fleet::Fleet, inventory::HostName};

/// The demand on validators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Validate {
    /// A validator that is known must pass; an instance that is not validated is named.
    Auto,
    /// Every instance must have one and pass it.
    Strict,
    /// None is run.
    Off,
}

/// The change of one group's targets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ChangeOrder {
    /// The content on disk is adopted, or that of the group's `source` is taken.
    Adopt,
    /// These keys of each target's own bytes are edited.
    Set(Vec<(String, String)>),
    /// A candidate, by its digest.
    Put {
        /// The path as the operator named it.
        named: String,
        form: TargetKind,
        sha256: String,
        /// Bytes; those of a directory are an archive.
        len: usize,
    },
}

/// The earlier run that a run continues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ContinuedRun {
    /// Its id.
    pub(crate) run: String,
    /// True if its old config is restored: `hello revert`.
    pub(crate) revert: bool,
    /// True if a host on which it never began is skipped: the run continues no other one, so it has
    /// left nothing there. Such a host keeps it from beginning later.
    #[serde(default)]
    pub(crate) may_skip: bool,
}

/// The groups whose unresponsive instances the coordinator counts, over all hosts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CountedGroups {
    /// Every group.
    pub(crate) every: bool,
    /// These groups.
    pub(crate) named: Vec<String>,
}

impl CountedGroups {
    /// Returns the groups of which a fleet file sets `max_unresponsive`.
    pub(crate) fn of(fleet: &Fleet) -> Self {
        let groups = fleet.groups.iter();
        let named = groups.filter(|group| group.rollout.limits_unresponsive);
        Self {
            every: fleet.rollout.limits_unresponsive,
            named: named.map(|group| group.name.clone()).collect(),
        }
    }

    pub(crate) fn has(&self, group: &str) -> bool {
        self.every || self.named.iter().any(|name| name == group)
    }
}

/// The run over hosts that the run of one host is a part of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct PartOf {
    /// The machine of its coordinator, as that claims.
    pub(crate) coordinator: Option<HostName>,
    /// How many hosts it is about, this one among them: those that it has begun on, and those of
    /// the run that it continues.
    pub(crate) hosts: usize,
}

/// A run as its hosts survey it. It names groups, and no command, path of a target, signal or kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SurveyOrder {
    /// The groups; the only one of a host if it is empty.
    pub(crate) groups: Vec<String>,
    /// Without a name, every group of a host.
    #[serde(default)]
    pub(crate) every: bool,
    /// The changes of groups that were named.
    #[serde(default)]
    pub(crate) named: BTreeMap<String, ChangeOrder>,
    /// The change of every other group.
    pub(crate) others: ChangeOrder,
    /// Remove the entries that only a live directory has.
    pub(crate) prune: bool,
    /// Install one candidate over targets that differ now.
    pub(crate) overwrite: bool,
    pub(crate) validate: Validate,
    /// Include instances whose endpoint is unresponsive.
    pub(crate) include_unresponsive: bool,
    /// The groups of which the host skips every unresponsive instance.
    #[serde(default)]
    pub(crate) counted: CountedGroups,
    /// No bake, no gate, and no rollback.
    pub(crate) now: bool,
    /// Show the run; no lock is taken, and nothing is recorded.
    pub(crate) dry_run: bool,
    /// The longest time from an instance's signal to its proof; none for that of its group.
    #[serde(default)]
    pub(crate) timeout: Option<Duration>,
    /// The longest wait for the lock of another run.
    pub(crate) lock_timeout: Duration,
    /// The earlier run that this one continues.
    #[serde(default)]
    pub(crate) of: Option<ContinuedRun>,
    /// The operator's reason.
    #[serde(default)]
    pub(crate) reason: Option<String>,
    /// The command line, without its secrets.
    pub(crate) command: Vec<String>,
}

impl SurveyOrder {
    /// Iterates over the candidates that the order names: digest, and length in bytes.
    pub(crate) fn candidates(&self) -> impl Iterator<Item = (&str, usize)> {
        let changes = self.named.values().chain([&self.others]);
        changes.filter_map(|change| match change {
            ChangeOrder::Put { sha256, len, .. } => Some((sha256.as_str(), *len)),
            ChangeOrder::Adopt | ChangeOrder::Set(_) => None,
        })
    }
}
