//! The options of `hello history`.

use std::path::PathBuf;

use crate::report::Output;

/// Checked options.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The name of one run; none to list runs.
    pub run: Option<String>,
    /// The most runs that are listed, newest first.
    pub last: usize,
    /// The state directory.
    pub state: PathBuf,
    /// ` --state DIR` to append to suggested commands; empty for the default directory.
    pub state_args: String,
    /// What stdout carries; `Screen` is text.
    pub output: Output,
}
