//! The baseline of an instance: readings from right before its signal, taken as late as possible.

use std::time::Instant;

use crate::{
    assertion::{Assertion, Expectation, Source},
    event::{Direction, Failure, Outcome},
    fleet::Trigger,
    host::{
        probe::{
            endpoint::follow_moved_endpoint,
            limits::ProbeLimits,
            results::ProbeResults,
            workers::{SETTLED, kept},
        },
        proc::guard,
        reload::{context::ProofContext, evidence::EarlierReload, second_end, young_clock},
    },
    step::{PlannedInstance, PriorReadings},
};

/// The most tries of one sample before the signal.
const TRIES: u32 = 2;

/// Waits for the end of an earlier reload, if one may be under way, and reads the baseline again.
/// `first` is the baseline of the survey. Returns whether an earlier reload may still be under way.
pub(super) async fn settle_baseline(
    member: &mut PlannedInstance,
    assertions: &[Assertion],
    first: &[Option<String>],
    context: ProofContext<'_>,
    limits: &ProbeLimits,
) -> EarlierReload {
    let ProofContext {
        direction, slot, ..
    } = context;
    let is_pending = member.signal_may_be_pending;
    let mut earlier = known_earlier_reload(member, direction);
    let compares = assertions.iter().any(Assertion::needs_baseline);
    if compares && (direction.is_back() || is_pending) {
        slot.give_back();
        // A reload that still runs must not be taken for the one that the signal asks for.
        if Box::pin(wait_until_idle(member, assertions, limits)).await {
            earlier = EarlierReload::Over;
        }
    }
    if !assertions.is_empty() && (compares || direction.is_back() || is_pending) {
        Box::pin(reread_baseline(member, assertions, direction, limits)).await;
        restore_prior_readings(member, assertions, direction);
        if direction.is_back()
            && !is_pending
            && second_end::has_ended_since(assertions, first, &member.baseline, member.signalled)
        {
            earlier = EarlierReload::Over;
        }
    }
    earlier
}

/// Returns whether a reload may be under way by what the run knows of the instance.
fn known_earlier_reload(member: &PlannedInstance, direction: Direction) -> EarlierReload {
    // Once the instance was seen on the new config, the reload of that config is over.
    let is_unseen = match member.instance.outcome {
        Outcome::Unconfirmed => direction.is_back(),
        Outcome::TimedOut => direction.is_back() && member.proven_at.is_none(),
        _ => false,
    };
    if member.signal_may_be_pending || is_unseen {
        EarlierReload::Open
    } else {
        EarlierReload::Over
    }
}

/// Sets the baseline of each `changed` assertion to the reading from before an earlier run. The
/// instance may run the new config already; its answer of now could not change.
fn restore_prior_readings(
    member: &mut PlannedInstance,
    assertions: &[Assertion],
    direction: Direction,
) {
    let PriorReadings::Before(prior) = &member.prior_readings else {
        return;
    };
    let changed = member
        .baseline
        .iter_mut()
        .zip(prior)
        .zip(assertions)
        .filter(|(_, assertion)| {
            assertion.expectation == Expectation::Changed && !direction.is_back()
        });
    changed.for_each(|((now, before), _)| now.clone_from(before));
}

/// Waits until an earlier reload is over, at most half of the instance's timeout. A reload is over
/// when the instance takes the signal, no signal is pending, and two readings of its workers are
/// the same. Returns whether that was seen; it never is without an assertion that the kernel
/// answers.
async fn wait_until_idle(
    member: &PlannedInstance,
    assertions: &[Assertion],
    limits: &ProbeLimits,
) -> bool {
    let instance = &member.instance;
    let group = &member.group;
    let kernel_sources = || {
        assertions
            .iter()
            .map(|assertion| &assertion.source)
            .filter(|source| source.is_kernel())
    };
    // A command has asked the instance once it has ended.
    let is_pending = || match group.trigger() {
        Trigger::Signal(signal) => guard::may_be_pending(instance.pid, signal),
        Trigger::Command(_) => false,
    };
    let mut before = None;
    let settle = async {
        loop {
            let now = ProbeResults::of(kernel_sources(), member, limits)
                .await
                .readings(assertions);
            let is_idle = kernel_has_answered(assertions, &now)
                && guard::not_taking(instance.pid, group).is_none()
                && !is_pending();
            if is_idle && before.as_ref() == Some(&now) {
                break;
            }
            before = is_idle.then_some(now);
            tokio::time::sleep(SETTLED).await;
        }
    };
    if kernel_sources().next().is_some()
        && guard::is_same(instance.pid, instance.started, &instance.exe)
    {
        // An instance that stays stopped is signalled all the same.
        return tokio::time::timeout(member.timeout / 2, settle)
            .await
            .is_ok();
    }
    false
}

