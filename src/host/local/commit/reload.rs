//! Signals one instance, and waits until it is confirmed or has failed.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{
    event::{Failure, Outcome, Proof},
    fleet::Speaks,
    host::{
        local::failed::failed_instance,
        probe::limits::ProbeLimits,
        reload::{
            context::ProofContext,
            opened::Opened,
            prove::{Proven, prove},
            restart_command::restart_command,
        },
    },
    step::PlannedInstance,
};

/// Why an instance is not proven on the old config.
const NOT_VISIBLE: &str = "no assertion shows that it runs the old config again";

/// Signals an instance and waits until it is confirmed or has failed. Returns the first of its
/// targets that it was not seen to open.
///
/// Both are boxed, and rare paths are futures of their own: a run waits for up to ten thousand
/// instances at once, and each has a future of this size.
pub(super) async fn reload_and_confirm(
    mut planned: Box<PlannedInstance>,
    context: ProofContext<'_>,
    limits: &ProbeLimits,
) -> (Box<PlannedInstance>, Option<PathBuf>) {
    planned.instance.opened = None;
    let was_dead = planned.instance.outcome == Outcome::Died;
    if planned.unresponsive || was_dead {
        context.slot.give_back();
    }
    // Only a rollback has the old config on the disk again, which the process can start with.
    let result = if was_dead && context.direction.is_back() && !planned.group.revive.is_empty() {
        match Box::pin(restart_command(&planned, context, limits)).await {
            Ok(new) => return (Box::new(new), None),
            Err(failure) => {
                // The reason for its end stays first; the operator needs both.
                if let Some(first) = &mut planned.instance.failure {
                    first.text = format!("{}; {}", first.text, failure.text);
                }
                Err(failure)
            }
        }
    } else {
        prove(&mut planned, context, limits).await
    };
    match result {
        Ok(proven) => {
            limits.logs.proven(&planned);
            let not_opened = wait_for_opening(&mut planned, &proven, context).await;
            settle(&mut planned, proven, not_opened.as_ref(), context);
            (planned, not_opened)
        }
        Err(failure) => {
            let failed = Box::pin(failed_instance(*planned, failure, context, limits)).await;
            (Box::new(failed), None)
        }
    }
}

/// Records the outcome of an instance that was proven, or at least lives.
fn settle(
    planned: &mut PlannedInstance,
    proven: Proven,
    not_opened: Option<&PathBuf>,
    context: ProofContext<'_>,
) {
    let direction = context.direction;
    match proven {
        Proven::Config(proof, took) => {
            planned.proven_at = Some(Instant::now());
            // Another file may decide what it runs.
            if let Some(path) = not_opened.filter(|path| planned.assumed.contains(path)) {
                let text = format!(
                    "it was not seen to open `{}`, and its command line does not say for certain \
                     that it reads that: set the `config` that it reads in its group",
                    path.display()
                );
                planned.instance.proof = Some(Proof::None);
                planned.fail(
                    if direction.is_back() {
                        Outcome::RevertFailed
                    } else {
                        Outcome::Unconfirmed
                    },
                    Failure {
                        kind: Outcome::Unconfirmed.into(),
                        text,
                    },
                );
                return;
            }
            planned.instance.outcome = if direction.is_back() {
                Outcome::Reverted
            } else {
                Outcome::Confirmed
            };
            planned.instance.proof = Some(proof);
            planned.signal_may_be_pending = false;
            planned.instance.took_us = u64::try_from(took.as_micros()).ok();
            let is_known = !direction.is_back() || !planned.is_back_by_answers_alone();
            planned.instance.after = context
                .changes
                .first()
                .filter(|_| is_known)
                .map(|change| change.to.sha256.clone());
        }
        Proven::Life if direction.is_back() => planned.fail(
            Outcome::RevertFailed,
            Failure {
                kind: Outcome::Unconfirmed.into(),
                text: NOT_VISIBLE.into(),
            },
        ),
        Proven::Life => {
            planned.instance.outcome = Outcome::Unconfirmed;
            planned.instance.proof = Some(Proof::None);
            planned.proven_at = Some(Instant::now());
        }
    }
}

/// Records whether an instance has opened its targets since its signal. Returns the first one that
/// it was not seen to open.
async fn wait_for_opening(
    planned: &mut PlannedInstance,
    proven: &Proven,
    context: ProofContext<'_>,
) -> Option<PathBuf> {
    let remaining = if let Proven::Config(_, took) = proven {
        planned.timeout.saturating_sub(*took)
    } else {
        Duration::ZERO
    };
    // A process that speaks the protocol reports what it has read.
    let opened = if planned.group.speaks == Speaks::None {
        context.openings.of(planned, remaining).await
    } else {
        Opened::Unknown
    };
    let (is_opened, path) = match opened {
        Opened::Each => (Some(true), None),
        Opened::Not(path) => (Some(false), Some(path)),
        Opened::Unknown => (None, None),
    };
    planned.instance.opened = is_opened;
    path
}
