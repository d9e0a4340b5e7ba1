//! Why a stage cannot become or run its command. The stages are processes of their own: the reason
//! goes up to `hello` as text.

use std::{fmt, io, path::PathBuf};

use super::trusted::Untrusted;

/// The step of a stage that failed, and why.
#[derive(Debug, thiserror::Error)]
pub(super) enum StageError {
    /// The step, as a sentence about the command, its supervisor or its instance.
    #[error("{0}: {1}")]
    Step(&'static str, io::Error),
    /// The process of its instance cannot be held.
    #[error(transparent)]
    Hold(#[from] HoldError),
    #[error("its {0} namespace cannot be entered: {1}")]
    Namespace(&'static str, io::Error),
    #[error("cannot become uid {0}: {1}")]
    Credentials(u32, io::Error),
    #[error("its supervisor ended")]
    NoSupervisor,
    /// The kernel does not show it the files that it needs.
    #[error(transparent)]
    View(#[from] ViewError),
    #[error("the command is empty")]
    Empty,
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
    /// `execve(2)` failed.
    #[error(transparent)]
    Execute(io::Error),
}

/// Why a command has no view of its files in which its writes are discarded.
#[derive(Debug, thiserror::Error)]
pub(super) enum ViewError {
    #[error("no mount namespace in which the new config could be at its live path: {0}")]
    Namespace(io::Error),
    /// The layers cannot be made.
    #[error("no view of its files in which its writes are discarded: {0}")]
    Store(io::Error),
    /// As [`Self::Store`], for one path.
    #[error("no view of its files in which its writes are discarded: {0}")]
    Layer(#[from] LayerError),
    /// The content of a target is not there as the survey saw it.
    #[error(transparent)]
    Target(#[from] PathError),
    /// The new content, at its path, cannot be held.
    #[error("`{}`: {}", .0.display(), .1)]
    Staged(PathBuf, PathError),
    #[error("its working directory `{}` has no path here", .0.display())]
    NoPath(PathBuf),
    #[error("working directory: {0}")]
    UnknownDirectory(io::Error),
    #[error("working directory `{}`: {}", .0.display(), .1)]
    Directory(PathBuf, io::Error),
}

/// Why a path is not the file that was surveyed.
#[derive(Debug, thiserror::Error)]
pub(super) enum PathError {
    #[error("`{}`: {}", .0.display(), .1)]
    Io(PathBuf, io::Error),
    #[error("`{}`: is not what was surveyed", .0.display())]
    Changed(PathBuf),
    /// Its descriptor cannot be used.
    #[error(transparent)]
    Held(#[from] io::Error),
}

/// Why a directory is not covered by a layer.
#[derive(Debug, thiserror::Error)]
pub(super) enum LayerError {
    #[error("`{}`: {}", .0.display(), .1)]
    Io(PathBuf, io::Error),
    #[error(
        "`{}`: another user can change its path, and a filesystem is mounted inside it",
        .0.display()
    )]
    MountInside(PathBuf),
}

impl LayerError {
    /// Returns a function that adds the path to an error of the system.
    pub(super) fn at(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        |e| Self::Io(path.into(), e)
    }
}

/// Why a command about a process is not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum HoldError {
    #[error("pid {0} cannot be inspected: {1}")]
    Hidden(i32, io::Error),
    #[error("pid {0} is no longer the process that was surveyed: {1}")]
    Changed(i32, Change),
    #[error(
        "the executable of pid {0} gives it another user or group (setuid, setgid), which its \
         command must not have"
    )]
    Setid(i32),
    #[error("the namespaces of pid {0} cannot be entered: {1}")]
    Elsewhere(i32, SpacesError),
}

/// How a process differs from the record of the survey.
#[derive(Debug, thiserror::Error)]
pub(super) enum Change {
    #[error("it ended")]
    Ended,
    #[error("it runs as {}, not as {}", Users(*now), Users(*was))]
    Users { now: [u32; 3], was: [u32; 3] },
    #[error("it has other groups")]
    Groups,
    #[error("it has more capabilities")]
    Capabilities,
    #[error("it runs another program")]
    Program,
}

/// Real, effective and saved user.
struct Users([u32; 3]);

impl fmt::Display for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [real, effective, saved] = self.0;
        write!(f, "uid {effective}")?;
        if [real, saved] != [effective; 2] {
            write!(f, " (real {real}, saved {saved})")?;
        }
        Ok(())
    }
}

/// Why the namespaces of a process are not known, or are not entered.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpacesError {
    #[error("its namespaces cannot be read: {0}")]
    Unreadable(io::Error),
    #[error("it has a user namespace of its own")]
    OwnUsers,
    #[error("its root directory cannot be read: {0}")]
    Root(io::Error),
}
