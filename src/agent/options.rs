//! The options of `hello agent`.

use std::{collections::BTreeMap, path::PathBuf};

use crate::{fleet::Agent, inventory::HostName, runs::Retention};

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

impl Options {
    /// Returns the name of this host: the option, else that of its file.
    pub(super) fn name_of(&self, agent: Option<&Agent>) -> Option<HostName> {
        let of_file = || agent.and_then(|agent| agent.name.clone());
        self.name.clone().or_else(of_file)
    }
}
