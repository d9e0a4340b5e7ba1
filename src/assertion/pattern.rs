//! Regular expressions in the expectations and readings of assertions.

use std::{borrow::Cow, sync::OnceLock};

use regex::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

/// The largest compiled expression, in bytes: 256 KiB hold any that an operator writes, and a
/// repetition such as `(x{1000}){1000}` is a fault instead of gigabytes.
const MAX_COMPILED: usize = 256 << 10;

/// A regular expression. It is compiled when it is first used.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub struct Pattern {
    text: String,
    compiled: OnceLock<Option<Regex>>,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl From<String> for Pattern {
    fn from(text: String) -> Self {
        Self {
            text,
            compiled: OnceLock::new(),
        }
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.text
    }
}

fn compile(text: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(text).size_limit(MAX_COMPILED).build()
}

impl Pattern {
    /// Returns the text of the expression.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the expression; none if it cannot be compiled.
    fn regex(&self) -> Option<&Regex> {
        self.compiled
            .get_or_init(|| compile(&self.text).ok())
            .as_ref()
    }

    /// Tells whether the expression fits a part of `reading`.
    #[must_use]
    pub fn fits(&self, reading: &str) -> bool {
        self.regex().is_some_and(|regex| regex.is_match(reading))
    }

    /// Returns the text of the one group in the first part of `reading` that the expression fits;
    /// none if there is no such part.
    #[must_use]
    pub fn part_of<'a>(&self, reading: &'a str) -> Option<&'a str> {
        let captures = self.regex()?.captures(reading)?;
        Some(captures.get(1)?.as_str())
    }

    /// Returns a sentence about what is wrong with the expression.
    pub(super) fn fault(&self) -> Option<String> {
        // A placeholder stands for a literal text.
        let text = without_placeholders(&self.text);
        compile(&text)
            .err()
            .map(|why| format!("{:?} is no regular expression: {}", self.text, reason(&why)))
    }

    /// Returns a sentence about what is wrong with an expression whose one group is read.
    pub(super) fn group_fault(&self) -> Option<String> {
        self.fault().or_else(|| {
            let groups = self.regex()?.captures_len().saturating_sub(1);
            (groups != 1).then(|| {
                format!(
                    "{:?} has {groups} groups, and the text of exactly one is read",
                    self.text
                )
            })
        })
    }
}

/// Returns the last line of an error, which is the reason; the lines before it draw the text.
fn reason(why: &regex::Error) -> String {
    let text = why.to_string();
    let line = text.lines().last().unwrap_or_default().trim();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// Replaces each placeholder of an expectation by a letter.
fn without_placeholders(text: &str) -> Cow<'_, str> {
    let mut replaced = Cow::Borrowed(text);
    while let Some(start) = replaced
        .find("{candidate.")
        .or_else(|| replaced.find("{pid}"))
        && let Some(length) = replaced[start..].find('}')
    {
        replaced.to_mut().replace_range(start..=start + length, "x");
    }
    replaced
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::from(text.to_owned())
    }

    #[test]
    fn the_one_group_is_read_and_any_other_number_of_groups_is_a_fault() {
        let version = pattern(r"nginx/([0-9.]+)");
        assert_eq!(version.part_of("Server: nginx/1.22.1\n"), Some("1.22.1"));
        assert_eq!(version.part_of("Server: other"), None);
        assert_eq!(version.group_fault(), None);
        for text in ["a", "(a)(b)", "(?:a)"] {
            assert!(pattern(text).group_fault().unwrap().contains("exactly one"));
        }
    }

    #[test]
    fn a_fault_of_an_expression_says_why_in_one_line() {
        for text in ["(", "a{2", "(x{1000}){1000}", "[z-a]"] {
            let why = pattern(text).fault().unwrap();
            assert!(!why.contains('\n'), "{why}");
        }
        for text in [r"\d{3}", "{candidate.a.b}+", "pid {pid}: (ok|done)"] {
            assert_eq!(pattern(text).fault(), None, "{text}");
        }
    }

    #[test]
    fn an_expression_is_equal_by_its_text_and_travels_as_that() {
        let used = pattern("a+");
        assert!(used.fits("caat"));
        assert_eq!(used, pattern("a+"));
        let text = serde_json::to_string(&used).unwrap();
        assert_eq!(text, "\"a+\"");
        assert_eq!(serde_json::from_str::<Pattern>(&text).unwrap(), used);
    }
}
