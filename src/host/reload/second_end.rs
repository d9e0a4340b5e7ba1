//! The second end of a reload. A time stamp or a counter shows that a reload ended, and not which
//! one. If an earlier reload was not seen to end before the signal, the first end after the signal
//! can be its end.

use std::time::{Duration, Instant};

use crate::{
    assertion::{Assertion, Expectation},
    event::{Failure, Outcome},
    host::{
        parallel::admission::Slot,
        probe::{
            confirm::confirm, expected::Expected, limits::ProbeLimits, log::LOOK,
            results::ProbeResults,
        },
        proc::{guard, pidfd::SignalledProcess},
        reload::signal::signal,
    },
    step::PlannedInstance,
};

/// The longest wait for a reload of an earlier signal, as a multiple of the instance's timeout.
const MAX_TIMEOUTS: u32 = 4;
/// The pause after a reading without an answer.
const BETWEEN_READINGS: Duration = Duration::from_millis(100);
/// The time after which two stamps of whole seconds differ.
const STAMPS_DIFFER: Duration = Duration::from_millis(1100);
/// The time that is added to the length of the earlier reload: two reloads of one process take
/// about, and not exactly, the same time.
const SPREAD: Duration = Duration::from_millis(250);

/// Tells whether a reload of the signal `sent` has ended between the readings `first` and `now`.
pub(crate) fn has_ended_since(
    assertions: &[Assertion],
    first: &[Option<String>],
    now: &[Option<String>],
    sent: Option<jiff::Timestamp>,
) -> bool {
    let Some(sent) = sent else { return false };
    assertions
        .iter()
        .zip(first)
        .zip(now)
        .any(|((assertion, first), now)| {
            assertion.shows_every_end()
                && first.is_some()
                && now
                    .as_deref()
                    .is_some_and(|now| assertion.holds(now, first.as_deref(), sent))
        })
}

/// Waits for another end of a reload after the one that was just seen.
///
/// The reload of `signalled` may still be under way, for as long as the reload since the signal
/// `sent` can have taken. If none ends in that time, the signal was lost, or merged with the
/// earlier one. The instance is then signalled once more, and must reload.
///
/// # Errors
/// Fails if the instance died, does not take the signal, or no other end was seen.
pub(crate) async fn await_second_end(
    signalled: SignalledProcess,
    member: &mut PlannedInstance,
    expected: &Expected,
    sent: Option<jiff::Timestamp>,
    (limits, slot, secret): (&ProbeLimits, &Slot, bool),
) -> Result<(), Failure> {
    let since_sent = sent
        .and_then(|sent| Duration::try_from(jiff::Timestamp::now().duration_since(sent)).ok())
        .unwrap_or_default();
    let slowest = since_sent.clamp(member.timeout, member.timeout.saturating_mul(MAX_TIMEOUTS));
    if !expected.confirm.iter().any(Assertion::shows_every_end) {
        // An answer, or the workers, must still show it when the earlier reload would have ended.
        tokio::time::sleep_until((signalled.at + slowest).into()).await;
        return confirm(&signalled, member, expected, limits, slot, None)
            .await
            .map(drop);
    }
    read_again(member, expected, limits).await?;
    let compares_stamps = expected
        .confirm
        .iter()
        .any(|assertion| assertion.expectation == Expectation::AfterSignal);
    let min_wait = if compares_stamps {
        STAMPS_DIFFER
    } else {
        Duration::ZERO
    };
    let own_timeout = std::mem::replace(&mut member.timeout, (slowest + SPREAD).max(min_wait));
    let signalled = SignalledProcess {
        at: Instant::now(),
        ..signalled
    };
    let result = match confirm(&signalled, member, expected, limits, slot, None).await {
        Err(failure) if failure.kind.outcome() == Outcome::TimedOut => {
            signal_again(member, expected, limits, (slot, secret)).await
        }
        result => result.map(drop),
    };
    member.timeout = own_timeout;
    result
}

