//! The options that every command with a run has.

use std::{path::PathBuf, time::Duration};

use super::command::command_line;
use crate::{
    inventory::HostName,
    protocol::Validate,
    report::{Exports, Output, Reporter},
    runs::Retention,
    session::SessionOptions,
};

/// Checked options that `broadcast`, `resume` and `revert` share.
#[derive(Debug, Clone)]
pub(crate) struct RunOptions {
    /// How the new config is validated.
    pub validate: Validate,
    /// Prepare, show, and drop what was staged.
    pub dry_run: bool,
    /// Include instances whose endpoint is unresponsive. The config alone proves them.
    pub include_unresponsive: bool,
    /// The longest time from an instance's signal to its proof; none for that of its group.
    pub timeout: Option<Duration>,
    /// The longest wait for the lock of another run.
    pub lock_timeout: Duration,
    /// The operator's reason; kept in the journal.
    pub reason: Option<String>,
    /// The state directory.
    pub state: PathBuf,
    /// ` --state DIR` to append to suggested commands; empty for the default directory.
    pub state_args: String,
    /// Which runs are kept when this one has ended.
    pub keep: Retention,
    /// What stdout carries.
    pub output: Output,
    /// The reports for a CI system.
    pub exports: Exports,
    /// No progress lines.
    pub quiet: bool,
    /// A line for every instance.
    pub verbose: bool,
}

impl RunOptions {
    /// Returns the options that each host of the run `id` needs.
    #[must_use]
    pub(crate) fn of_session(&self, id: &str) -> SessionOptions {
        SessionOptions {
            id: id.into(),
            host: HostName::local(),
            validate: self.validate,
            dry_run: self.dry_run,
            include_unresponsive: self.include_unresponsive,
            timeout: self.timeout,
            lock_timeout: self.lock_timeout,
            claimed: None,
            reason: self.reason.clone(),
            command: command_line(),
            state: self.state.clone(),
            state_args: self.state_args.clone(),
            keep: self.keep,
        }
    }

    /// Returns the report of a run with these options.
    #[must_use]
    pub(crate) fn reporter(&self) -> Reporter {
        Reporter::new(self.output, self.quiet, self.verbose).exporting(self.exports.clone())
    }
}
