//! Paths of a process, with placeholders.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::source::Key;

/// A path of a process, or the key that its config is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathBase {
    /// Below (or at, if the path is empty) the value of this option on the process's own command
    /// line.
    Arg(String, PathBuf),
    /// Below the process's working directory.
    Cwd(PathBuf),
    /// Below the directory that relative paths of its command line are below.
    Base(PathBuf),
    /// Below the path that follows this text in the output of the group's `built` command.
    Built(String, PathBuf),
    /// Below the value of this variable of the environment that the process was started with.
    Env(String, PathBuf),
    /// Below the value in the title that the process has written over its command line.
    Title(String, PathBuf),
    /// This path.
    Path(PathBuf),
    /// This key of a store; only of a group's one target.
    Key(Box<Key>),
}
