//! The options of `hello agent`.

use std::{collections::BTreeMap, path::PathBuf};

use crate::{inventory::HostName, runs::Retention};

/// Checked options.
#[derive(Debug)]
pub(crate) struct Options {
    /// The host's own file.
    pub file: PathBuf,
    /// The name of this host; none for the one of its file.
    pub name: Option<HostName>,
    /// Labels of this host besides those of its file.
    pub labels: BTreeMap<String, String>,
    /// The state directory, with the proofs and the open runs of this host.
    pub state: Option<PathBuf>,
    /// Which runs are kept when one has ended.
    pub keep: Retention,
}
