//! The evidence of a proof: what the assertions of an instance show once all of them hold.

use crate::{
    assertion::{Assertion, Expectation, entries},
    event::{Direction, Proof},
    host::probe::{
        expected::{Expected, OtherConfig, WaitUntil},
        readings,
    },
    step::{PlannedInstance, TargetChange},
};

/// The state of an earlier reload of the instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EarlierReload {
    /// None is known, or its end was seen.
    Over,
    /// Its end was not seen: a later answer may come from it.
    Open,
}

/// How the proof of one instance is gathered.
pub(super) struct Evidence {
    pub(super) proof: Proof,
    pub(super) until: WaitUntil,
    /// True if the first end of a reload can be the end of an earlier one, so that a second end
    /// must be seen.
    pub(super) needs_second_end: bool,
}

impl Evidence {
    /// Returns the evidence that `expected` gives of `member`. `first` is the baseline of the
    /// survey.
    pub(super) fn of(
        member: &PlannedInstance,
        expected: &Expected,
        first: &[Option<String>],
        (changes, direction): (&[TargetChange], Direction),
        earlier: EarlierReload,
    ) -> Self {
        if expected.self_report.is_some() {
            return Self {
                proof: Proof::Exact,
                until: WaitUntil::Shown,
                needs_second_end: false,
            };
        }
        let is_open = earlier == EarlierReload::Open;
        // An assertion that held already counts only under three conditions. The instance may run
        // this config since before its signal, no earlier reload can end that, and the other config
        // would not make the assertion hold.
        let may_hold = !is_open
            && (direction.is_back()
                || member.signal_may_be_pending
                || member.may_run_new
                || member.runs_it);
        let others = other_texts(&member.group.confirm, &expected.confirm, changes);
        let differs = |index: usize| others[index].is_some();
        // While an earlier reload is under way, its end is a change as well.
        let counts = |assertion: &Assertion| {
            direction.is_back() || !is_open || assertion.expectation != Expectation::Changed
        };
        let baseline = &member.baseline;
        let proof = strongest_proof(&expected.confirm, baseline, differs, may_hold, counts);
        let compares = expected.confirm.iter().any(Assertion::needs_signal);
        // An alternative of `any` may read what shows no config at all.
        let others = of_single_entries(others, &expected.confirm);
        // The expected content proves nothing while an earlier reload may be under way. The other
        // content, seen before it, shows that this reload is over.
        if is_open
            && !compares
            && (direction.is_back() || (proof == Proof::None && others.iter().any(Option::is_some)))
        {
            let seen = shows_other(&others, baseline)
                || readings::show_other_config(&expected.confirm, first, baseline);
            return Self {
                proof: Proof::Content,
                until: WaitUntil::Other {
                    others,
                    seen: seen.into(),
                },
                needs_second_end: false,
            };
        }
        let until = if proof == Proof::None {
            WaitUntil::Deadline
        } else {
            WaitUntil::Shown
        };
        Self {
            proof,
            until,
            needs_second_end: is_open && proof != Proof::None,
        }
    }

    /// Tells whether the wait may end with nothing shown but that the instance lives.
    pub(super) fn may_be_unseen(&self) -> bool {
        self.proof == Proof::None || matches!(self.until, WaitUntil::Other { .. })
    }
}

/// Returns for each assertion the reading that only the config which `changes` replace gives.
fn other_texts(
    written: &[Assertion],
    resolved: &[Assertion],
    changes: &[TargetChange],
) -> Vec<Option<OtherConfig>> {
    written
        .iter()
        .zip(resolved)
        .map(|(written, resolved)| other_text(written, resolved, changes))
        .collect()
}

/// Returns the readings without those of alternatives.
fn of_single_entries(
    others: Vec<Option<OtherConfig>>,
    assertions: &[Assertion],
) -> Vec<Option<OtherConfig>> {
    let pairs = others.into_iter().zip(assertions);
    pairs
        .map(|(other, assertion)| other.filter(|_| assertion.any.is_none()))
        .collect()
}

/// Tells whether a reading of `baseline` is one that only the other config gives.
fn shows_other(others: &[Option<OtherConfig>], baseline: &[Option<String>]) -> bool {
    others.iter().zip(baseline).any(|(other, before)| {
        other
            .as_ref()
            .zip(before.as_deref())
            .is_some_and(|(other, before)| other.is(before))
    })
}

