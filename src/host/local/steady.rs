//! Reads every assertion that compares with before the signal a second time, beside the validation:
//! a reading that changes by itself would prove any reload.

use std::time::{Duration, Instant};

use crate::{
    event::{Abort, Instance, Interrupts, Outcome},
    fact::{Assertion, Expectation},
    host::{
        local::{host::LocalHost, survey::refused},
        net::http::within,
        parallel::admission::run_admitted,
        probe::{limits::ProbeLimits, results::ProbeResults},
    },
    step::{PlannedInstance, Step},
};

/// Between the two readings: clocks of whole seconds differ by then.
const APART: Duration = Duration::from_millis(1100);
/// How often an instance that does not answer the second time is asked at most. All tries together
/// have the limit of one answer.
const TRIES: u32 = 3;

impl LocalHost {
    /// Refuses instances of which a comparing assertion reads otherwise now than at the survey,
    /// though none was signalled.
    ///
    /// # Errors
    /// `Refused` with every such instance; `Failed` when the operator interrupts.
    pub(crate) async fn steady(
        &self,
        steps: &[&mut Step],
        halts: &mut Interrupts,
    ) -> Result<(), Abort> {
        let members = || {
            steps
                .iter()
                .flat_map(|s| &s.instances)
                .filter(|m| is_compared(m))
        };
        let Some(last) = members().filter_map(|m| m.baseline_read_at).max() else {
            return Ok(());
        };
        let wait = (last + APART).saturating_duration_since(Instant::now());
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            Ok(_) = halts.wait_for(|n| *n > 0) => return Err(Abort::interrupted()),
        }
        let mut moving: Vec<Instance> = Vec::new();
        let again = |member: &'_ PlannedInstance, _| {
            let member = member.clone();
            async move {
                differs(&member, &self.limits)
                    .await
                    .map(|why| refused(member.instance, why))
            }
        };
        if !run_admitted(members(), again, self.parallel_reloads, halts, 0, |one| {
            moving.extend(one)
        })
        .await
        {
            return Err(Abort::interrupted());
        }
        if moving.is_empty() {
            Ok(())
        } else {
            Err(Abort::refused(moving))
        }
    }
}

/// Whether the instance is signalled, and one of its assertions compares with what it reads now.
fn is_compared(member: &PlannedInstance) -> bool {
    let mut all = member.group.confirm.iter().chain(&member.group.reject);
    !member.unresponsive
        && member.instance.outcome != Outcome::Unchanged
        && member.baseline_read_at.is_some()
        && all.any(Assertion::must_be_steady)
}

/// Why a comparing assertion of `member` would prove nothing; none where each reads as before.
async fn differs(member: &PlannedInstance, lanes: &ProbeLimits) -> Option<String> {
    let group = &member.group;
    let facts = || {
        group
            .confirm
            .iter()
            .zip(&member.baseline)
            .chain(group.reject.iter().zip(&member.rejected))
    };
    let steady = || facts().filter(|(fact, before)| fact.must_be_steady() && before.is_some());
    let deadline = Instant::now() + within(member.timeout);
    for attempt in 0..TRIES {
        if attempt > 0 {
            tokio::time::sleep(APART).await;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let permit = lanes.responsive.acquire().await.ok();
        let asked = Box::pin(ProbeResults::within(
            left,
            steady().map(|(fact, _)| &fact.source),
            member,
            lanes,
        ));
        let Some(answers) = lanes.carried(permit, asked).await else {
            continue;
        };
        let moving = |(fact, before): &(&Assertion, &Option<String>)| {
            answers.read(fact).is_some_and(|now| Some(now) != **before)
        };
        if let Some((fact, _)) = steady().find(moving) {
            return Some(moves(fact, &member.instance.endpoint));
        }
        if answers.first_error().is_none() {
            break;
        }
    }
    // One that answers no more has shown nothing that moves.
    None
}

fn moves(fact: &Assertion, endpoint: &str) -> String {
    let asks = match fact.expectation {
        Expectation::Increased => "increased",
        Expectation::AfterSignal => "after_signal",
        _ => "changed",
    };
    let source = fact.source.describe(endpoint);
    format!(
        "{source} reads otherwise from one second to the next without a signal, so `{asks}` would \
         prove nothing; read what only a reload changes, or say what it must be (`equals`)"
    )
}
