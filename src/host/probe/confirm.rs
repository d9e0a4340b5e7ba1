//! Probes an instance until the expected config is proven, it refused, it died, or the deadline
//! passed.

use std::time::{Duration, Instant};

use tokio::sync::{Notify, SemaphorePermit};

use crate::{
    event::{Failure, FailureKind, Outcome},
    host::{
        net::{error::HttpError, http::QUICK},
        parallel::admission::Slot,
        probe::{
            attempt::{Attempt, AttemptError},
            endpoint::{follow_moved_endpoint, foreign_listeners, other_speaker, sharing_text},
            expected::Expected,
            limits::{LISTENERS_MAX_AGE, ProbeLimits},
            samples::Samples,
            workers::lasting,
        },
        proc::{
            pidfd::{SignalledProcess, end_of, has_ended},
            tree::{Child, children},
        },
    },
    kernel::Stat,
    step::PlannedInstance,
};

/// The pause after the first attempt. It doubles after each one, up to [`MAX_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(1);
/// The longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_millis(100);

/// Why the old config alone does not prove a rollback.
const STILL_OPEN: &str =
    "serves the old config, and nothing shows that its reload of the new one is over";

/// Waits `limit` from the signal on, for an instance of which nothing can be probed.
///
/// # Errors
/// Fails if the process ends before that.
pub(crate) async fn outlives_signal(
    signalled: &SignalledProcess,
    limit: Duration,
) -> Result<(), Failure> {
    let deadline = (signalled.at + limit).into();
    let _ = tokio::time::timeout_at(deadline, end_of(&signalled.pidfd)).await;
    // The watch may have failed, so the pidfd is polled again.
    check_lives(signalled)
}

/// Polls until `expected` is proven: at once, then after 1, 2, 4 .. 100 ms. Returns the time since
/// the signal. Writes into `member` its endpoint at the end and the old workers that will end
/// later. `permit` is the permit of the first attempt, if the caller holds it already.
///
/// # Errors
/// Fails if the instance died or refused, or if the attempt that ended past the deadline proved
/// nothing.
pub(crate) async fn confirm(
    signalled: &SignalledProcess,
    member: &mut PlannedInstance,
    expected: &Expected,
    limits: &ProbeLimits,
    slot: &Slot,
    permit: Option<SemaphorePermit<'_>>,
) -> Result<Duration, Failure> {
    let attempted = Notify::new();
    // Most instances that are probed at once have proven it with that. The attempt has a limit of
    // its own, so the end of the process is watched only after it.
    if permit.is_none() {
        attempted.notify_one();
    }
    let polls = Polls {
        signalled,
        expected,
        limits,
        slot,
        attempted: &attempted,
        limit: member.timeout,
        pause: FIRST_PAUSE,
        unresponsive: member.unresponsive,
        endpoint_checked_at: signalled.at,
        samples: Samples::of(expected.samples),
    };
    let end = async {
        attempted.notified().await;
        end_of(&signalled.pidfd).await;
    };
    tokio::select! {
        biased;
        () = end => Err(died()),
        result = polls.run(member, permit) => result,
    }
}

/// The attempts at one proof.
struct Polls<'a> {
    signalled: &'a SignalledProcess,
    expected: &'a Expected,
    limits: &'a ProbeLimits,
    slot: &'a Slot,
    /// Notified after the first attempt.
    attempted: &'a Notify,
    /// From the signal to the deadline.
    limit: Duration,
    /// The pause after the next attempt.
    pause: Duration,
    /// True if an attempt got no answer: the next ones take a permit for unresponsive instances.
    unresponsive: bool,
    endpoint_checked_at: Instant,
    samples: Samples,
}

