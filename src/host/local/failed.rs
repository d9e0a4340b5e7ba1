//! An instance that proved nothing, or the successor that took its place.

use crate::{
    assertion::Showing,
    event::{Direction, Failure, Instance, Outcome, ReloadsBy},
    host::{
        probe::{limits::ProbeLimits, values::showing},
        reload::{context::ProofContext, restart_command, successor},
    },
    step::PlannedInstance,
};

/// Returns the instance with its failure, or the successor that took the place of a process that
/// ended.
pub(crate) async fn failed_instance(
    mut planned: PlannedInstance,
    mut failure: Failure,
    context: ProofContext<'_>,
    limits: &ProbeLimits,
) -> PlannedInstance {
    context.slot.give_back();
    if showing(&planned) == Showing::Open {
        let lines = limits.logs.context(&planned).await;
        failure.text += &log_text(&lines);
        planned.instance.log.extend(lines);
    }
    let outcome = match (context.direction, failure.kind.outcome()) {
        (_, Outcome::Died) => Outcome::Died,
        (Direction::Back, _) => Outcome::RevertFailed,
        (Direction::Forward, outcome) => outcome,
    };
    if outcome == Outcome::Died
        && let Some(successor) = successor_of(&planned, context, limits).await
    {
        return successor;
    }
    if outcome == Outcome::Died || planned.instance.outcome == Outcome::Died {
        planned.instance.start = restart_command::command(&planned);
    }
    planned.instance.proof = None;
    // The first failure stays; the operator needs the reason why the rollback failed as well.
    if context.direction.is_back()
        && outcome == Outcome::RevertFailed
        && let Some(first) = &mut planned.instance.failure
    {
        if first.text != failure.text {
            first.text = format!("{}; after the rollback: {}", first.text, failure.text);
        } else if planned.instance.reloads_by == Some(ReloadsBy::Command) {
            first.text += "; after the rollback: the same";
        }
    }
    planned.fail(outcome, failure);
    planned
}

/// Returns the last lines of the log of an instance, as they follow its failure.
fn log_text(lines: &[String]) -> String {
    let quoted: Vec<String> = lines.iter().map(|line| format!("`{line}`")).collect();
    if quoted.is_empty() {
        String::new()
    } else {
        format!("; its log: {}", quoted.join(", "))
    }
}

/// Returns the process that took the place of an instance, proven or with its failure. None if
/// there is no such process, or it has ended too.
async fn successor_of(
    planned: &PlannedInstance,
    context: ProofContext<'_>,
    limits: &ProbeLimits,
) -> Option<PlannedInstance> {
    let found = successor::find_successor(planned, context.surveyed, limits).await?;
    let proven = successor::prove(&found, planned, context, planned.timeout, limits).await;
    let mut new = match proven {
        Ok(new) => new,
        Err(failure) if failure.kind.outcome() == Outcome::Died => return None,
        Err(failure) => {
            let instance = Instance {
                wave: planned.instance.wave,
                ..found.instance(&planned.group)
            };
            let mut new = PlannedInstance {
                instance,
                identity: found.identity(&planned.group),
                attempt_seq: 0,
                ..planned.clone()
            };
            new.fail(not_proven(context.direction), failure);
            new
        }
    };
    new.instance.successor_of = Some(planned.instance.pid);
    Some(new)
}

/// Returns the outcome of an instance that did not prove its config in time.
pub(crate) fn not_proven(direction: Direction) -> Outcome {
    if direction.is_back() {
        Outcome::RevertFailed
    } else {
        Outcome::TimedOut
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::{cell::RefCell, time::Duration};

    use super::*;
    use crate::{
        assertion::Expectation,
        host::{local::host::LocalHost, parallel::admission::Slot},
        tests::{
            probed::silent,
            unprivileged::{HIDDEN, unprivileged},
        },
    };

    #[test]
    fn a_successor_that_cannot_be_held_has_not_ended() {
        let failure = unprivileged(|| {
            let (mut new, _) = silent(Expectation::Changed);
            new.instance.pid = HIDDEN;
            let (host, slot) = (LocalHost::new("run"), Slot::default());
            let signalled = RefCell::default();
            let context = host.proof_context(&[], Direction::Forward, &slot, &signalled);
            let limits = ProbeLimits::default();
            let proof = successor::proven(&mut new, context, Duration::ZERO, &limits);
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_all().build().unwrap();
            runtime.block_on(proof).unwrap_err()
        });
        assert_eq!(failure.kind.outcome(), Outcome::TimedOut);
        assert!(
            failure.text.contains("Permission denied"),
            "{}",
            failure.text
        );
    }
}
