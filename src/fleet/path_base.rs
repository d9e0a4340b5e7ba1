//! Where something of a process is.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where something of a process is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathBase {
    /// Below (or, when the path is empty, at) the value of this option on the process's own command
    /// line.
    Arg(String, PathBuf),
    /// Below the process's working directory.
    Cwd(PathBuf),
    /// Below the directory that a relative path of its command line is below.
    Base(PathBuf),
    /// Below the path that stands behind this text in what the group's `built` command prints.
    Built(String, PathBuf),
    /// Below the value of this variable of the environment that the process was started with.
    Env(String, PathBuf),
    /// This path.
    Path(PathBuf),
}