/// Tells whether every assertion that the kernel answers has a reading. Two readings that were both
/// not answered are not equal.
fn kernel_has_answered(assertions: &[Assertion], readings: &[Option<String>]) -> bool {
    assertions
        .iter()
        .zip(readings)
        .all(|(assertion, reading)| !assertion.source.is_kernel() || reading.is_some())
}

/// Reads the baseline once more, as late as possible: what changed since the survey was not changed
/// by the signal. In a rollback, no reading from before the new config counts.
async fn reread_baseline(
    member: &mut PlannedInstance,
    assertions: &[Assertion],
    direction: Direction,
    limits: &ProbeLimits,
) {
    let before = std::mem::take(&mut member.baseline);
    let only_now = direction.is_back() || member.signal_may_be_pending;
    if only_now || member.unresponsive {
        // The new config may have moved the endpoint; an unresponsive instance may listen by now.
        follow_moved_endpoint(member, limits);
    }
    let now = read_baseline(member, assertions, only_now, limits).await;
    let merge = |(index, reading): (usize, Option<String>)| {
        let earlier = before.get(index).and_then(Option::as_ref);
        let reading = match (earlier, assertions.get(index)) {
            // A worker from before the new config runs the old config, and may stay.
            (Some(first), Some(assertion))
                if direction.is_back()
                    && matches!(assertion.source, Source::Workers | Source::Children(_)) =>
            {
                reading.map(|now| kept(first, &now))
            }
            _ => reading,
        };
        let may_be_older = !only_now && assertions.get(index).is_some_and(may_be_older);
        reading.or_else(|| earlier.filter(|_| may_be_older).cloned())
    };
    member.baseline = now.into_iter().enumerate().map(merge).collect();
}

/// Tells whether the reading of the survey can replace one from right before the signal. A counter
/// may have risen since, and workers may have been replaced, by a reload of another program.
fn may_be_older(assertion: &Assertion) -> bool {
    !matches!(
        assertion.expectation,
        Expectation::Increased | Expectation::Decreased | Expectation::Replaced
    )
}

/// Returns why an instance cannot prove its reload: an assertion has no reading from right before
/// the signal to compare with. None if there is no such assertion, or if the process has ended.
pub(super) fn lacking_baseline(
    member: &PlannedInstance,
    assertions: &[Assertion],
) -> Option<Failure> {
    let lacks = |(_, reading): &(&Assertion, &Option<String>)| reading.is_none();
    let (assertion, _) = assertions
        .iter()
        .zip(&member.baseline)
        .filter(|(assertion, _)| !may_be_older(assertion))
        .find(lacks)?;
    let instance = &member.instance;
    if guard::is_over(instance.pid, instance.started, &instance.exe) {
        // The signal that follows says how the process ended.
        return None;
    }
    Some(Failure {
        kind: Outcome::TimedOut.into(),
        text: format!(
            "{} gave no answer right before the signal, so no later one could show a reload, and \
             it was not signalled; try again, or raise `timeout`",
            assertion.source.describe(&instance.endpoint)
        ),
    })
}

/// Reads every assertion. Where no older reading can replace a missing one, as everywhere if
/// `only_now` is set, the probe is repeated, for at most half of the instance's timeout. Otherwise
/// an instance that was only slow to answer could never prove an assertion that needs a baseline.
async fn read_baseline(
    member: &PlannedInstance,
    assertions: &[Assertion],
    only_now: bool,
    limits: &ProbeLimits,
) -> Vec<Option<String>> {
    let instance = &member.instance;
    let until = Instant::now() + member.timeout / 2;
    let young_until = until.min(Instant::now() + young_clock::LIMIT);
    let mut is_silent = member.unresponsive;
    loop {
        let now = probe_baseline(member, assertions, until, is_silent, limits).await;
        let is_incomplete = assertions.iter().zip(&now).any(|(assertion, reading)| {
            assertion.needs_baseline()
                && assertion.expectation != Expectation::AfterSignal
                && reading.is_none()
                && (only_now || !may_be_older(assertion))
        });
        let is_young = !member.unresponsive && young_clock::is_among(assertions, &now);
        let limit = if is_incomplete { until } else { young_until };
        if member.unresponsive
            || !(is_incomplete || is_young)
            || Instant::now() >= limit
            || !guard::is_same(instance.pid, instance.started, &instance.exe)
        {
            return now;
        }
        is_silent |= is_incomplete;
        let pause = if is_incomplete {
            SETTLED
        } else {
            young_clock::PAUSE
        };
        tokio::time::sleep(pause).await;
    }
}

/// Reads every assertion once, under a permit for responsive or for unresponsive instances.
async fn probe_baseline(
    member: &PlannedInstance,
    assertions: &[Assertion],
    until: Instant,
    is_silent: bool,
    limits: &ProbeLimits,
) -> Vec<Option<String>> {
    let _unresponsive = if is_silent {
        limits.unresponsive.acquire().await.ok()
    } else {
        None
    };
    let responsive = if is_silent {
        None
    } else {
        limits.responsive.acquire().await.ok()
    };
    let probe = Box::pin(ProbeResults::within(
        until.saturating_duration_since(Instant::now()),
        assertions.iter().map(|assertion| &assertion.source),
        member,
        limits,
    ));
    limits.carried(responsive, probe).await.map_or_else(
        || vec![None; assertions.len()],
        |results| results.readings(assertions),
    )
}

