//! The reason that a path is not trusted.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::screen::quote;

/// The reason that a path is not trusted, with the directory, file or link that it is about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// Another user owns this directory or file, or may write it.
    #[error("users other than {writers} can write `{}`", .path.display())]
    Writable {
        /// The directory or file.
        path: PathBuf,
        /// The users that may write it.
        writers: String,
        /// True if another user owns it; false if its mode lets others write it.
        foreign_owner: bool,
    },
    /// A directory of root or the caller inside a directory of the user of the process, which can
    /// replace it.
    #[error("uid {uid} can replace the directory `{}`, which it does not own", .path.display())]
    Exchangeable {
        /// The directory.
        path: PathBuf,
        /// The process's user.
        uid: u32,
    },
    /// A symbolic link that another user created or can change.
    #[error("it is reached through a symbolic link that users other than root and you can change \
             (`{}`)", .path.display())]
    Link {
        /// The link.
        path: PathBuf,
    },
}

impl Distrust {
    /// Returns the directory, file or link that another user can change.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Writable { path, .. } | Self::Exchangeable { path, .. } | Self::Link { path } => {
                path
            }
        }
    }

    /// Returns the command that makes the path trusted, if one command can.
    #[must_use]
    pub fn fix_command(&self) -> Option<String> {
        let me = rustix::process::geteuid();
        match self {
            Self::Writable {
                path,
                foreign_owner: true,
                ..
            } => Some(format!("chown {me} {}", quote(path))),
            Self::Writable { path, .. } => Some(format!("chmod go-w {}", quote(path))),
            Self::Exchangeable { .. } | Self::Link { .. } => None,
        }
    }
}

impl From<Distrust> for io::Error {
    fn from(why: Distrust) -> Self {
        Self::new(io::ErrorKind::PermissionDenied, why)
    }
}
