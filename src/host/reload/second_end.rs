//! A time stamp or a counter shows that a reload ended, and not which one. Where the end of an
//! earlier reload was not seen before the signal, the first end after it can be that one's.

use std::time::{Duration, Instant};

use crate::{
    event::{Failure, Outcome},
    fact::{Assertion, Expectation},
    host::{
        parallel::admission::Slot,
        probe::{confirm::confirm, expected::Expected, limits::ProbeLimits, results::ProbeResults},
        proc::pidfd::SignalledProcess,
        reload::signal::signal,
    },
    step::PlannedInstance,
};

/// A reload that an earlier signal began is waited for at most this many times the instance's own
/// limit.
const SLOWEST: u32 = 4;
/// Two stamps of whole seconds differ when they are this far apart.
const STAMPS: Duration = Duration::from_millis(1100);
/// Reloads of one process take about, and not exactly, the same time: waited for besides.
const SPREAD: Duration = Duration::from_millis(250);

/// Whether a reload that the signal of `sent` asked for has ended between the readings `first` and
/// `now`.
pub(crate) fn has_ended_since(
    facts: &[Assertion],
    first: &[Option<String>],
    now: &[Option<String>],
    sent: Option<jiff::Timestamp>,
) -> bool {
    let Some(sent) = sent else { return false };
    facts
        .iter()
        .zip(first)
        .zip(now)
        .any(|((fact, first), now)| {
            tells_ends(fact)
                && first.is_some()
                && now
                    .as_deref()
                    .is_some_and(|now| fact.holds(now, first.as_deref(), sent))
        })
}

/// Sees another end of a reload after the one that was just seen. One that the signal `hung` asked
/// for may be under way yet, for as long as the one since `sent` can have taken. Where none ends
/// until then, that signal was lost, or merged with the earlier one; the instance is signalled once
/// more, and must reload.
///
/// # Errors
/// The trouble: it died, it does not take the signal, or no other end was seen.
pub(crate) async fn await_second_end(
    hung: SignalledProcess,
    member: &mut PlannedInstance,
    wanted: &Expected,
    sent: Option<jiff::Timestamp>,
    (lanes, turn): (&ProbeLimits, &Slot),
) -> Result<(), Failure> {
    let since =
        sent.and_then(|at| Duration::try_from(jiff::Timestamp::now().duration_since(at)).ok());
    let slowest = since
        .unwrap_or_default()
        .clamp(member.timeout, member.timeout.saturating_mul(SLOWEST));
    if !wanted.confirm.iter().any(tells_ends) {
        // An answer or the workers must be so when the reload of before would have ended.
        tokio::time::sleep_until((hung.at + slowest).into()).await;
        return confirm(&hung, member, wanted, lanes, turn, None)
            .await
            .map(drop);
    }
    read(member, wanted, lanes).await;
    let stamps = wanted
        .confirm
        .iter()
        .any(|fact| fact.expectation == Expectation::AfterSignal);
    let limit = (slowest + SPREAD).max(if stamps { STAMPS } else { Duration::ZERO });
    let own = std::mem::replace(&mut member.timeout, limit);
    let hung = SignalledProcess {
        at: Instant::now(),
        ..hung
    };
    let said = confirm(&hung, member, wanted, lanes, turn, None).await;
    let said = match said {
        Err(trouble) if trouble.kind.outcome() == Outcome::TimedOut => {
            signal_again(member, wanted, lanes, turn).await
        }
        said => said.map(drop),
    };
    member.timeout = own;
    said
}

/// Signals the instance again, and waits for the end of that reload.
async fn signal_again(
    member: &mut PlannedInstance,
    wanted: &Expected,
    lanes: &ProbeLimits,
    turn: &Slot,
) -> Result<(), Failure> {
    read(member, wanted, lanes).await;
    let hung = signal(member, || {}).await?;
    let said = confirm(&hung, member, wanted, lanes, turn, None).await;
    said.map(drop)
        .map_err(|trouble| match trouble.kind.outcome() {
            Outcome::TimedOut => Failure {
                text: format!(
                    "one reload ended, perhaps an earlier one, and no other did: {}",
                    trouble.text
                ),
                ..trouble
            },
            _ => trouble,
        })
}

/// Whether every end of a reload changes what `fact` reads.
fn tells_ends(fact: &Assertion) -> bool {
    matches!(
        fact.expectation,
        Expectation::Increased | Expectation::AfterSignal
    )
}

/// Reads anew what the next end of a reload must change.
async fn read(member: &mut PlannedInstance, wanted: &Expected, lanes: &ProbeLimits) {
    let now = {
        let _permit = lanes.unresponsive.acquire().await;
        ProbeResults::of(
            wanted.confirm.iter().map(|fact| &fact.source),
            member,
            lanes,
        )
        .await
        .readings(&wanted.confirm)
    };
    for ((fact, now), before) in wanted.confirm.iter().zip(now).zip(&mut member.baseline) {
        if tells_ends(fact) && now.is_some() {
            *before = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fact::{Extract, Source};

    #[test]
    fn a_value_that_moved_since_the_first_signal_is_the_end_of_its_reload() {
        let ends = |wants: Expectation, first: &str, now: &str| {
            let facts = [Assertion {
                source: Source::Exec(Vec::new()),
                read: Extract::Stdout,
                expectation: wants,
            }];
            has_ended_since(
                &facts,
                &[Some(first.into())],
                &[Some(now.into())],
                "2026-01-01T00:00:10Z".parse().ok(),
            )
        };
        assert!(ends(Expectation::Increased, "1", "2") && !ends(Expectation::Increased, "1", "1"));
        assert!(
            ends(Expectation::AfterSignal, "1767225609", "1767225610")
                && !ends(Expectation::AfterSignal, "1767225607", "1767225608")
        );
        assert!(
            !ends(Expectation::Changed, "1", "2"),
            "another answer is not yet an end"
        );
    }
}
