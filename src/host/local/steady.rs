//! Reads every assertion that compares with the baseline a second time, while the validators run: a
//! reading that changes by itself would prove any reload.

use std::time::{Duration, Instant};

use crate::{
    assertion::{Assertion, Expectation},
    event::{Abort, Instance, Interrupts, Outcome},
    host::{
        local::{
            host::LocalHost,
            refusals::{none_refused, refused},
        },
        net::http::within,
        parallel::admission::run_admitted,
        probe::{limits::ProbeLimits, results::ProbeResults},
    },
    step::{PlannedInstance, Step},
};

/// The least time between the two readings. A clock that counts whole seconds differs after it.
const INTERVAL: Duration = Duration::from_millis(1100);

/// The most attempts of the second reading. All attempts together have the time limit of one
/// answer.
const MAX_ATTEMPTS: u32 = 3;

impl LocalHost {
    /// Refuses instances of which a comparing assertion reads another value than at the survey,
    /// though none was signalled, or is not answered again: a clock that was read once would prove
    /// any reload.
    ///
    /// # Errors
    /// Fails as `Refused` with every such instance, or as `Failed` if the operator interrupts.
    pub(crate) async fn check_steady(
        &self,
        steps: &[&mut Step],
        interrupts: &mut Interrupts,
    ) -> Result<(), Abort> {
        let compared = || {
            steps
                .iter()
                .flat_map(|step| &step.instances)
                .filter(|planned| is_compared(planned))
        };
        let Some(last) = compared().filter_map(|m| m.baseline_read_at).max() else {
            return Ok(());
        };
        let wait = (last + INTERVAL).saturating_duration_since(Instant::now());
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            Ok(_) = interrupts.wait_for(|count| *count > 0) => return Err(Abort::interrupted()),
        }
        let mut unsteady: Vec<Instance> = Vec::new();
        let read_again = |planned: &'_ PlannedInstance, _| {
            let planned = planned.clone();
            async move {
                unsteady_reading(&planned, &self.limits)
                    .await
                    .map(|why| refused(planned.instance, why))
            }
        };
        let is_complete = run_admitted(
            compared(),
            read_again,
            self.parallel_reloads,
            interrupts,
            0,
            |refused| unsteady.extend(refused),
        )
        .await;
        if !is_complete {
            return Err(Abort::interrupted());
        }
        none_refused(unsteady)
    }
}

/// Tells whether the instance is signalled, and one of its assertions compares with its baseline.
fn is_compared(planned: &PlannedInstance) -> bool {
    let mut assertions = planned.group.confirm.iter().chain(&planned.group.reject);
    !planned.unresponsive
        && planned.instance.outcome != Outcome::Unchanged
        && planned.baseline_read_at.is_some()
        && assertions.any(Assertion::must_be_steady)
}

/// Returns why a comparing assertion would prove nothing. None if each was read again, and reads
/// the same as before.
async fn unsteady_reading(planned: &PlannedInstance, limits: &ProbeLimits) -> Option<String> {
    let group = &planned.group;
    let confirm = group.confirm.iter().zip(&planned.baseline);
    let reject = group.reject.iter().zip(&planned.rejected);
    let compared: Vec<(&Assertion, &String)> = confirm
        .chain(reject)
        .filter(|(assertion, _)| assertion.must_be_steady())
        .filter_map(|(assertion, before)| Some((assertion, before.as_ref()?)))
        .collect();
    let (mut last_unread, _) = *compared.first()?;
    let deadline = Instant::now() + within(planned.timeout);
    for attempt in 0..MAX_ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(INTERVAL).await;
        }
        let remaining = deadline.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            break;
        }
        let permit = limits.responsive.acquire().await.ok();
        let sources = compared.iter().map(|(assertion, _)| &assertion.source);
        let probe = Box::pin(ProbeResults::within(remaining, sources, planned, limits));
        let Some(answers) = limits.carried(permit, probe).await else {
            continue;
        };
        let mut unread = None;
        for (assertion, before) in &compared {
            match answers.read(assertion) {
                Some(reading) if moves_by_itself(assertion, before, &reading) => {
                    return Some(unsteady_text(assertion, &planned.instance.endpoint));
                }
                Some(_) => {}
                None => unread = unread.or(Some(*assertion)),
            }
        }
        match unread {
            None => return None,
            Some(assertion) => last_unread = assertion,
        }
    }
    Some(unread_text(last_unread, &planned.instance.endpoint))
}

/// Tells whether a second reading without a signal shows that a change proves nothing. An uptime
/// rises by itself, and only a fall of it is a proof.
fn moves_by_itself(assertion: &Assertion, before: &str, now: &str) -> bool {
    if assertion.expectation == Expectation::Decreased {
        return assertion.holds(now, Some(before), jiff::Timestamp::UNIX_EPOCH);
    }
    now != before
}

fn unread_text(assertion: &Assertion, endpoint: &str) -> String {
    format!(
        "{} was read once and gave no second answer before the signal, so nothing shows whether it \
         changes by itself; try again, or raise `timeout`",
        assertion.source.describe(endpoint)
    )
}

fn unsteady_text(assertion: &Assertion, endpoint: &str) -> String {
    let expectation = match assertion.expectation {
        Expectation::Increased => "increased",
        Expectation::Decreased => "decreased",
        Expectation::AfterSignal => "after_signal",
        _ => "changed",
    };
    let source = assertion.source.describe(endpoint);
    format!(
        "{source} changes from one second to the next without a signal, so \
         `{expectation}` would prove nothing; read what only a reload changes, or set the exact \
         value (`equals`)"
    )
}
