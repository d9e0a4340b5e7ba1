//! Instances that lost the proof of their config.

use crate::{
    event::{Event, Failure, Outcome},
    step::PlannedInstance,
};

/// Fails an instance that lost its proof. Returns the event with its new outcome.
pub(crate) fn mark_lost(planned: &mut PlannedInstance, failure: Failure) -> Event {
    let outcome = if planned.instance.outcome == Outcome::Reverted {
        Outcome::RevertFailed
    } else {
        Outcome::TimedOut
    };
    planned.instance.proof = None;
    planned.fail(outcome, no_longer_proven(failure));
    Event::of(&planned.instance)
}

/// Returns the failure of an instance that was proven before.
pub(super) fn no_longer_proven(failure: Failure) -> Failure {
    Failure {
        text: format!("no longer proven: {}", failure.text),
        ..failure
    }
}

/// Tells whether the outcome of an instance claims that it lives.
pub(super) fn claims_life(planned: &PlannedInstance) -> bool {
    claims_config(planned) || planned.instance.outcome == Outcome::Rejected
}

/// Tells whether the outcome of an instance claims which config it runs, or that it is healthy.
pub(super) fn claims_config(planned: &PlannedInstance) -> bool {
    matches!(
        planned.instance.outcome,
        Outcome::Confirmed | Outcome::Unconfirmed | Outcome::Unchanged | Outcome::Reverted
    )
}
