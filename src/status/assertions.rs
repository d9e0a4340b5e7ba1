//! Checks of an instance that does not report its config: pending restarts and assertions.

use super::row::Row;
use crate::{
    assertion::{Expectation, Showing, entry_of},
    host::{
        local::baseline::take_baseline,
        net::sockets::Listeners,
        probe::limits::ProbeLimits,
        validate::{
            current::CurrentTarget,
            restart::{self, quoted},
        },
    },
    step::PlannedInstance,
};

/// Checks that no key waits for a restart, that the assertions of the group can be read and hold,
/// and that none of them shows a refused reload.
pub(super) async fn check(
    row: &mut Row,
    planned: &mut PlannedInstance,
    current: &[CurrentTarget],
    (listeners, limits): (&Listeners, &ProbeLimits),
) {
    match restart::pending(planned).await {
        Ok(keys) if keys.is_empty() => {}
        Ok(keys) => row.faults.push(format!(
            "runs an older config than its disk: a restart is needed for {}",
            quoted(&keys)
        )),
        Err(why) => row.faults.push(why.to_string()),
    }
    let group = planned.group.clone();
    let has_assertions = !group.confirm.is_empty() || !group.reject.is_empty();
    if !has_assertions || (group.needs_endpoint() && row.endpoint.is_none()) {
        return;
    }
    if let Err(error) = take_baseline(planned, listeners, limits).await {
        row.faults.push(error.refusal.to_string());
    }
    row.faults.extend(unmet(planned, current));
    let refused = group
        .reject
        .iter()
        .zip(&planned.rejected)
        .find(|(assertion, reading)| {
            !assertion.needs_signal()
                && reading
                    .as_ref()
                    .is_some_and(|reading| assertion.holds_alone(reading))
        });
    if let Some((assertion, _)) = refused {
        row.faults.push(format!(
            "{} shows that its last reload was refused",
            assertion.source.describe(&planned.instance.endpoint)
        ));
    }
}

/// Returns an assertion that does not hold and takes its value from the config on the disk. A
/// literal value does not count: it may be for the next config.
fn unmet(planned: &PlannedInstance, current: &[CurrentTarget]) -> Option<String> {
    let bytes = current
        .first()
        .and_then(|target| target.disk.as_ref().ok()?.file());
    let showing = if current.iter().any(|target| target.secret) {
        Showing::Secret
    } else {
        Showing::Open
    };
    let confirm = &planned.group.confirm;
    let holds = |index: usize| {
        let reading = planned.baseline.get(index).and_then(Option::as_deref);
        let resolved = confirm[index].resolved(bytes);
        resolved.is_ok_and(|it| reading.is_some_and(|reading| it.holds_alone(reading)))
    };
    let readings = confirm.iter().zip(&planned.baseline).enumerate();
    readings
        .into_iter()
        .find_map(|(index, (assertion, reading))| {
            if assertion.any.is_some() && entry_of(confirm, index).any(holds) {
                return None;
            }
            let resolved = assertion.resolved(bytes).ok()?;
            let is_plain = matches!(
                resolved.expectation,
                Expectation::Equals(_) | Expectation::Contains(_) | Expectation::Matches(_)
            );
            if !is_plain
                || assertion.source.is_log()
                || resolved.expectation == assertion.expectation
            {
                return None;
            }
            let reading = reading
                .as_deref()
                .filter(|reading| !resolved.holds_alone(reading))?;
            Some(format!(
                "{} {}",
                assertion.source.describe(&planned.instance.endpoint),
                resolved.unmet(Some(reading), showing.of(&assertion.source))
            ))
        })
}
