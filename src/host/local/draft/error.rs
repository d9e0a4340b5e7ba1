//! Why no group can be written for a process.

use crate::fleet::FleetError;

/// Why no group can be written for a process; the text has no subject.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoDraft {
    #[error("is this very program")]
    Own,
    #[error("its executable cannot be seen by this user")]
    Hidden,
    #[error("has ended, or cannot be read: {0}")]
    Unread(#[from] std::io::Error),
    #[error("its {0} is no text, so that no group can name it")]
    NotText(&'static str),
    #[error("is an interpreter without a script, which no group can tell from others")]
    NoScript,
    #[error("is a worker of pid {0}, which runs the same program")]
    Worker(i32),
    #[error("no group can match it: it {0}")]
    Unmatched(String),
    #[error("the group would not be valid: {0}")]
    Invalid(FleetError),
}
