//! Errors that a validator names in a config that it passes. Some programs ignore a line that they
//! do not understand: `squid -k parse` ends with 0 then, and the program would never use that line.

use std::{collections::HashMap, path::Path};

/// Words that name an error if a `:` follows them, or brackets enclose them.
const WORDS: [&str; 5] = ["error", "fatal", "emerg", "alert", "crit"];

/// Words that name an error alone, if written in capitals.
const CAPITALS: [&str; 3] = ["ERROR", "FATAL", "CRITICAL"];

/// Phrases that name an error, some of them in structured logs.
const PHRASES: [&str; 5] = [
    "syntax error",
    "parse error",
    "bungled",
    "level=error",
    "\"level\":\"error\"",
];

/// Words that turn a phrase into its opposite: `no syntax errors`.
const NEGATIONS: [&str; 3] = ["no ", "0 ", "without "];

/// Words of lines that name a line of the config for less than an error.
const HARMLESS: [&str; 7] = [
    "warn", "deprecat", "obsolete", "notice", "note:", "info", "debug",
];

/// The most lines that are shown. More of them add no information.
const SHOWN: usize = 20;

/// The longest part of a line that is searched in the content, in characters. It is short, since
/// the validator may change the rest of a line that it repeats.
const REPEATED: usize = 24;

/// Lines of a validator's output that name an error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Complaints {
    /// Lines with a word for an error.
    errors: Vec<String>,
    /// Lines that only name a line of the config: `a.conf line 3: unknown`. A validator that lists
    /// everything that it reads prints such lines too.
    places: Vec<String>,
}

impl Complaints {
    /// Finds the complaints in `output` about configs at `paths`. A line whose error is part of the
    /// content itself (`is_content`) only repeats that, and does not count.
    pub(crate) fn of(output: &str, paths: &[&Path], is_content: impl Fn(&str) -> bool) -> Self {
        let mut complaints = Self::default();
        for line in output.lines().map(str::trim) {
            match marker(line) {
                Some(index) if !is_content(&repeated(&line[index..])) => {
                    complaints.errors.push(line.to_owned());
                }
                None if paths.iter().any(|path| names_a_line(line, path)) => {
                    complaints.places.push(line.to_owned());
                }
                _ => {}
            }
        }
        complaints
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.errors.is_empty() && self.places.is_empty()
    }

    /// Returns the complaints that `other` does not have, or not as often. Words with a digit are
    /// not compared: they are times, places and addresses. If `other` has places too, this
    /// validator always prints them, and they are not returned.
    pub(crate) fn beyond(&self, other: &Self) -> Self {
        let mut known: HashMap<String, usize> = HashMap::new();
        for line in &other.errors {
            *known.entry(without_numbers(line)).or_default() += 1;
        }
        let mut is_new = |line: &&String| match known.get_mut(&without_numbers(line)) {
            Some(left) if *left > 0 => {
                *left -= 1;
                false
            }
            _ => true,
        };
        let errors = self.errors.iter().filter(|line| is_new(line)).cloned();
        let is_usual = !other.places.is_empty();
        Self {
            errors: errors.collect(),
            places: if is_usual {
                Vec::new()
            } else {
                self.places.clone()
            },
        }
    }

    /// Returns the lines for the screen, at most [`SHOWN`].
    pub(crate) fn text(&self) -> String {
        let lines: Vec<&str> = self
            .errors
            .iter()
            .chain(&self.places)
            .map(String::as_str)
            .collect();
        let more = lines.len().saturating_sub(SHOWN);
        let shown = lines[..lines.len() - more].join("\n");
        if more == 0 {
            shown
        } else {
            format!("{shown}\n.. and {more} more")
        }
    }
}

/// Returns the part of a line to search in the content.
fn repeated(text: &str) -> String {
    text.chars().take(REPEATED).collect()
}

/// Returns the index in a line at which an error is named.
fn marker(line: &str) -> Option<usize> {
    // It has the same length in bytes, so that indices are the same.
    let lower = line.to_ascii_lowercase();
    let phrase = |phrase: &&str| {
        let index = lower.find(*phrase)?;
        let is_denied = NEGATIONS.iter().any(|no| lower[..index].ends_with(no));
        (!is_denied).then_some(index)
    };
    let is_letter = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    let word = |word: &&str| {
        let mut indices = lower.match_indices(*word).map(|(index, _)| index);
        indices.find(|index| {
            let before = &lower[..*index];
            let after = &lower[index + word.len()..];
            let is_labelled = after.starts_with(':') && !before.ends_with(is_letter);
            is_labelled || (after.starts_with(']') && before.ends_with('['))
        })
    };
    let capitals = |word: &&str| {
        let mut indices = line.match_indices(*word).map(|(index, _)| index);
        indices.find(|index| {
            let before = &line[..*index];
            let after = &line[index + word.len()..];
            let is_denied = NEGATIONS.iter().any(|no| before.ends_with(no));
            let is_alone = !before.ends_with(is_letter) && after.starts_with([' ', '\t']);
            is_alone && !is_denied
        })
    };
    PHRASES
        .iter()
        .find_map(phrase)
        .or_else(|| WORDS.iter().find_map(word))
        .or_else(|| CAPITALS.iter().find_map(capitals))
}

