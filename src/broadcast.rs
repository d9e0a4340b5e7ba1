//! `hello broadcast`: from its options to its verdict.

use crate::{
    change::Changes,
    event::{Abort, Event, Interrupts, Verdict},
    execute::execute,
    inventory::HostName,
    report::{CommandContext, Look, RunReport, Summary},
    runs::{self, ShortIds, Verb},
    session::{BroadcastOrder, survey_broadcast},
};

mod options;
mod over_hosts;

pub(crate) use self::options::{Options, Selection};

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
    let context = command_context(options, &report.run);
    Summary::new(report, &context)
}

fn command_context(options: &Options, run: &str) -> CommandContext {
    let selection = options.fleet.arguments();
    CommandContext {
        look: Look::Status(format!(
            "hello status {selection}{}",
            options.shared.state_args
        )),
        command: match options.verb {
            Verb::Watch => "hello watch",
            _ => "hello broadcast",
        },
        doctor: Some(format!("hello doctor {selection}")),
        short_run: ShortIds::of(&options.shared.state).lasting(run).to_owned(),
        state_args: options.shared.state_args.clone(),
        dry_run: options.shared.dry_run,
    }
}

async fn attempt(
    options: &Options,
    interrupts: &mut Interrupts,
    on_event: &mut impl FnMut(&HostName, &Event),
) -> Result<RunReport, Abort> {
    if let Some(hosts) = &options.fleet.hosts {
        return over_hosts::attempt(options, hosts, interrupts, on_event).await;
    }
    let mut of_this_host = |event: &Event| on_event(&HostName::local(), event);
    let order = BroadcastOrder {
        fleet: options.fleet.clone(),
        changes: Changes::read(&options.change)?,
        overwrite: options.overwrite,
        count: options.count,
        now: options.now,
        verb: options.verb,
        replaces: options.replaces.clone(),
        options: options.shared.of_session(&runs::new_id()),
    };
    let prepared = survey_broadcast(order, interrupts, &mut of_this_host).await?;
    execute(prepared, interrupts, &mut of_this_host).await
}
