//! Why a target cannot be staged or installed.

use std::{io, path::PathBuf};

/// Why a target cannot be staged or installed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    /// A guard said no.
    #[error("`{}` cannot be installed: {}", .0.display(), .1)]
    Refused(PathBuf, String),
    /// It is not what was surveyed; it was left alone.
    #[error("`{}` was changed by somebody else meanwhile; left alone", .0.display())]
    Drifted(PathBuf),
    /// An attribute of it is not what was surveyed, or installed; it was left alone.
    #[error("`{}` was changed by another process meanwhile ({}); left alone", .0.display(), .1)]
    Changed(PathBuf, String),
    /// The state directory said no.
    #[error("what is staged cannot be written down: {0}")]
    Record(io::Error),
    /// The system said no.
    #[error("`{}`: {}", .0.display(), .1)]
    Io(PathBuf, io::Error),
}