/// Returns the reading that the config which `changes` replace would give to an assertion. Returns
/// `None` if it is not known, or is the same as of the new config. `written` is the assertion as
/// `fleet.toml` has it, `resolved` the same for the new config.
pub(crate) fn other_text(
    written: &Assertion,
    resolved: &Assertion,
    changes: &[TargetChange],
) -> Option<OtherConfig> {
    let Expectation::Equals(text) = &resolved.expectation else {
        return None;
    };
    // A line of a log is written at a reload, and shows no config before or after it.
    if resolved.source.is_log() {
        return None;
    }
    if written.expectation == Expectation::Changed {
        return Some(OtherConfig::Not(text.clone()));
    }
    let from = changes.first()?.from.as_ref()?.file();
    match written.resolved(from).ok()?.expectation {
        Expectation::Equals(old) if old != *text => Some(OtherConfig::Text(old)),
        _ => None,
    }
}

/// Returns the strongest proof that assertions give once all of them hold.
///
/// An assertion that held before the signal could not have failed. It proves nothing, unless
/// `may_hold` is true and `differs` says of its index that the other config would not make it hold.
/// Without a reading from before the signal, `differs` decides. Only assertions that `counts`
/// accepts prove anything. Each alternative of an entry of `any` can have made it hold, so the
/// entry proves what the weakest of them does.
pub(crate) fn strongest_proof(
    resolved: &[Assertion],
    baseline: &[Option<String>],
    differs: impl Fn(usize) -> bool,
    may_hold: bool,
    counts: impl Fn(&Assertion) -> bool,
) -> Proof {
    let proof = |(index, assertion): (usize, &Assertion)| match &assertion.expectation {
        // Only lines since the signal are read.
        _ if assertion.source.is_log() => Some(Proof::Reloaded),
        Expectation::Equals(_) | Expectation::Contains(_) | Expectation::Matches(_) => {
            let held = baseline
                .get(index)
                .and_then(Option::as_deref)
                .map(|before| assertion.holds_alone(before));
            let proves = match held {
                Some(held) => !held || (may_hold && differs(index)),
                None => differs(index),
            };
            proves.then_some(Proof::Content)
        }
        Expectation::Changed => Some(Proof::Content),
        Expectation::Increased | Expectation::Decreased | Expectation::AfterSignal => {
            Some(Proof::Reloaded)
        }
        Expectation::Replaced => Some(Proof::Workers),
    };
    let of_alternative = |index: usize| {
        let assertion = &resolved[index];
        let counted = counts(assertion).then_some((index, assertion));
        counted.and_then(proof).unwrap_or(Proof::None)
    };
    entries(resolved)
        .filter_map(|entry| entry.map(of_alternative).max())
        .min()
        .unwrap_or(Proof::None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assertion::{Extract, Source};

    /// Returns an assertion that a reading is this word; `any` as in [`Assertion::any`].
    fn word(word: &str, any: Option<u16>) -> Assertion {
        Assertion {
            source: Source::Exec(vec![word.into()]),
            read: Extract::Stdout,
            expectation: Expectation::Equals(word.into()),
            any,
        }
    }

    fn proof(assertions: &[Assertion], before: &[&str]) -> Proof {
        let before: Vec<Option<String>> = before.iter().map(|it| Some((*it).into())).collect();
        strongest_proof(assertions, &before, |_| false, false, |_| true)
    }

    #[test]
    fn the_weakest_alternative_decides_what_an_entry_proves() {
        let entry = [word("a", Some(0)), word("b", Some(0))];
        assert_eq!(proof(&entry, &["x", "y"]), Proof::Content);
        assert_eq!(proof(&entry, &["a", "y"]), Proof::None);
        assert_eq!(proof(&entry, &["x", "b"]), Proof::None);
        let alone = [word("a", None), word("b", None)];
        assert_eq!(proof(&alone, &["a", "y"]), Proof::Content);
    }

    #[test]
    fn a_strong_entry_proves_beside_a_weak_one() {
        let list = [word("a", Some(0)), word("b", Some(0)), word("c", None)];
        assert_eq!(proof(&list, &["a", "y", "z"]), Proof::Content);
    }
}
