//! The parts of a run that take their time, for the line of progress.

use serde::{Deserialize, Serialize};

/// A part of a run that takes its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Phase {
    Surveying,
    Staging,
    Validating,
    Judging,
}
