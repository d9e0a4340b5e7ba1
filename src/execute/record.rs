//! The plan as the journal keeps it.

use super::context::RunContext;
use crate::{
    assertion::Expectation,
    fleet::outside_order,
    inventory::HostName,
    plan::Plan,
    runs::{Readings, Record},
    step::{PlannedInstance, PriorReadings},
};

pub(super) fn record<'a>(context: &RunContext<'a>, plan: &'a Plan) -> Record<'a> {
    let contents = plan
        .steps()
        .flat_map(|s| &s.changes)
        .flat_map(|c| [c.from.as_ref(), Some(&c.to)])
        .flatten();
    Record {
        id: context.id,
        host: HostName::local(),
        verb: context.verb,
        of: context.of,
        back: context.back,
        reason: context.reason,
        command: secretless(std::env::args_os().map(|arg| arg.to_string_lossy().into_owned())),
        groups: context.groups,
        order: outside_order(context.groups, context.order),
        targets: plan.targets().into_iter().map(|c| c.report(None)).collect(),
        instances: plan.instances().collect(),
        readings: plan
            .steps()
            .flat_map(|s| &s.instances)
            .filter_map(|m| readings(context, m))
            .collect(),
        waves: plan.waves.len(),
        contents: contents.collect(),
    }
}

/// Returns the answers of an instance from before the run, where its group compares with them. A
/// run that continues this one needs them.
fn readings<'a>(context: &RunContext<'_>, member: &'a PlannedInstance) -> Option<Readings<'a>> {
    let compares = member
        .group
        .confirm
        .iter()
        .any(|assertion| assertion.expectation == Expectation::Changed);
    let answers = match &member.prior_readings {
        PriorReadings::Before(kept) | PriorReadings::After(kept) => kept,
        // The earlier run may have signalled it, so its baseline is of an unknown config.
        PriorReadings::None if context.of.is_some() => return None,
        PriorReadings::None => &member.baseline,
    };
    compares.then_some(Readings {
        pid: member.id.0,
        started: member.id.1,
        answers: answers.into(),
    })
}

/// Removes the values of `--set` from a command line.
fn secretless(args: impl Iterator<Item = String>) -> Vec<String> {
    let mut is_value = false;
    args.map(|arg| {
        let was_value = std::mem::replace(&mut is_value, arg == "--set");
        let pair = match arg.strip_prefix("--set=") {
            Some(pair) => Some(("--set=", pair)),
            None => was_value.then_some(("", arg.as_str())),
        };
        match pair {
            Some((option, pair)) => {
                format!("{option}{}=..", pair.split('=').next().unwrap_or_default())
            }
            None => arg,
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_set_are_not_kept() {
        let args = [
            "hello",
            "broadcast",
            "--set",
            "a=b=c",
            "--set=d=e",
            "--reason",
            "f=g",
        ];
        assert_eq!(
            secretless(args.map(String::from).into_iter()),
            [
                "hello",
                "broadcast",
                "--set",
                "a=..",
                "--set=d=..",
                "--reason",
                "f=g"
            ]
        );
    }
}
