//! The expectations of an instance: its assertions for the config that the run installs.

use crate::{
    assertion::{Assertion, Expectation, Unresolved, entries},
    event::{Direction, Failure, Outcome},
    fleet::Speaks,
    host::probe::expected::{Expected, Scope, SelfReportExpectation, WaitUntil},
    refusal::Refusal,
    step::{PlannedInstance, PriorReadings, TargetChange},
};

/// Returns the assertions with the values of the config that `member` reads once `changes` are
/// installed.
///
/// # Errors
/// Fails if that config does not have a key that an assertion names.
pub(super) fn resolve_assertions(
    assertions: &[Assertion],
    member: &PlannedInstance,
    changes: &[TargetChange],
) -> Result<Vec<Assertion>, Failure> {
    let to = changes
        .first()
        .and_then(|change| member.whole_config(&change.to));
    assertions
        .iter()
        .map(|assertion| {
            let resolved = assertion.resolved(to.as_deref())?;
            Ok(resolved.of_process(member.identity.inside))
        })
        .collect::<Result<_, _>>()
        .map_err(|why: Refusal<Unresolved>| Failure {
            kind: Outcome::Refused.into(),
            text: why.to_string(),
        })
}

/// Replaces the expectation `changed` by one that can be seen; `first` are the readings from before
/// the run installed the new config.
pub(super) fn specialize(
    assertions: &mut [Assertion],
    prior: &PriorReadings,
    first: &[Option<String>],
    changes: &[TargetChange],
    direction: Direction,
) {
    let (first, restores) = match prior {
        PriorReadings::None => (first, direction),
        PriorReadings::Before(prior) => (prior.as_slice(), direction),
        PriorReadings::After(prior) => (prior.as_slice(), !direction),
    };
    let is_same = !changes.is_empty()
        && changes.iter().all(|change| {
            change
                .from
                .as_ref()
                .is_some_and(|from| from.sha256 == change.to.sha256)
        });
    for (assertion, first) in assertions
        .iter_mut()
        .zip(first)
        .filter(|(assertion, _)| assertion.expectation == Expectation::Changed)
    {
        match first {
            // The same bytes change no answer, so any answer must do.
            _ if is_same => assertion.expectation = Expectation::Contains(String::new()),
            // The answer of the old config must be the one from before, whether or not the new
            // config changed it.
            Some(first) if restores.is_back() => {
                assertion.expectation = Expectation::Equals(first.clone());
                // One of several answers had to change, and each must be the one from before.
                assertion.any = None;
            }
            _ => {}
        }
    }
}

/// Relaxes the assertions of an unresponsive instance that compare with a reading which does not
/// exist: their source must only answer again. The other assertions are then the proof, or the
/// self-report. Returns whether there is no other proof; then the assertions stay as they are.
pub(super) fn drop_unprovable(
    assertions: &mut [Assertion],
    member: &PlannedInstance,
    changes: &[TargetChange],
) -> bool {
    let has_baseline = |index: usize| member.baseline.get(index).is_some_and(Option::is_some);
    let is_blind = |index: usize, assertion: &Assertion| {
        member.unresponsive
            && assertion.needs_baseline()
            && assertion.expectation != Expectation::AfterSignal
            && !has_baseline(index)
    };
    // An alternative that can be seen decides for its entry.
    let unprovable: Vec<usize> = entries(assertions)
        .filter(|entry| {
            entry
                .clone()
                .all(|index| is_blind(index, &assertions[index]))
        })
        .flatten()
        .collect();
    let reports_itself = member.group.speaks == Speaks::Hello && !changes.is_empty();
    if !reports_itself && unprovable.len() == assertions.len() {
        return !assertions.is_empty();
    }
    for index in unprovable {
        assertions[index].expectation = Expectation::Contains(String::new());
    }
    false
}

