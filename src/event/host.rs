//! The state of a host in a run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The state of a host in a run. Each has a reason, except `ready` and `done`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// Its agent greeted, and its groups can be reloaded.
    Ready,
    /// Its agent did not greet.
    Unreachable,
    /// It speaks another dialect: another version of hello.
    Skewed,
    /// It was reached and cannot be used, or a guard refused the run there.
    Refused,
    /// Another run holds its lock.
    Busy,
    /// The operator excluded it.
    Excluded,
    /// Its connection broke, or nothing was heard from it; another connection is made.
    Silent,
    /// Nothing was heard from it for too long during the run.
    Lost,
    /// Its part of the run has ended.
    Done,
}

impl HostState {
    /// Returns the state as the first word of a line about a host.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ready => "Ready",
            Self::Unreachable => "Unreachable",
            Self::Skewed => "Skewed",
            Self::Refused => "Refused",
            Self::Busy => "Busy",
            Self::Excluded => "Excluded",
            Self::Silent => "Silent",
            Self::Lost => "Lost",
            Self::Done => "Done",
        }
    }

    /// Returns true where nothing is to be said of the host: it has no fault.
    #[must_use]
    pub fn is_well(self) -> bool {
        matches!(self, Self::Ready | Self::Done)
    }
}
