//! The options of `hello agent`.

use std::path::PathBuf;

use crate::runs::Retention;

/// Checked options.
#[derive(Debug)]
pub(crate) struct Options {
    /// The host's own file.
    pub file: PathBuf,
    /// The state directory, with the proofs and the open runs of this host.
    pub state: Option<PathBuf>,
    /// Which runs are kept when one has ended.
    pub keep: Retention,
}
