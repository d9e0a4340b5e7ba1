//! The sentence about a reading that does not satisfy its assertion.

use std::fmt;

use super::{Assertion, Expectation, Extract, Source};

/// The longest part of a text that a message repeats, in characters: about one line of a terminal.
const SHOWN: usize = 100;

/// The part of a text that messages and the journal may repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Showing {
    /// It may be repeated.
    Open,
    /// The reading may contain the credentials of its request; the expectation may be repeated.
    Wanted,
    /// Neither may be repeated: the config is a secret, and an answer may contain it.
    Secret,
}

impl Showing {
    /// Returns the rule for an answer of `source`.
    #[must_use]
    pub fn of(self, source: &Source) -> Self {
        if self == Self::Open && source.shows_credentials() {
            Self::Wanted
        } else {
            self
        }
    }
}

// As `fleet.toml` has it, without the labels of a metric.
impl fmt::Display for Extract {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body => f.write_str("body"),
            Self::Stdout => f.write_str("stdout"),
            Self::Exit => f.write_str("exit"),
            Self::Status => f.write_str("status"),
            Self::Header(name) => write!(f, "header:{name}"),
            Self::Json(pointer) => write!(f, "json:{pointer}"),
            Self::Metric(name, _) => write!(f, "metric:{name}"),
            Self::Group(part, _) => write!(f, "part of {part}"),
        }
    }
}

/// Returns the first line of a text in backquotes, of at most [`SHOWN`] characters.
#[must_use]
pub(crate) fn shown(text: &str) -> String {
    let line = text
        .trim_end_matches(['\n', '\r'])
        .split(['\n', '\r'])
        .next()
        .unwrap_or_default();
    let cut: String = line.chars().take(SHOWN).collect();
    let more = cut.len() < text.trim_end_matches(['\n', '\r']).len();
    format!("`{cut}{}`", if more { " .." } else { "" })
}

impl Assertion {
    /// Describes the reading and the expectation; `read` is none if the answer does not have the
    /// part that is read.
    #[must_use]
    pub fn unmet(&self, read: Option<&str>, showing: Showing) -> String {
        let wanted = match (&self.expectation, showing) {
            (Expectation::Changed, _) => "another text than before the signal".into(),
            (Expectation::Increased, _) => "more than before the signal".into(),
            (Expectation::Decreased, _) => "less than before the signal".into(),
            (Expectation::AfterSignal, _) => "a moment after the signal".into(),
            (Expectation::Replaced, _) => "new workers or sockets alone".into(),
            (
                Expectation::Equals(_) | Expectation::Contains(_) | Expectation::Matches(_),
                Showing::Secret,
            ) => "the value of its config, which is a secret".into(),
            (Expectation::Equals(text), Showing::Open | Showing::Wanted) => shown(text),
            (Expectation::Contains(text), Showing::Open | Showing::Wanted) => {
                format!("{} in it", shown(text))
            }
            (Expectation::Matches(pattern), Showing::Open | Showing::Wanted) => {
                format!("what {} fits", shown(pattern.text()))
            }
        };
        match (read, showing) {
            (None, _) => format!("has no {}, and wanted is {wanted}", self.read),
            (Some(_), Showing::Secret) => format!("does not read as it should; wanted is {wanted}"),
            (Some(_), Showing::Wanted) => format!("reads something else, and wanted is {wanted}"),
            // The expected text may be in any line.
            (Some(read), Showing::Open)
                if matches!(
                    self.expectation,
                    Expectation::Contains(_) | Expectation::Matches(_)
                ) =>
            {
                format!(
                    "reads {}, and wanted is {wanted}",
                    shown(&read.trim_end().replace(['\r', '\n'], "\\n"))
                )
            }
            (Some(read), Showing::Open) => format!("reads {}, and wanted is {wanted}", shown(read)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::assertion::{Access, Extract, HttpRequest, Source};

    #[test]
    fn a_message_has_the_reading_and_the_expectation_but_no_secret() {
        let assertion = |expectation| Assertion {
            source: Source::Exec(vec!["x".into()]),
            read: Extract::Body,
            expectation,
            any: None,
        };
        let equals = assertion(Expectation::Equals("two".into()));
        let with_a_token = Source::Http(HttpRequest {
            access: Access {
                bearer_file: Some("/t".into()),
                ..Access::default()
            },
            ..HttpRequest::default()
        });
        assert_eq!(
            equals.unmet(Some("one\n"), Showing::Open),
            "reads `one`, and wanted is `two`"
        );
        assert_eq!(
            assertion(Expectation::Contains("two".into())).unmet(Some("a\nb"), Showing::Open),
            "reads `a\\nb`, and wanted is `two` in it"
        );
        assert_eq!(
            assertion(Expectation::Equals("two".into())).unmet(Some("a\nb"), Showing::Open),
            "reads `a ..`, and wanted is `two`"
        );
        assert_eq!(
            equals.unmet(Some("Bearer x"), Showing::Open.of(&with_a_token)),
            "reads something else, and wanted is `two`"
        );
        for expectation in [
            Expectation::Equals("two".into()),
            Expectation::Contains("two".into()),
            Expectation::Changed,
            Expectation::AfterSignal,
        ] {
            let text = assertion(expectation).unmet(Some("one"), Showing::Secret);
            assert!(!text.contains("one") && !text.contains("two"), "{text}");
        }
        assert!(equals.unmet(Some(&"x".repeat(5_000)), Showing::Open).len() < 200);
        assert!(
            equals
                .unmet(None, Showing::Open)
                .contains("wanted is `two`")
        );
    }
}
