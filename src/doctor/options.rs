//! The options of `hello doctor`.

use crate::{fleet::Fleet, inventory::Expression, report::Output};

/// The part of each examination that is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Its checks.
    Checks,
    /// Its group, for `fleet.toml`.
    Group,
}

/// Checked options.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// The process to check; none for every match of the fleet.
    pub pid: Option<i32>,
    /// The hosts that are meant, where the fleet has hosts.
    pub on: Expression,
    /// The hosts that are not meant.
    pub except: Expression,
    /// The groups that are meant, as the hosts name them; all if there is none.
    pub groups: Vec<String>,
    /// The fleet, read and selected. Without any group, the process is checked by its kind.
    pub fleet: Fleet,
    pub shown: Shown,
    /// The format on stdout; `Screen` is a line for each check.
    pub output: Output,
}