/// Tells whether a line names a line of the file at `path`, or of a file below it, and no word
/// makes it less than an error. A path in parentheses only locates something else.
fn names_a_line(line: &str, path: &Path) -> bool {
    let Some((before, after)) = path.to_str().and_then(|path| line.split_once(path)) else {
        return false;
    };
    let file = after.split_whitespace().next().unwrap_or_default();
    let is_followed = |text: &str, mark: &str| {
        text.split(mark)
            .skip(1)
            .any(|after| after.starts_with(|c: char| c.is_ascii_digit()))
    };
    let lower = line.to_ascii_lowercase();
    !before.ends_with('(')
        && (is_followed(file, ":") || is_followed(&lower, "line "))
        && !HARMLESS.iter().any(|word| lower.contains(word))
}

/// Returns a line without the words that contain a digit.
fn without_numbers(line: &str) -> String {
    let words = line.split(|c: char| c.is_whitespace() || "()[]<>,;='\"".contains(c));
    let words = words.filter(|word| !word.contains(|c: char| c.is_ascii_digit()));
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(output: &str) -> Complaints {
        Complaints::of(
            output,
            &[Path::new("/etc/x.conf"), Path::new("/etc/x.d")],
            |_| false,
        )
    }

    #[test]
    fn a_line_that_names_an_error_is_a_complaint() {
        for line in [
            "x.conf:3: ERROR: unknown directive",
            "FATAL: Bungled x.conf line 3",
            "nginx: [emerg] unknown directive",
            "x: syntax error in line 2",
            "12:00 worker ERROR unknown key",
            "ts=1 level=error msg=x",
            "{\"level\":\"error\",\"msg\":\"x\"}",
        ] {
            assert_eq!(complaints(line).errors, [line]);
        }
    }

    #[test]
    fn a_line_that_only_contains_such_a_word_is_no_complaint() {
        for line in [
            "Processing: error_page 404 /x",
            "no syntax errors found",
            "0 parse errors",
            "x-error: 3",
            "[warn] conflicting name",
            "levels: [warn error]",
            "0 ERROR lines",
            "errors: 0",
            "",
        ] {
            assert!(complaints(line).is_empty(), "{line}");
        }
    }

    #[test]
    fn a_line_that_names_a_line_of_the_config_is_a_complaint() {
        for line in [
            "2026/01/02 03:04:05| aclParseAccessLine: /etc/x.conf line 11: http_access nonsense",
            "unknown key in line 3 of \"/etc/x.conf\"",
            "/etc/x.d/a.conf:12: not known, skipped",
        ] {
            assert_eq!(complaints(line).places, [line]);
        }
    }

    #[test]
    fn a_place_in_a_warning_or_without_a_line_is_no_complaint() {
        let lines = [
            "nginx: [warn] the \"listen ... http2\" directive is deprecated in /etc/x.conf:4",
            "/etc/x.conf line 5: Deprecated option UsePrivilegeSeparation",
            "Processing Configuration File: /etc/x.conf (depth 0)",
            "/etc/y.conf:3: something",
            "the configuration file /etc/x.conf syntax is ok at 10:15",
        ];
        lines
            .iter()
            .for_each(|line| assert!(complaints(line).is_empty(), "{line}"));
    }

    #[test]
    fn a_line_that_repeats_the_content_is_no_complaint() {
        let complaints = |output: &str| {
            Complaints::of(output, &[], |marker: &str| "log error: %x".contains(marker))
        };
        assert!(complaints("Processing: log error: %x").is_empty());
        assert!(!complaints("ERROR: no such log").is_empty());
    }

    #[test]
    fn a_complaint_of_the_old_config_is_not_new_at_another_line() {
        let (before, after) = (
            complaints("10:01 x:3: error: old"),
            complaints("10:02 x:4: error: old\n10:02 x:5: error: new"),
        );
        assert_eq!(after.beyond(&before).text(), "10:02 x:5: error: new");
        assert!(before.beyond(&after).is_empty());
    }

    #[test]
    fn a_complaint_that_differs_in_numbers_is_not_new_and_one_more_of_it_is() {
        let noise =
            |n: u32| format!("ERROR:root:no pool <app.Pool object at 0x7f{n:x}a> (/tmp/x{n})");
        assert!(
            complaints(&noise(11))
                .beyond(&complaints(&noise(12)))
                .is_empty()
        );
        let twice = format!("{}\n{}", noise(1), noise(2));
        assert!(!complaints(&twice).beyond(&complaints(&noise(3))).is_empty());
        // More complaints than are shown are compared too.
        let many = |from: usize| {
            let lines = (from..25).map(|count| format!("error: k{} is not set", "u".repeat(count)));
            complaints(&lines.collect::<Vec<_>>().join("\n"))
        };
        assert!(many(1).beyond(&many(0)).is_empty() && !many(0).beyond(&many(1)).is_empty());
        assert!(many(0).text().ends_with(".. and 5 more"));
    }

    #[test]
    fn a_list_of_places_is_no_complaint_if_the_validator_always_prints_one() {
        let (before, after) = (
            complaints("vhost a (/etc/x.conf:1)"),
            complaints("vhost a (/etc/x.conf:1)\nvhost b (/etc/x.conf:9)"),
        );
        assert!(after.beyond(&before).is_empty());
        assert_eq!(after.beyond(&complaints("")), after);
    }
}
