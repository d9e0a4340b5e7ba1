//! The options that `broadcast`, `resume` and `revert` share.

use std::time::Duration;

use super::{
    exports::ExportArgs,
    refusal::UsageError,
    state::{KeepArg, StateArg},
    values::{OutputArg, Validate},
};
use crate::{execute::RunOptions, fleet};

#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    /// Run validators: auto, strict or off.
    ///
    /// auto: run a validator where one is known. strict: every instance must have a validator and
    /// pass it. off: run none. `--validate` without a value means strict.
    #[arg(
        help_heading = "Checks",
        long,
        value_enum,
        hide_possible_values = true,
        value_name = "HOW",
        default_value = "auto",
        default_missing_value = "strict",
        num_args = 0..=1,
        require_equals = true
    )]
    pub(super) validate: Validate,
    /// Prepare and show the run, and touch nothing.
    #[arg(help_heading = "Checks", long)]
    pub(super) dry_run: bool,
    /// Also reload unresponsive instances.
    ///
    /// The endpoint of such an instance did not answer before the run. It comes after all others,
    /// and the new config alone proves it, because there is no baseline. Without the option, up to
    /// `max_unresponsive` of them are skipped per group; if there are more, the run is refused. A
    /// run that restores an old config always includes them.
    #[arg(help_heading = "Instances", long)]
    pub(super) include_unresponsive: bool,
    /// Confirm each instance within this time.
    ///
    /// The time begins with its signal. The option replaces `timeout` of every group.
    #[arg(
        help_heading = "Rollout",
        long,
        value_name = "TIME",
        value_parser = fleet::parse_duration
    )]
    timeout: Option<Duration>,
    /// Record this reason in the journal.
    #[arg(help_heading = "Record", long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    /// Wait up to this time for the lock of another run.
    #[arg(
        help_heading = "Record",
        hide_short_help = true,
        long,
        value_name = "TIME",
        default_value = "0s",
        value_parser = fleet::parse_duration
    )]
    lock_timeout: Duration,
    #[command(flatten)]
    state: StateArg,
    #[command(flatten)]
    keep: KeepArg,
    #[command(flatten)]
    output: OutputArg,
    #[command(flatten)]
    exports: ExportArgs,
    /// Print no progress lines.
    #[arg(help_heading = "Output", short, long)]
    quiet: bool,
    /// Print a line for every instance.
    ///
    /// In a large fleet, instances that end well are otherwise counted by wave.
    #[arg(help_heading = "Output", short, long, conflicts_with = "quiet")]
    verbose: bool,
}

impl RunArgs {
    /// Returns the checked options.
    ///
    /// # Errors
    /// Fails if there is no state directory, or if a report cannot be written.
    pub(super) fn checked(self) -> Result<RunOptions, UsageError> {
        let state = self.state.resolve()?;
        Ok(RunOptions {
            validate: self.validate.into(),
            dry_run: self.dry_run,
            include_unresponsive: self.include_unresponsive,
            timeout: self.timeout,
            lock_timeout: self.lock_timeout,
            reason: self.reason,
            state: state.path,
            state_args: state.args,
            keep: self.keep.keep,
            output: self.output.form(),
            exports: self.exports.open()?,
            quiet: self.quiet,
            verbose: self.verbose,
        })
    }
}
