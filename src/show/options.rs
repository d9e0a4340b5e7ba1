//! The options of `hello show`.

use std::path::PathBuf;

use crate::report::Output;

/// Checked options.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The name of a run, or the first digits of a digest.
    pub name: String,
    /// True if a secret content is shown too.
    pub reveal: bool,
    /// The state directory.
    pub state: PathBuf,
    /// ` --state DIR` to append to suggested commands; empty for the default directory.
    pub state_args: String,
    /// What stdout carries; `Screen` is text, or the bytes of a content.
    pub output: Output,
}
