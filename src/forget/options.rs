//! The options of `hello forget`.

use std::path::PathBuf;

use crate::{inventory::Expression, runs::OpenRuns, screen};

/// Checked options.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The name of a run, or the first digits of a digest.
    pub id: String,
    /// The state directory.
    pub state: PathBuf,
    /// The fate of an open run.
    pub open: OpenRuns,
    /// ` --state DIR` to append to suggested commands; empty for the default directory.
    pub state_args: String,
    /// The hosts whose part is removed.
    pub hosts: HostChoice,
}

/// The hosts whose part of a run is removed.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostChoice {
    /// No host is asked: what this machine keeps is removed alone.
    pub here: bool,
    /// The file with the hosts, as the operator named it.
    pub fleet: Option<PathBuf>,
    /// The file that is read without one, where there is such a file.
    pub usual: Option<PathBuf>,
    /// The hosts; all of the run if it has no term.
    pub on: Expression,
    /// The hosts that are not meant.
    pub except: Expression,
}

impl HostChoice {
    /// Tells whether the operator named hosts, so that an item need not be known on this machine.
    pub(super) fn selects(&self) -> bool {
        self.fleet.is_some() || !self.on.is_empty() || !self.except.is_empty()
    }

    /// Returns the options of a command that means the same hosts, each behind a blank.
    pub(super) fn arguments(&self) -> String {
        let mut words = String::new();
        if self.here {
            words += " --here";
        }
        if let Some(fleet) = &self.fleet {
            words += &format!(" --fleet {}", screen::quote(fleet));
        }
        for (option, terms) in [("--on", &self.on), ("--except", &self.except)] {
            if !terms.is_empty() {
                words += &format!(" {option} {}", screen::quote(terms.to_string()));
            }
        }
        words
    }
}
