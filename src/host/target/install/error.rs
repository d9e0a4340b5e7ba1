//! The reason that a target cannot be staged or installed.

use std::{io, path::PathBuf};

use super::stat::BlockingAttribute;
use crate::{config::ReadError, host::store::StoreError, refusal::Refusal};

/// The reason that a target cannot be staged or installed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallError {
    /// A check refused it.
    #[error("`{}` cannot be installed: {}", .0.display(), .1)]
    Refused(PathBuf, Refusal<InstallReason>),
    /// Its content is not that of the survey. It was not replaced.
    #[error("`{}` was changed by another process during the run; not replaced", .0.display())]
    Drifted(PathBuf),
    /// An attribute is not that of the survey, or of what was installed. It was not replaced.
    #[error("`{}` was changed by another process during the run ({}); not replaced", .0.display(),
            .1)]
    Changed(PathBuf, String),
    /// The key of a store has no value any more, or never had one.
    #[error("cannot read `{}`: there is no such key", .0.display())]
    NoKey(PathBuf),
    /// The store gave no answer that counts. The key has the value that it had.
    #[error("`{}`: {}", .0.display(), .1)]
    Store(PathBuf, Box<StoreError>),
    /// A write had no answer, and the key could not be read after it.
    #[error("it is not known whether `{}` was written: {}", .0.display(), .1)]
    Unknown(PathBuf, Box<StoreError>),
    /// The state directory cannot record what is staged.
    #[error("staged files cannot be recorded in the state directory: {0}")]
    Record(io::Error),
    /// The system's error.
    #[error("`{}`: {}", .0.display(), .1)]
    Io(PathBuf, io::Error),
}

/// Why a check refuses to install a target.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstallReason {
    #[error("it is now a symbolic link")]
    Link,
    #[error("it is not a regular file")]
    NotFile,
    #[error("it is a directory, and would become a file")]
    NotDirectory,
    #[error("it {}", .0.text())]
    Blocked(BlockingAttribute),
    #[error("its directory is sticky, and you own neither of the two")]
    Sticky,
    #[error("it belongs to uid {0}, and only root can give its replacement the same owner")]
    OtherOwner(u32),
    /// It is no config, or cannot be read.
    #[error(transparent)]
    Unreadable(#[from] ReadError),
    #[error("cannot stage new content next to it: {0}")]
    NotStaged(io::Error),
    /// No write can depend on its revision, so that it could undo the write of another program.
    #[error(transparent)]
    ReadOnly(Box<StoreError>),
    #[error("its filesystem does not preserve names, modes or links")]
    NotPreserved,
    #[error("its filesystem cannot exchange it in one step: {0}")]
    NotExchanged(io::Error),
    #[error("its filesystem cannot exchange two directories in one step")]
    NoExchange,
}

impl InstallError {
    /// Returns the error for a report, with what helps.
    pub(crate) fn reported(&self) -> Refusal {
        let Self::Refused(path, Refusal { why, hint }) = self else {
            return self.to_string().into();
        };
        Refusal {
            why: format!("`{}` cannot be installed: {why}", path.display()),
            hint: hint.clone(),
        }
    }
}
