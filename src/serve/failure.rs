//! The errors of the server.

use std::{io, path::PathBuf};

use crate::config::ListenError;

/// Why the server could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The config at start cannot be read.
    #[error("cannot read the config `{0}`: {1}")]
    Unreadable(PathBuf, String),
    /// The store does not give the config at start.
    #[error("cannot read the config {0}: {1}")]
    Store(String, String),
    /// The config that an earlier process kept cannot be used.
    #[error("the last good config `{0}` cannot be used: {1}")]
    LastGood(PathBuf, String),
    /// The store does not give the config at start, and neither does an earlier process.
    #[error("cannot read the config {0}; {1}")]
    NoLastGood(String, Box<Failure>),
    /// The config at start is not valid.
    #[error("the config is not valid\n{0}")]
    Invalid(String),
    /// Its `listen` is no address.
    #[error("the config is not valid\n{0}")]
    Address(#[from] ListenError),
    /// The address cannot be listened on.
    #[error("cannot listen on {0}: {1}")]
    Listen(String, io::Error),
    /// A system call failed.
    #[error("cannot serve: {0}")]
    Io(#[from] io::Error),
    /// `/proc/self` does not give the identity of this process.
    #[error("cannot read /proc/self: {0}")]
    Proc(#[source] io::Error),
}