/// Signals the instance again, and waits for the end of that reload.
async fn signal_again(
    member: &mut PlannedInstance,
    expected: &Expected,
    limits: &ProbeLimits,
    (slot, secret): (&Slot, bool),
) -> Result<(), Failure> {
    read_again(member, expected, limits).await?;
    let signalled = signal(member, (&limits.logs, secret), || {}).await?;
    confirm(&signalled, member, expected, limits, slot, None)
        .await
        .map(drop)
        .map_err(|failure| match failure.kind.outcome() {
            Outcome::TimedOut => Failure {
                text: format!(
                    "one reload ended, perhaps an earlier one, and no other did: {}",
                    failure.text
                ),
                ..failure
            },
            _ => failure,
        })
}

/// Reads again what the next end of a reload must change. Compared with an older reading, the end
/// that was seen already would count once more.
///
/// # Errors
/// Fails if a reading is not answered within the time of the instance.
async fn read_again(
    member: &mut PlannedInstance,
    expected: &Expected,
    limits: &ProbeLimits,
) -> Result<(), Failure> {
    let deadline = Instant::now() + member.timeout;
    loop {
        let now = {
            let _permit = limits.unresponsive.acquire().await;
            let sources = expected.confirm.iter().map(|assertion| &assertion.source);
            ProbeResults::of(sources, member, limits)
                .await
                .readings(&expected.confirm)
        };
        let is_read = |(assertion, now): (&Assertion, &Option<String>)| {
            !assertion.shows_every_end() || now.is_some()
        };
        if expected.confirm.iter().zip(&now).all(is_read) {
            // A line that was read already is no second end.
            limits.logs.mark(member, LOOK).await;
            for ((assertion, now), before) in
                expected.confirm.iter().zip(now).zip(&mut member.baseline)
            {
                if assertion.shows_every_end() {
                    *before = now;
                }
            }
            return Ok(());
        }
        let instance = &member.instance;
        if !guard::is_same(instance.pid, instance.started, &instance.exe) {
            // The proof that follows says how the process ended.
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Failure {
                kind: Outcome::TimedOut.into(),
                text: "one reload ended, perhaps an earlier one, and no reading was answered then \
                       that another end could be compared with"
                    .into(),
            });
        }
        tokio::time::sleep(BETWEEN_READINGS).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;
    use crate::{
        assertion::{Extract, Source},
        host::probe::expected::WaitUntil,
        tests::probed::{asked, silent},
    };

    #[tokio::test]
    async fn an_end_that_no_reading_was_taken_after_proves_no_second_one() {
        let (mut member, assertion) = silent(Expectation::Increased);
        member.baseline = vec![Some("1".into())];
        let expected = Expected {
            self_report: None,
            confirm: vec![assertion],
            reject: Vec::new(),
            samples: 1,
            children_before: None,
            until: WaitUntil::Shown,
        };
        let limits = ProbeLimits::default();
        let read = read_again(&mut member, &expected, &limits).await;
        assert_eq!(read.unwrap_err().kind.outcome(), Outcome::TimedOut);
        let answers = asked("2");
        member.instance.endpoint.clone_from(&answers.url);
        member.timeout = Duration::from_secs(60);
        read_again(&mut member, &expected, &limits).await.unwrap();
        assert_eq!(member.baseline, [Some("2".into())]);
    }

    #[test]
    fn a_value_that_changed_since_the_first_signal_is_the_end_of_its_reload() {
        let ends = |expectation: Expectation, first: &str, now: &str| {
            let assertions = [Assertion {
                source: Source::Exec(Vec::new()),
                read: Extract::Stdout,
                expectation,
                any: None,
            }];
            has_ended_since(
                &assertions,
                &[Some(first.into())],
                &[Some(now.into())],
                "2026-01-01T00:00:10Z".parse().ok(),
            )
        };
        assert!(ends(Expectation::Increased, "1", "2"));
        assert!(!ends(Expectation::Increased, "1", "1"));
        assert!(ends(Expectation::AfterSignal, "1767225609", "1767225610"));
        assert!(!ends(Expectation::AfterSignal, "1767225607", "1767225608"));
        assert!(
            !ends(Expectation::Changed, "1", "2"),
            "another answer is not yet an end"
        );
    }
}