/// Returns what proves that `member` runs what `changes` install, or `None` if its group declares
/// that nothing can be seen.
///
/// # Errors
/// Fails as [`resolve_assertions`] does.
pub(super) fn expectation(
    member: &PlannedInstance,
    changes: &[TargetChange],
    assertions: Vec<Assertion>,
    direction: Direction,
) -> Result<Option<Expected>, Failure> {
    let group = &member.group;
    let self_report = match (group.speaks, changes.first().map(|change| &change.to)) {
        (Speaks::Hello, Some(to)) => {
            // If the config before the signal is not known to be another one, an answer could be
            // from before the signal.
            let require_new_attempt = direction.is_back()
                || member.signal_may_be_pending
                || member
                    .instance
                    .before
                    .as_ref()
                    .is_none_or(|before| *before == to.sha256);
            let (scope, sha256) = match group.key() {
                Some(_) => (Scope::Whole, member.merged_sha256(&to.sha256)),
                None => (Scope::File, to.sha256.clone()),
            };
            Some(SelfReportExpectation {
                scope,
                sha256,
                rejection_is_final: !direction.is_back(),
                require_new_attempt,
                seq: member.attempt_seq,
            })
        }
        _ => None,
    };
    // A refusal of the new config does not refuse the rollback.
    let mut reject = if direction.is_back() {
        Vec::new()
    } else {
        resolve_assertions(&group.reject, member, changes)?
    };
    // A refusal of an earlier run's config does not refuse this run's. A line since the signal may
    // be of either, and a rollback then claims less than a success.
    if member.signal_may_be_pending {
        reject.retain(|assertion| assertion.source.is_log());
    }
    if assertions.is_empty() && reject.is_empty() && self_report.is_none() {
        return Ok(None);
    }
    let is_read_once = self_report.is_none()
        && assertions
            .iter()
            .all(|assertion| assertion.source.is_read_once());
    Ok(Some(Expected {
        self_report,
        confirm: assertions,
        reject,
        samples: if is_read_once { 1 } else { group.samples },
        children_before: None,
        until: WaitUntil::Shown,
    }))
}

/// Returns what must still hold, without a signal, of an instance that was proven. `direction` is
/// that of `changes`. Returns `None` if nothing can be probed.
///
/// # Errors
/// Fails as [`resolve_assertions`] does.
pub(crate) fn expected_after(
    member: &PlannedInstance,
    changes: &[TargetChange],
    direction: Direction,
) -> Result<Option<Expected>, Failure> {
    if direction.is_back() {
        // The assertions of its rollback: the readings from before the run are gone.
        let shown = seen_once(member.shown_back.clone());
        let expected = expectation(member, changes, shown, direction)?;
        return Ok(expected.map(without_new_attempt));
    }
    let is_unchanged = member.instance.outcome == Outcome::Unchanged;
    let mut assertions = resolve_assertions(&member.group.confirm, member, changes)?;
    if is_unchanged {
        // The instance was never signalled, so an assertion that compares with before its signal
        // cannot hold. An assertion that did not hold at the survey is not why it was not
        // signalled.
        let survey = |index: usize| member.baseline.get(index).and_then(Option::as_deref);
        let may_hold = |index: usize| {
            let assertion = &assertions[index];
            !assertion.needs_signal()
                && survey(index).is_none_or(|reading| assertion.holds_alone(reading))
        };
        assertions = entries(&assertions)
            .filter(|entry| entry.clone().any(may_hold))
            .flatten()
            .map(|index| assertions[index].clone())
            .collect();
    }
    specialize(
        &mut assertions,
        &member.prior_readings,
        &member.baseline,
        changes,
        Direction::Forward,
    );
    drop_unprovable(&mut assertions, member, changes);
    let assertions = seen_once(assertions);
    let expected = expectation(member, changes, assertions, Direction::Forward)?;
    Ok(if is_unchanged {
        expected.map(without_new_attempt)
    } else {
        expected
    })
}

/// Relaxes the assertions of which a proven instance cannot give the same reading again: their
/// source must only answer. A line of a log was written once, and an uptime that fell rises.
fn seen_once(mut assertions: Vec<Assertion>) -> Vec<Assertion> {
    let is_past =
        |it: &&mut Assertion| it.source.is_log() || it.expectation == Expectation::Decreased;
    for assertion in assertions.iter_mut().filter(is_past) {
        assertion.expectation = Expectation::Contains(String::new());
    }
    assertions
}

/// Returns the same expectations of an instance whose last reload may be of any age.
fn without_new_attempt(expected: Expected) -> Expected {
    let self_report = expected.self_report.map(|report| SelfReportExpectation {
        require_new_attempt: false,
        rejection_is_final: false,
        ..report
    });
    Expected {
        self_report,
        reject: Vec::new(),
        ..expected
    }
}
