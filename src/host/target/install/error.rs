//! The reason that a target cannot be staged or installed.

use std::{io, path::PathBuf};

/// The reason that a target cannot be staged or installed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    /// A check refused it.
    #[error("`{}` cannot be installed: {}", .0.display(), .1)]
    Refused(PathBuf, String),
    /// Its content is not that of the survey. It was not replaced.
    #[error("`{}` was changed by another process during the run; not replaced", .0.display())]
    Drifted(PathBuf),
    /// An attribute is not that of the survey, or of what was installed. It was not replaced.
    #[error("`{}` was changed by another process during the run ({}); not replaced", .0.display(),
            .1)]
    Changed(PathBuf, String),
    /// The state directory cannot record what is staged.
    #[error("staged files cannot be recorded in the state directory: {0}")]
    Record(io::Error),
    /// The system's error.
    #[error("`{}`: {}", .0.display(), .1)]
    Io(PathBuf, io::Error),
}
