//! The text of a group: keys with their sources, and lines that the operator must decide about.

use std::borrow::Cow;

use super::fact::Source;
use crate::screen;

/// Longest comment behind a key, in letters. A longer one is cut.
const MAX_COMMENT: usize = 200;

/// The lines of a group, without its header.
#[derive(Debug, Default)]
pub(super) struct GroupText(Vec<String>);

impl GroupText {
    /// Appends a key that counts.
    pub(super) fn key(&mut self, key: &str, value: &str, source: Source, why: &str) {
        let why = comment(why);
        self.0
            .push(format!("{key} = {value}  # {}: {why}", source.word()));
    }

    /// Appends a key that counts only once the operator removes the mark before it.
    pub(super) fn candidate(&mut self, key: &str, value: &str, source: Source, why: &str) {
        let why = comment(why);
        self.0
            .push(format!("# {key} = {value}  # {}: {why}", source.word()));
    }

    /// Appends a key that only the operator can complete or decide about.
    pub(super) fn typed(&mut self, key: &str, value: &str, why: &str) {
        self.0
            .push(format!("# {key} = {value}  # to type: {}", comment(why)));
    }

    /// Appends a comment.
    pub(super) fn note(&mut self, text: &str) {
        self.0.push(format!("# {}", comment(text)));
    }

    /// Appends a line as it is.
    pub(super) fn line(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }

    /// Returns the table with its header.
    pub(super) fn toml(&self) -> String {
        format!("[[group]]\n{}\n", self.0.join("\n"))
    }
}

/// Returns `text` on one line, at most as long as a comment may be.
pub(super) fn comment(text: &str) -> String {
    let line = screen::line(text);
    if line.chars().count() <= MAX_COMMENT {
        return line.into_owned();
    }
    let cut: String = line.chars().take(MAX_COMMENT).collect();
    format!("{} ..", cut.trim_end())
}

/// Returns a basic string of TOML. Characters that a terminal could obey are escaped.
pub(super) fn quoted(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('"');
    for c in value.chars() {
        let mut buffer = [0; 4];
        let is_plain =
            c != '\t' && matches!(screen::line(c.encode_utf8(&mut buffer)), Cow::Borrowed(_));
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            c if is_plain => text.push(c),
            c if u32::from(c) <= 0xffff => text.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => text.push_str(&format!("\\U{:08X}", u32::from(c))),
        }
    }
    text.push('"');
    text
}

/// Returns a list of basic strings.
pub(super) fn list<S: AsRef<str>>(values: &[S]) -> String {
    let values: Vec<String> = values.iter().map(|value| quoted(value.as_ref())).collect();
    format!("[{}]", values.join(", "))
}

/// Returns one basic string, or a list of several.
pub(super) fn one_or_list<S: AsRef<str>>(values: &[S]) -> String {
    match values {
        [value] => quoted(value.as_ref()),
        values => list(values),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn toml_reads_back_every_string_and_no_comment(
            value in any::<String>(),
            why in any::<String>(),
        ) {
            let mut text = GroupText::default();
            text.key("key", &quoted(&value), Source::Seen, &why);
            text.candidate("other", &list(&[&why]), Source::Guessed, &why);
            text.typed("typed", &quoted(&value), &why);
            text.note(&why);
            let toml = text.toml();
            let joined = toml.replace('\n', "");
            prop_assert_eq!(screen::line(&joined), joined.as_str());
            let table: toml::Table = toml.parse().unwrap();
            let group = table["group"][0].as_table().unwrap();
            prop_assert_eq!(group.len(), 1);
            prop_assert_eq!(group["key"].as_str(), Some(value.as_str()));
        }
    }

    #[test]
    fn a_long_comment_is_cut() {
        let long = "ä".repeat(MAX_COMMENT + 1);
        assert_eq!(comment(&long).chars().count(), MAX_COMMENT + 3);
        assert_eq!(comment("a\nb"), "a\\nb");
    }
}
