//! Commands that go on with a run.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use super::{history::state_dir, refusal::fail, run::run_mutating, validate::Validate};
use crate::{
    event::Verdict,
    fleet::{self, Fleet},
    report::Output,
    resume,
    runs::{Retention, Verb},
};

#[derive(Debug, clap::Args)]
pub(super) struct ResumeArgs {
    /// The run, by its id or how that begins; else the newest that is open.
    run: Option<String>,
    /// Today's fleet, where the groups in the run's journal were wrong: its groups take the place
    /// of those of their name.
    #[arg(long, value_name = "FILE")]
    fleet: Option<PathBuf>,
    /// strict: every instance must have a validator and pass it; auto: where one is known; off:
    /// none is run. Alone it means strict.
    #[arg(
        long,
        value_enum,
        value_name = "HOW",
        default_value = "auto",
        default_missing_value = "strict",
        num_args = 0..=1,
        require_equals = true
    )]
    validate: Validate,
    /// Prepare, show, and touch nothing.
    #[arg(long)]
    dry_run: bool,
    /// Whose endpoint is silent goes along and is proven by the config alone; where an old config
    /// is brought back, always.
    #[arg(long)]
    include_unresponsive: bool,
    /// Per instance, from its signal to its proof; else what the groups of the run say.
    #[arg(long, value_parser = fleet::parse_duration)]
    timeout: Option<Duration>,
    /// Why; kept in the journal.
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// How long another run's lock is waited for.
    #[arg(long, default_value = "0s", value_parser = fleet::parse_duration)]
    lock_timeout: Duration,
    /// Which runs are kept when this one has ended: the last N, those up to that AGE, or both
    /// limits. Open ones always are.
    #[arg(long, value_name = "N|AGE|N,AGE", default_value = "50,30d")]
    keep: Retention,
    /// Where runs are kept.
    #[arg(long, value_name = "DIR", env = "HELLO_STATE")]
    state: Option<PathBuf>,
    /// What stdout carries.
    #[arg(short, long, value_enum, default_value_t = Output::Screen)]
    pub(super) output: Output,
    /// No progress lines.
    #[arg(short, long)]
    quiet: bool,
    /// A line for every instance that is signalled, also where there are many.
    #[arg(short, long, conflicts_with = "quiet")]
    verbose: bool,
}

pub(super) fn run(verb: Verb, args: ResumeArgs) -> ExitCode {
    let (state, flag) = match state_dir(args.state) {
        Ok(place) => place,
        Err(why) => return fail(Verdict::Usage.exit(), &why),
    };
    let fleet = match args
        .fleet
        .map(|path| Fleet::load(&path)?.select(&[], true))
        .transpose()
    {
        Ok(fleet) => fleet,
        Err(why) => return fail(Verdict::Usage.exit(), &why.to_string()),
    };
    let options = resume::Options {
        fleet,
        verb,
        run: args.run,
        validate: args.validate.into(),
        dry_run: args.dry_run,
        include_unresponsive: args.include_unresponsive,
        timeout: args.timeout,
        lock_timeout: args.lock_timeout,
        reason: args.reason,
        keep: args.keep,
        state,
        state_args: flag,
        output: args.output,
        quiet: args.quiet,
        verbose: args.verbose,
    };
    run_mutating(|halts| resume::run(options, halts))
}
