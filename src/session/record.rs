//! The plan as the journal keeps it.

use super::context::RunContext;
use crate::{
    assertion::Expectation,
    fleet::outside_order,
    plan::Plan,
    runs::{Readings, Record},
    step::{PlannedInstance, PriorReadings},
};

pub(super) fn record<'a>(context: &'a RunContext, plan: &'a Plan) -> Record<'a> {
    let contents = plan
        .steps()
        .flat_map(|s| &s.changes)
        .flat_map(|c| [c.from.as_ref(), Some(&c.to)])
        .flatten();
    Record {
        id: &context.options.id,
        host: context.options.host.clone(),
        verb: context.verb,
        of: context.of.as_deref(),
        back: context.back,
        claimed: context.options.claimed.as_ref(),
        reason: context.options.reason.as_deref(),
        command: context.options.command.clone(),
        groups: &context.groups,
        order: outside_order(&context.groups, &context.order),
        targets: plan.targets().into_iter().map(|c| c.report(None)).collect(),
        instances: plan.instances().collect(),
        readings: plan
            .steps()
            .flat_map(|s| &s.instances)
            .filter_map(|m| readings(context, m))
            .collect(),
        waves: plan.waves.len(),
        contents: contents.collect(),
        over: None,
        part_of: context.part_of.clone(),
    }
}

/// Returns the answers of an instance from before the run, where its group compares with them. A
/// run that continues this one needs them.
fn readings<'a>(context: &RunContext, member: &'a PlannedInstance) -> Option<Readings<'a>> {
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
