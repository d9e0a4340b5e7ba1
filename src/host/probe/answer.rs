//! The answer of one source, or why there is none.

use crate::host::{exec::Output, net::http::Answer};

/// The answer of one source.
#[derive(Debug)]
pub(crate) enum ProbeResult {
    Http(Answer),
    Command(Output),
    Kernel(String),
}

/// Why a source did not answer.
#[derive(Debug)]
pub(crate) struct ProbeError {
    /// For the operator.
    pub(crate) message: String,
    /// True if the source was reached. A command that cannot be run, or a kernel that does not
    /// tell, shows nothing of the instance.
    pub(crate) reached: bool,
}

impl ProbeError {
    /// Returns the error of a source that gave no answer in time, or one that cannot be read.
    pub(crate) fn of(message: String) -> Self {
        Self {
            message,
            reached: true,
        }
    }

    pub(crate) fn unreached(message: impl ToString) -> Self {
        Self {
            message: message.to_string(),
            reached: false,
        }
    }
}