/// Reads the assertions that do not hold before the signal again, once per sample. If two processes
/// answer in turn, the other one may have shown the new config all the time, which proves nothing.
/// Without an answer to a sample, even to its second try, it is not known what held before.
pub(super) async fn sample_baseline(
    member: &mut PlannedInstance,
    assertions: &[Assertion],
    limits: &ProbeLimits,
) {
    let samples = if member.group.samples > 1 {
        member.group.samples
    } else {
        0
    };
    for (index, assertion) in assertions
        .iter()
        .enumerate()
        .filter(|(_, assertion)| !assertion.needs_signal())
    {
        let does_not_hold = |before: Option<&Option<String>>| {
            before
                .and_then(Option::as_deref)
                .is_some_and(|before| !assertion.holds_alone(before))
        };
        for _ in 0..samples {
            if !does_not_hold(member.baseline.get(index)) {
                break;
            }
            let mut now = None;
            for _ in 0..TRIES {
                if now.is_none() {
                    let _permit = limits.responsive.acquire().await;
                    let source = std::iter::once(&assertion.source);
                    now = ProbeResults::of(source, member, limits)
                        .await
                        .read(assertion);
                }
            }
            if now.as_deref().is_none_or(|now| assertion.holds_alone(now))
                && let Some(before) = member.baseline.get_mut(index)
            {
                *before = now;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::{sync::Arc, time::Duration};

    use super::*;
    use crate::{
        assertion::Extract,
        fleet::Group,
        tests::probed::{asked, silent},
    };

    fn text(reading: &str) -> Option<String> {
        Some(reading.into())
    }

    async fn reread(expectation: Expectation, direction: Direction) -> Option<String> {
        let (mut member, assertion) = silent(expectation);
        member.baseline = vec![text("1")];
        let limits = ProbeLimits::default();
        reread_baseline(&mut member, &[assertion], direction, &limits).await;
        member.baseline.remove(0)
    }

    #[tokio::test]
    async fn a_counter_is_never_compared_with_an_older_reading() {
        assert_eq!(
            reread(Expectation::Increased, Direction::Forward).await,
            None
        );
        assert_eq!(
            reread(Expectation::Replaced, Direction::Forward).await,
            None
        );
    }

    #[tokio::test]
    async fn a_change_is_compared_with_the_survey_where_no_later_answer_came() {
        assert_eq!(
            reread(Expectation::Changed, Direction::Forward).await,
            text("1")
        );
        assert_eq!(reread(Expectation::Changed, Direction::Back).await, None);
    }

    #[test]
    fn a_counter_without_a_reading_right_before_the_signal_prevents_the_signal() {
        let (mut member, assertion) = silent(Expectation::Increased);
        member.baseline = vec![None];
        let assertions = [assertion];
        let failure = lacking_baseline(&member, &assertions).unwrap();
        assert!(
            failure.text.contains("was not signalled"),
            "{}",
            failure.text
        );
        member.instance.started += 1;
        assert!(
            lacking_baseline(&member, &assertions).is_none(),
            "it has ended"
        );
        member.instance.started -= 1;
        member.baseline = vec![text("1")];
        assert!(lacking_baseline(&member, &assertions).is_none());
    }

    #[test]
    fn a_kernel_that_did_not_answer_twice_has_not_answered_the_same() {
        let (_, http) = silent(Expectation::Changed);
        let workers = Assertion {
            source: Source::Workers,
            read: Extract::Body,
            expectation: Expectation::Replaced,
            any: None,
        };
        let assertions = [http, workers];
        assert!(!kernel_has_answered(&assertions, &[text("1"), None]));
        assert!(kernel_has_answered(&assertions, &[None, text("")]));
    }

    /// Samples an assertion that is not known to hold before the signal.
    async fn sampled(url: Option<&str>) -> Option<String> {
        let (mut member, assertion) = silent(Expectation::Equals("new".into()));
        if let Some(url) = url {
            member.instance.endpoint = url.into();
            member.timeout = Duration::from_secs(60);
        }
        member.group = Arc::new(Group {
            samples: 3,
            ..(*member.group).clone()
        });
        member.baseline = vec![text("old")];
        sample_baseline(&mut member, &[assertion], &ProbeLimits::default()).await;
        member.baseline.remove(0)
    }

    #[tokio::test]
    async fn a_sample_without_an_answer_does_not_show_that_an_assertion_failed_before() {
        assert_eq!(sampled(None).await, None);
        let (old, new) = (asked("old"), asked("new"));
        assert_eq!(sampled(Some(&old.url)).await, text("old"));
        assert_eq!(sampled(Some(&new.url)).await, text("new"));
    }
}
