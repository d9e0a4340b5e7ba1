//! Probes an instance again that was proven before, without a signal.

use std::time::Instant;

use super::lost::{claims_config, no_longer_proven};
use crate::{
    event::{Failure, Outcome},
    host::{
        local::failed::failed_instance,
        probe::{confirm::confirm, limits::ProbeLimits, lost_listeners},
        proc::pidfd::{SignalError, SignalledProcess, hold},
        reload::{context::ProofContext, expectation::expected_after, successor},
    },
    step::PlannedInstance,
};

/// Probes an instance again. Returns it as it was, or with its failure, or its successor.
pub(super) async fn recheck(
    mut planned: Box<PlannedInstance>,
    context: ProofContext<'_>,
    limits: &ProbeLimits,
) -> Box<PlannedInstance> {
    let Err(failure) = still_proves(&mut planned, context, limits).await else {
        planned.proven_at = Some(Instant::now());
        return planned;
    };
    // Boxed, since it is rare, and the future of every rechecked instance would have its size.
    let failed = Box::pin(failed_instance(
        *planned,
        no_longer_proven(failure),
        context,
        limits,
    ));
    Box::new(failed.await)
}

/// Probes an instance for what it has proven.
///
/// # Errors
/// Fails if the process has ended, or an assertion does not hold any more.
async fn still_proves(
    planned: &mut PlannedInstance,
    context: ProofContext<'_>,
    limits: &ProbeLimits,
) -> Result<(), Failure> {
    let failure = |outcome: Outcome, text| Failure {
        kind: outcome.into(),
        text,
    };
    let pidfd = hold(&planned.instance).map_err(|e| match e {
        SignalError::Gone(text) => failure(Outcome::Died, text),
        SignalError::Refused(text) => failure(Outcome::TimedOut, text),
    })?;
    if !claims_config(planned) {
        return Ok(());
    }
    if planned.instance.outcome == Outcome::Unconfirmed
        && let Some(fault) = lost_listeners::fault(planned, limits)
    {
        return Err(fault);
    }
    if planned.instance.successor_of.is_some() {
        context.slot.give_back();
        // The baseline belongs to the process whose place it took.
        return Box::pin(successor::proven(planned, context, planned.timeout, limits))
            .await
            .map(drop);
    }
    let Some(expected) = expected_after(planned, context.changes, context.direction)? else {
        return Ok(());
    };
    let process = SignalledProcess {
        pid: planned.instance.pid,
        started: planned.instance.started,
        pidfd,
        at: Instant::now(),
        when: planned.signalled.unwrap_or(jiff::Timestamp::UNIX_EPOCH),
    };
    confirm(&process, planned, &expected, limits, context.slot, None)
        .await
        .map(drop)
}
