//! What the waves of a run are made from, and why there are none.

use crate::{
    fleet::{Group, OnBadConfig, WaveEnd},
    inventory::Unmatched,
};

/// One instance of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WaveEntry {
    /// The index of its host.
    pub host: u32,
    /// The index of its group among the policies.
    pub group: u16,
    /// False if it needs no signal, because it runs the candidate already.
    pub signalled: bool,
    /// False if its endpoint did not answer before the run.
    pub responsive: bool,
}

/// The part of a group that decides its waves.
#[derive(Debug, Clone)]
pub(crate) struct WavePolicy<'a> {
    /// Its name.
    pub name: &'a str,
    /// The groups that it comes after.
    pub after: &'a [String],
    /// The cumulative size of each wave; a last one of 100% is implied.
    pub waves: Vec<&'a WaveEnd>,
    /// True if one instance is signalled alone first, whatever `waves` says.
    pub canary: bool,
    /// The label whose values alternate in the order of hosts.
    pub spread: Option<&'a str>,
    /// The label of which no two hosts with the same value are in one wave of the run.
    pub apart: Option<&'a str>,
}

impl<'a> WavePolicy<'a> {
    /// Returns the policy of a group. A program that has no kind, or that dies of a bad config, has
    /// a canary.
    pub(crate) fn of(group: &'a Group) -> Self {
        Self {
            name: &group.name,
            after: &group.after,
            waves: group.rollout.waves.iter().collect(),
            canary: group.kind.is_none() || group.on_bad_config == OnBadConfig::Dies,
            spread: group.rollout.spread.as_deref(),
            apart: group.rollout.apart.as_deref(),
        }
    }
}

/// Why the instances of a run have no waves. Nothing was touched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WaveError {
    /// The hosts of a wave are not in the run. A misspelt term must not lose a canary.
    #[error("`waves` of group `{group}`: {unmatched} in this run")]
    Unmatched {
        /// The group.
        group: String,
        /// The term.
        unmatched: Unmatched,
    },
    /// A label that keeps hosts apart, or spreads them, is on no host. A misspelt label must not
    /// let a pair go down together.
    #[error("`{key}` of group `{group}`: no host has the label `{label}`")]
    NoLabel {
        /// The group.
        group: String,
        /// `spread` or `apart`.
        key: &'static str,
        /// The label.
        label: String,
    },
    /// The number of a wave does not fit its type.
    #[error("a run has at most 65535 waves")]
    TooMany,
}
