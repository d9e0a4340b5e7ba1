//! The slow parts of a run, for the progress line.

use serde::{Deserialize, Serialize};

/// A part of a run that may take seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Hosts are connected; the items are hosts.
    Connecting,
    Surveying,
    Staging,
    Validating,
    Judging,
    Confirming,
}
