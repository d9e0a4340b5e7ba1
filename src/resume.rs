//! `hello resume` and `hello revert`: both continue an earlier run, forward or back.

use crate::{
    event::{Abort, Event, Interrupts, Verdict},
    execute::execute,
    inventory::HostName,
    report::{CommandContext, Look, RunReport, Summary},
    runs::{self, ShortIds, Verb},
    screen,
    session::{Caller, RecoverOrder, survey_recovery},
};

mod last;
mod open_on_hosts;
mod options;
mod over_hosts;

pub(crate) use self::{last::last, options::Options};

/// Runs the command to its verdict, and reports every end.
pub(crate) async fn run(options: Options, mut interrupts: Interrupts) -> Verdict {
    let mut reporter = options.shared.reporter();
    let report = carry_out(&options, &mut interrupts, &mut |host, event| {
        reporter.event_of(host, event);
    })
    .await;
    let summary = summarize(&options, report);
    reporter.finish(&summary);
    summary.verdict
}

/// Carries out the command, and returns its end. A run that did not begin has an end too.
pub(crate) async fn carry_out(
    options: &Options,
    interrupts: &mut Interrupts,
    on_event: &mut impl FnMut(&HostName, &Event),
) -> RunReport {
    let report = attempt(options, interrupts, on_event).await;
    report.unwrap_or_else(RunReport::from)
}

/// Adds the commands to type next.
#[must_use]
pub(crate) fn summarize(options: &Options, report: RunReport) -> Summary {
    let context = command_context(options, &report);
    Summary::new(report, &context)
}

fn command_context(options: &Options, report: &RunReport) -> CommandContext {
    let run = match &options.run {
        _ if !report.run.is_empty() => format!(" {}", report.run),
        Some(run) if report.verdict != Verdict::NoMatch => format!(" {}", screen::quote(run)),
        _ => String::new(),
    };
    let command = match options.verb {
        Verb::Revert => "hello revert",
        _ => "hello resume",
    };
    CommandContext {
        look: Look::History(format!("hello history{run}{}", options.shared.state_args)),
        command,
        doctor: None,
        short_run: ShortIds::of(&options.shared.state)
            .lasting(&report.run)
            .to_owned(),
        state_args: options.shared.state_args.clone(),
        dry_run: options.shared.dry_run,
    }
}

async fn attempt(
    options: &Options,
    interrupts: &mut Interrupts,
    on_event: &mut impl FnMut(&HostName, &Event),
) -> Result<RunReport, Abort> {
    if let Some(run) = over_hosts::find(options, interrupts).await? {
        return over_hosts::attempt(options, run, interrupts, on_event).await;
    }
    let mut of_this_host = |event: &Event| on_event(&HostName::local(), event);
    let order = RecoverOrder {
        verb: options.verb,
        run: options.run.clone(),
        fleet: options.fleet.clone(),
        caller: Caller::Operator,
        options: options.shared.of_session(&runs::new_id()),
    };
    let prepared = survey_recovery(order, interrupts, &mut of_this_host).await?;
    execute(prepared, interrupts, &mut of_this_host).await
}
