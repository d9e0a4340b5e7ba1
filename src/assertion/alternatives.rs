//! Entries of `any`: a list of assertions of which one must hold.
//!
//! The alternatives of an entry are assertions that follow one another in the list of their group,
//! so that each has a reading at its own index. An assertion without `any` is an entry of its own.

use std::ops::Range;

use super::{
    Assertion, Expectation,
    raw::{RawAssertion, RawAssertionError},
};

/// Iterates over the entries of a list: the indexes of the alternatives of each.
pub(crate) fn entries(assertions: &[Assertion]) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    assertions
        .chunk_by(|one, next| one.any.is_some() && one.any == next.any)
        .map(move |entry| {
            let indexes = start..start + entry.len();
            start = indexes.end;
            indexes
        })
}

/// Tells whether each entry has an alternative of which `holds` is true.
pub(crate) fn each_entry(
    assertions: &[Assertion],
    holds: impl Fn(usize, &Assertion) -> bool,
) -> bool {
    entries(assertions).all(|mut entry| entry.any(|index| holds(index, &assertions[index])))
}

/// Returns the entry of the assertion `index`.
pub(crate) fn entry_of(assertions: &[Assertion], index: usize) -> Range<usize> {
    entries(assertions)
        .find(|entry| entry.contains(&index))
        .unwrap_or(index..index)
}

/// The moment whose reading an alternative is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Basis {
    /// A text that stands in `fleet.toml` or in the config.
    Text,
    /// The lines that were written since the signal.
    Log,
    /// The answer from before the signal.
    Answer,
    /// The last stamp or count from before the signal.
    Count,
    /// The processes or sockets from before the signal.
    Processes,
}

impl Basis {
    fn of(assertion: &Assertion) -> Self {
        match assertion.expectation {
            _ if assertion.source.is_log() => Self::Log,
            Expectation::Equals(_) | Expectation::Contains(_) | Expectation::Matches(_) => {
                Self::Text
            }
            Expectation::Changed => Self::Answer,
            Expectation::Increased | Expectation::Decreased | Expectation::AfterSignal => {
                Self::Count
            }
            Expectation::Replaced => Self::Processes,
        }
    }

    /// The keys that have it.
    fn keys(self) -> &'static str {
        match self {
            Self::Text => "equals, contains and matches",
            Self::Log => "lines of a log",
            Self::Answer => "changed",
            Self::Count => "increased, decreased and after_signal",
            Self::Processes => "replaced",
        }
    }
}

impl RawAssertion {
    /// Returns the assertions of an entry, of which one must hold if there are several. `number`
    /// distinguishes the entries of a list.
    pub(crate) fn into_entry(mut self, number: usize) -> Result<Vec<Assertion>, RawAssertionError> {
        let Some(list) = self.any.take() else {
            return Ok(vec![Assertion::try_from(self)?]);
        };
        let at = |span: Range<usize>, message: String| RawAssertionError {
            at: Some(span),
            ..message.into()
        };
        if self.names_anything() {
            let message = "any stands alone: each of its assertions has its own source, reading \
                           and expectation";
            return Err(at(list.span(), message.into()));
        }
        let span = list.span();
        let number = u16::try_from(number).unwrap_or(u16::MAX);
        let mut entry: Vec<Assertion> = Vec::new();
        for raw in list.into_inner() {
            let raw_span = raw.span();
            let raw = raw.into_inner();
            if let Some(inner) = &raw.any {
                let message = "any has no any in it: write its assertions into the outer list";
                return Err(at(inner.span(), message.into()));
            }
            let assertion = Assertion::try_from(raw).map_err(|error| RawAssertionError {
                at: error.at.or(Some(raw_span.clone())),
                ..error
            })?;
            if let Some(message) = entry.first().and_then(|it| unlike(it, &assertion)) {
                return Err(at(raw_span, message));
            }
            if entry.iter().any(|it| is_same(it, &assertion)) {
                return Err(at(raw_span, "any has this assertion twice".into()));
            }
            entry.push(Assertion {
                any: Some(number),
                ..assertion
            });
        }
        match entry.len() {
            0 => Err(at(span, "any is empty, and would never hold".into())),
            1 => {
                let message = "any has one assertion: write it without any";
                Err(at(span, message.into()))
            }
            _ => Ok(entry),
        }
    }
}

/// Returns why two alternatives cannot stand in one entry: a reload that only one of them could see
/// would be taken for the end of another.
fn unlike(first: &Assertion, other: &Assertion) -> Option<String> {
    let (first, other) = (Basis::of(first), Basis::of(other));
    (first != other).then(|| {
        format!(
            "any mixes {} with {}: they compare with different things from before the signal",
            first.keys(),
            other.keys()
        )
    })
}

fn is_same(one: &Assertion, other: &Assertion) -> bool {
    (&one.source, &one.read, &one.expectation) == (&other.source, &other.read, &other.expectation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assertion::{Extract, Source};

    fn assertion(program: &str, any: Option<u16>) -> Assertion {
        Assertion {
            source: Source::Exec(vec![program.into()]),
            read: Extract::Stdout,
            expectation: Expectation::Changed,
            any,
        }
    }

    fn list() -> Vec<Assertion> {
        vec![
            assertion("a", None),
            assertion("b", Some(1)),
            assertion("c", Some(1)),
            assertion("d", Some(2)),
            assertion("e", Some(2)),
            assertion("f", None),
            assertion("g", None),
        ]
    }

    #[test]
    fn assertions_of_one_number_are_one_entry() {
        let found: Vec<Range<usize>> = entries(&list()).collect();
        assert_eq!(found, [0..1, 1..3, 3..5, 5..6, 6..7]);
    }

    #[test]
    fn an_entry_needs_one_alternative_and_a_list_each_entry() {
        let holds = |held: &[usize]| each_entry(&list(), |index, _| held.contains(&index));
        assert!(holds(&[0, 2, 3, 5, 6]));
        assert!(!holds(&[0, 1, 2, 5, 6]), "the third entry does not hold");
        assert!(!holds(&[1, 3, 5, 6]), "the first entry does not hold");
    }

    #[test]
    fn an_assertion_is_in_one_entry() {
        assert_eq!(entry_of(&list(), 2), 1..3);
        assert_eq!(entry_of(&list(), 5), 5..6);
    }
}