impl Polls<'_> {
    async fn run(
        mut self,
        member: &mut PlannedInstance,
        mut permit: Option<SemaphorePermit<'_>>,
    ) -> Result<Duration, Failure> {
        loop {
            // An attempt that began before the deadline may end past it; only then is the wait
            // over.
            let late = self.signalled.at.elapsed() >= self.limit;
            let result = self.attempt(member, &mut permit, late).await;
            self.record_new_children(member);
            let failure = match result {
                Ok(draining) => {
                    // An answer that came after its end is another process's.
                    check_lives(self.signalled)?;
                    let took = self.signalled.at.elapsed();
                    match other_speaker(member, self.expected, self.limits) {
                        // Everything holds, and must go on to hold.
                        None if self.expected.until.waits(late) => {
                            self.end_attempt();
                            self.wait().await;
                            continue;
                        }
                        None if self.expected.until.lacks_other() => {
                            return Err(Failure {
                                kind: Outcome::Unconfirmed.into(),
                                text: STILL_OPEN.into(),
                            });
                        }
                        None => {
                            member.instance.draining = lasting(draining).await;
                            return Ok(took);
                        }
                        Some(failure) => failure,
                    }
                }
                Err(error) => {
                    // The end of the process counts before any answer or silence.
                    check_lives(self.signalled)?;
                    self.failure_of(error)?
                }
            };
            self.end_attempt();
            if late {
                return Err(self.past_deadline(failure, member));
            }
            if self.follow_moved_endpoint(member) {
                continue;
            }
            self.wait().await;
        }
    }

    /// Makes one attempt, under `permit` or a permit of its own.
    async fn attempt(
        &mut self,
        member: &PlannedInstance,
        permit: &mut Option<SemaphorePermit<'_>>,
        late: bool,
    ) -> Result<Vec<Child>, AttemptError> {
        let limits = self.limits;
        let _unresponsive = if self.unresponsive && permit.is_none() {
            limits.unresponsive.acquire().await.ok()
        } else {
            None
        };
        let responsive = match permit.take() {
            None if !self.unresponsive => limits.responsive.acquire().await.ok(),
            given => given,
        };
        let attempt = Attempt {
            signalled: self.signalled,
            member,
            expected: self.expected,
            limits,
        };
        // On the heap only during the attempt: most instances of a large fleet wait for a permit.
        let attempt = Box::pin(attempt.sampled(&mut self.samples, late));
        limits
            .carried(responsive, attempt)
            .await
            .unwrap_or_else(|| {
                let why = HttpError::NoAnswer(QUICK);
                Err(AttemptError::Silent(why.to_string()))
            })
    }

    /// Adds to `member` the children that it did not have before the signal, if one of them may
    /// become its successor.
    fn record_new_children(&self, member: &mut PlannedInstance) {
        let Some(before) = &self.expected.children_before else {
            return;
        };
        let id = |pid: &i32| Some((*pid, Stat::of(*pid).ok()?.started));
        let now = children(self.signalled.pid).unwrap_or_default();
        let new: Vec<Child> = now
            .difference(before)
            .filter_map(id)
            .filter(|child| !member.new_children.contains(child))
            .collect();
        member.new_children.extend(new);
    }

    /// Releases the slot, and lets the end of the process be watched.
    fn end_attempt(&self) {
        self.slot.give_back();
        self.attempted.notify_one();
    }

    /// Returns the failure that ends the wait at the deadline.
    ///
    /// # Errors
    /// Fails if the instance refused, which ends the wait at once.
    fn failure_of(&mut self, error: AttemptError) -> Result<Failure, Failure> {
        let timed_out = Outcome::TimedOut.into();
        match error {
            AttemptError::Refused(text) => Err(Failure {
                kind: Outcome::Rejected.into(),
                text,
            }),
            AttemptError::NotYet(text) => Ok(Failure {
                kind: timed_out,
                text,
            }),
            AttemptError::OldWorkerListening(text) => Ok(Failure {
                kind: FailureKind::ForeignListener,
                text,
            }),
            AttemptError::Silent(text) => {
                self.unresponsive = true;
                Ok(Failure {
                    kind: timed_out,
                    text,
                })
            }
        }
    }

    /// Returns the failure of the last attempt as the end of the wait. Foreign listeners that share
    /// the address are named as its cause.
    fn past_deadline(&self, failure: Failure, member: &PlannedInstance) -> Failure {
        let text = format!("{} after {:?}", failure.text, self.limit);
        let foreign = if failure.kind == FailureKind::ForeignListener {
            Vec::new()
        } else {
            // The failure is certain without them.
            foreign_listeners(member, self.limits).unwrap_or_default()
        };
        if foreign.is_empty() {
            return Failure { text, ..failure };
        }
        Failure {
            kind: FailureKind::ForeignListener,
            text: format!("{text}; {}", sharing_text(&foreign)),
        }
    }

    /// Looks up the endpoint again, but not after every attempt. Returns whether it has moved.
    fn follow_moved_endpoint(&mut self, member: &mut PlannedInstance) -> bool {
        if self.endpoint_checked_at.elapsed() < LISTENERS_MAX_AGE {
            return false;
        }
        self.endpoint_checked_at = Instant::now();
        let has_moved = follow_moved_endpoint(member, self.limits);
        if has_moved {
            // The address before the move was the other config's.
            self.expected.until.mark_other_seen();
        }
        has_moved
    }

    /// Waits until the next attempt.
    async fn wait(&mut self) {
        tokio::time::sleep(jittered(self.pause)).await;
        self.pause = (self.pause * 2).min(MAX_PAUSE);
    }
}

/// Fails if the process has ended.
fn check_lives(signalled: &SignalledProcess) -> Result<(), Failure> {
    if has_ended(&signalled.pidfd) {
        Err(died())
    } else {
        Ok(())
    }
}

fn died() -> Failure {
    Failure {
        kind: Outcome::Died.into(),
        text: "the process ended".into(),
    }
}

/// Spreads the polls of many instances: returns between half of `pause` and all of it.
fn jittered(pause: Duration) -> Duration {
    pause / 2 + pause.mul_f64(fastrand::f64() / 2.0)
}
