//! Checks before the run that an assertion can prove anything.
//!
//! An assertion that takes a value from the candidate must hold now with the value of the running
//! config. If it does not, the assertion is wrong, or the instance runs another config than its
//! file; in both cases it would prove nothing.

use std::collections::BTreeMap;

use crate::{
    assertion::{Assertion, Expectation, Showing, entries, entry_of},
    event::{Event, Instance, Outcome},
    step::{PlannedInstance, Step, TargetChange},
};

#[cfg(test)]
mod tests;

/// The longest value that a message shows, in characters: one line of a terminal.
const SHOWN: usize = 80;

/// Stands for a value that must not be shown.
const HIDDEN_READING: &str = "another value";

/// Refuses each instance for which an `equals` with a value of the config does not hold with the
/// content that `changes` replace.
pub(super) fn refuse(
    instances: &mut [PlannedInstance],
    changes: &[TargetChange],
    refused: &mut Vec<Instance>,
) {
    for instance in instances
        .iter_mut()
        .filter(|m| !m.unresponsive && m.instance.outcome != Outcome::Unchanged)
    {
        let Some(why) = unheld(instance, changes) else {
            continue;
        };
        instance.refuse(why);
        refused.push(instance.instance.clone());
    }
}

/// Returns why an assertion does not hold before the run; none if each holds or cannot be checked.
fn unheld(instance: &PlannedInstance, changes: &[TargetChange]) -> Option<String> {
    let first = changes.first()?;
    let from = first.from.as_ref()?;
    let reports_another = instance
        .instance
        .before
        .as_ref()
        .is_some_and(|before| *before != from.sha256);
    let is_adopted = changes.iter().all(|change| {
        change
            .from
            .as_ref()
            .is_some_and(|from| from.sha256 == change.to.sha256)
    });
    // Adopting is for instances that may run something else than their file.
    if reports_another || is_adopted {
        return None;
    }
    let runs = instance.whole_config(from)?;
    let confirm = &instance.group.confirm;
    let why_not = |index: usize| {
        let now = reading(instance, index)?;
        let wanted = equals_of_config(&confirm[index], &runs)?;
        (now != wanted).then(|| mismatch(instance, first, &confirm[index], now, &wanted))
    };
    let holds = |index: usize| {
        let resolved = confirm[index].resolved(Some(&runs));
        resolved.is_ok_and(|it| reading(instance, index).is_some_and(|now| it.holds_alone(now)))
    };
    entries(confirm)
        .filter(|entry| entry.len() == 1 || !entry.clone().any(holds))
        .flatten()
        .find_map(why_not)
}

/// Returns what an assertion read at the survey.
fn reading(instance: &PlannedInstance, index: usize) -> Option<&str> {
    instance.baseline.get(index)?.as_deref()
}

/// Describes an assertion that reads `now` where the running config says `wanted`.
fn mismatch(
    instance: &PlannedInstance,
    change: &TargetChange,
    assertion: &Assertion,
    now: &str,
    wanted: &str,
) -> String {
    let now = if change.secret || assertion.source.shows_credentials() {
        HIDDEN_READING.to_owned()
    } else {
        shown(now)
    };
    let wanted = if change.secret {
        "the value of its config".to_owned()
    } else {
        shown(wanted)
    };
    format!(
        "{} reads {now} before the run, and by the config that it runs {} should be {wanted}: the \
         assertion is wrong, or it runs another config than `{}`; correct the assertion, adopt \
         that file first, or use --include-unresponsive to skip this check",
        assertion.source.describe(&instance.instance.endpoint),
        written(assertion),
        change.path.display()
    )
}

/// Returns the text that an `equals` with a value of the config expects from the config `runs`.
fn equals_of_config(assertion: &Assertion, runs: &[u8]) -> Option<String> {
    let resolved = assertion.resolved(Some(runs)).ok()?.expectation;
    match resolved {
        Expectation::Equals(ref text)
            if resolved != assertion.expectation && !assertion.source.is_log() =>
        {
            Some(text.clone())
        }
        _ => None,
    }
}

/// Returns the assertions with a literal value that did not hold at the survey, each once for its
/// group.
pub(super) fn literals<'a>(steps: impl Iterator<Item = &'a Step>) -> Vec<Event> {
    let mut unheld: BTreeMap<(&str, usize), (i32, usize, String)> = BTreeMap::new();
    for step in steps {
        let showing = if step.changes.iter().any(|change| change.secret) {
            Showing::Secret
        } else {
            Showing::Open
        };
        for instance in step
            .instances
            .iter()
            .filter(|m| !m.unresponsive && m.instance.outcome != Outcome::Unchanged)
        {
            let assertions = instance.group.confirm.iter().zip(&instance.baseline);
            for (index, (assertion, now)) in assertions.enumerate() {
                let Some(now) = now.as_deref().filter(|now| is_unheld(assertion, now)) else {
                    continue;
                };
                let is_met = |other: usize| {
                    let now = reading(instance, other);
                    now.is_some_and(|now| !is_unheld(&instance.group.confirm[other], now))
                };
                if entry_of(&instance.group.confirm, index).any(is_met) {
                    continue;
                }
                let reported = &instance.instance;
                let why = || {
                    format!(
                        "{} {}",
                        assertion.source.describe(&reported.endpoint),
                        assertion.unmet(Some(now), showing.of(&assertion.source))
                    )
                };
                unheld
                    .entry((&reported.group, index))
                    .or_insert_with(|| (reported.pid, 0, why()))
                    .1 += 1;
            }
        }
    }
    unheld
        .into_iter()
        .map(|((group, _), (pid, instances, why))| Event::NotHeldBefore {
            group: group.into(),
            pid,
            instances,
            why,
        })
        .collect()
}

/// Tells whether an assertion compares with a literal value, and does not hold.
fn is_unheld(assertion: &Assertion, now: &str) -> bool {
    let is_literal = match &assertion.expectation {
        // A log shows nothing before a signal.
        _ if assertion.source.is_log() => false,
        Expectation::Equals(_) | Expectation::Contains(_) | Expectation::Matches(_) => assertion
            .resolved(None)
            .is_ok_and(|resolved| resolved.expectation == assertion.expectation),
        _ => false,
    };
    is_literal && !assertion.holds_alone(now)
}

/// Returns an `equals` as `fleet.toml` has it.
fn written(assertion: &Assertion) -> String {
    match &assertion.expectation {
        Expectation::Equals(text) => format!("`equals = {text:?}`"),
        _ => "it".into(),
    }
}

fn shown(text: &str) -> String {
    let text = text.trim_end();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("`{} ..`", text[..end].escape_debug()),
        None => format!("`{}`", text.escape_debug()),
    }
}
