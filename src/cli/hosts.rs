//! `hello hosts`, and the options that select hosts.

use std::process::ExitCode;

use super::{
    fleet_file::FleetArg, refusal::UsageError, run::run_readonly, state::StateArg,
    values::OutputArg,
};
use crate::{fleet::Share, inventory::Expression, reach};

/// The options that select hosts.
#[derive(Debug, Default, clap::Args)]
pub(super) struct SelectArgs {
    /// Select these hosts.
    ///
    /// TERM is a glob of names, a range such as edge-[01-40], LABEL=GLOB, LABEL, or !TERM for the
    /// others. Terms form a union; each must fit a host.
    #[arg(help_heading = "Hosts", long, value_name = "TERM,..")]
    on: Vec<Expression>,
    /// Do not select these hosts.
    #[arg(help_heading = "Hosts", long, value_name = "TERM,..")]
    except: Vec<Expression>,
}

impl SelectArgs {
    /// Returns what `--on` and what `--except` select.
    pub(super) fn expressions(self) -> (Expression, Expression) {
        (joined(self.on), joined(self.except))
    }
}

/// The options of a run over hosts.
#[derive(Debug, Default, clap::Args)]
pub(super) struct RunHostsArgs {
    #[command(flatten)]
    select: SelectArgs,
    /// Go without up to this many hosts that are not reached.
    ///
    /// A number, or a percentage of the selected hosts. Such a host is skipped and named, and the
    /// run is at best partial. The option replaces `max_unreachable` of the fleet file.
    #[arg(help_heading = "Hosts", long, value_name = "N|N%")]
    max_unreachable: Option<Share>,
    /// End the sessions of another coordinator first.
    ///
    /// On each host, a session of this run or of its groups ends as at the end of its lease: it
    /// finishes its batch, and its run stays open. Without the option such a host is busy (9).
    #[arg(help_heading = "Hosts", hide_short_help = true, long)]
    take_over: bool,
}

impl RunHostsArgs {
    /// Tells whether none of the options is given.
    pub(super) fn is_empty(&self) -> bool {
        let selects = !self.select.on.is_empty() || !self.select.except.is_empty();
        !selects && self.max_unreachable.is_none() && !self.take_over
    }

    /// Tells whether sessions of another coordinator are ended first.
    pub(super) fn takes_over(&self) -> bool {
        self.take_over
    }

    /// Returns what `--on` and `--except` select, and the value of `--max-unreachable`.
    pub(super) fn parts(self) -> (Expression, Expression, Option<Share>) {
        let (on, except) = self.select.expressions();
        (on, except, self.max_unreachable)
    }
}

fn joined(expressions: Vec<Expression>) -> Expression {
    let mut all = Expression::default();
    expressions.into_iter().for_each(|one| all.extend(one));
    all
}

#[derive(Debug, clap::Args)]
pub(super) struct HostsArgs {
    #[command(flatten)]
    select: SelectArgs,
    #[command(flatten)]
    fleet: FleetArg,
    #[command(flatten)]
    state: StateArg,
    #[command(flatten)]
    output: OutputArg,
}

pub(super) fn hosts(args: HostsArgs) -> ExitCode {
    let (on, except) = args.select.expressions();
    let state = args.state.resolve().ok().map(|state| state.path);
    match args.fleet.load_with_hosts() {
        Ok(fleet) => run_readonly(reach::run(reach::Options {
            fleet,
            on,
            except,
            state,
            output: args.output.form(),
        })),
        Err(e) => UsageError::from(e).fail(),
    }
}
