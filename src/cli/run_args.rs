//! The options that `broadcast`, `resume` and `revert` share.

use std::time::Duration;

use super::{
    state::{NoStateDir, StateArg},
    values::{OutputArg, Validate},
};
use crate::{execute::RunOptions, fleet, runs::Retention};

#[derive(Debug, clap::Args)]
pub(super) struct RunArgs {
    /// Run validators: auto (those that are known), strict, or off. Alone: strict.
    ///
    /// auto: run a validator where one is known. strict: every instance must have a validator and
    /// pass it. off: run none. `--validate` without a value means strict.
    #[arg(
        long,
        value_enum,
        value_name = "HOW",
        default_value = "auto",
        default_missing_value = "strict",
        num_args = 0..=1,
        require_equals = true
    )]
    pub(super) validate: Validate,
    /// Prepare and show the run, and touch nothing.
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Also reload instances whose endpoint does not answer, after all others.
    ///
    /// The new config alone proves such an instance, because there is no baseline. Without the
    /// option, up to `max_unresponsive` of them are skipped per group; if there are more, the run
    /// is refused. A run that restores an old config always includes them.
    #[arg(long)]
    pub(super) include_unresponsive: bool,
    /// Confirm each instance within this time after its signal. [default: that of its group]
    #[arg(long, value_name = "TIME", value_parser = fleet::parse_duration)]
    timeout: Option<Duration>,
    /// Record this reason in the journal.
    #[arg(long, value_name = "TEXT")]
    pub(super) reason: Option<String>,
    /// Wait up to this time for the lock of another run.
    #[arg(
        long,
        value_name = "TIME",
        default_value = "0s",
        value_parser = fleet::parse_duration
    )]
    lock_timeout: Duration,
    #[command(flatten)]
    state: StateArg,
    /// Keep the last N runs, runs up to this AGE, or both limits.
    ///
    /// Older runs are removed when this one has ended. Open runs are always kept.
    #[arg(long, value_name = "N|AGE|N,AGE", default_value = "50,30d")]
    keep: Retention,
    #[command(flatten)]
    output: OutputArg,
    /// Print no progress lines.
    #[arg(short, long)]
    quiet: bool,
    /// Print a line for every instance, also in a large fleet.
    #[arg(short, long, conflicts_with = "quiet")]
    verbose: bool,
}

impl RunArgs {
    /// Returns the checked options.
    ///
    /// # Errors
    /// Fails if there is no state directory.
    pub(super) fn checked(self) -> Result<RunOptions, NoStateDir> {
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
            keep: self.keep,
            output: self.output.form(),
            quiet: self.quiet,
            verbose: self.verbose,
        })
    }
}
