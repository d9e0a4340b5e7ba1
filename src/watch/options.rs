//! Checked options of the command.

use std::{fmt, time::Duration};

use crate::{
    config::Listen,
    execute::RunOptions,
    fleet::{Fleet, FleetError},
};

/// Reads the fleet again, and selects the groups of the command line.
pub(crate) type LoadFleet = Box<dyn Fn() -> Result<Fleet, FleetError>>;

/// Checked options of the command.
pub(crate) struct Options {
    /// The fleet at the start.
    pub fleet: Fleet,
    /// Reads the fleet again after a SIGHUP.
    pub load: LoadFleet,
    /// The time in which the content must not change before a run.
    pub debounce: Duration,
    /// The address of the metrics.
    pub listen: Option<Listen>,
    /// One run, and its exit code.
    pub once: bool,
    /// The options that every command with a run has.
    pub shared: RunOptions,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("fleet", &self.fleet)
            .field("debounce", &self.debounce)
            .field("listen", &self.listen)
            .field("once", &self.once)
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}
