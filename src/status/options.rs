//! The options of `hello status`.

use std::path::PathBuf;

use crate::{fleet::Fleet, inventory::Expression, report::Output};

/// Checked options.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The fleet, read and selected.
    pub fleet: Fleet,
    /// The hosts that are meant, where the fleet has hosts.
    pub hosts: HostOptions,
    /// The state directory, with the proofs of earlier runs. Without it, the config of an instance
    /// that does not report it is not known.
    pub state: Option<PathBuf>,
    /// The ` --state DIR` to append to suggested commands; empty for the default directory.
    pub state_args: String,
    /// The format on stdout; `Screen` is a line for each instance.
    pub output: Output,
    /// True if stdout shows only instances with faults.
    pub quiet: bool,
}

/// The hosts that a command is about.
#[derive(Debug, Clone, Default)]
pub(crate) struct HostOptions {
    /// The hosts that are meant; all if it has no term.
    pub on: Expression,
    /// The hosts that are not meant.
    pub except: Expression,
    /// The groups that are meant, as the hosts name them; all if there is none.
    pub groups: Vec<String>,
}
