//! The errors that a validator names in a config that it passes. Some programs leave out a line
//! that they do not take and go on: `squid -k parse` ends with 0 then, and such a line would never
//! be in force.

use std::{collections::HashMap, path::Path};

/// Words that name an error where `:` stands behind them, or brackets around them.
const WORDS: [&str; 5] = ["error", "fatal", "emerg", "alert", "crit"];

/// Words that name one by themselves, in these letters.
const LOUD: [&str; 3] = ["ERROR", "FATAL", "CRITICAL"];

/// Texts that name one by themselves, as logs in fields have them.
const PHRASES: [&str; 5] = [
    "syntax error",
    "parse error",
    "bungled",
    "level=error",
    "\"level\":\"error\"",
];

/// Words that turn a phrase into its opposite: `no syntax errors`.
const NEGATIONS: [&str; 3] = ["no ", "0 ", "without "];

/// Words of lines that name a place of the config for something less than an error.
const LESS: [&str; 7] = [
    "warn", "deprecat", "obsolete", "notice", "note:", "info", "debug",
];

/// Lines that are shown; more of them say nothing else.
const SHOWN: usize = 20;

/// The longest part of a line that is looked for in the content, in characters.
const REPEATED: usize = 24;

/// Lines of a validator's output that name an error.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Complaints {
    /// By a word for it.
    errors: Vec<String>,
    /// By a line of the config alone: `a.conf line 3: unknown`. A validator that lists what it
    /// reads names such places too.
    places: Vec<String>,
}

impl Complaints {
    /// Those in `output` about configs that lie at `paths`. A line whose error is a part of the
    /// content itself (`is_content`) only repeats that.
    pub(crate) fn of(output: &str, paths: &[&Path], is_content: impl Fn(&str) -> bool) -> Self {
        let mut all = Self::default();
        for line in output.lines().map(str::trim) {
            match marker(line) {
                Some(at) if !is_content(&repeated(&line[at..])) => all.errors.push(line.to_owned()),
                None if paths.iter().any(|path| names_a_line(line, path)) => {
                    all.places.push(line.to_owned());
                }
                _ => {}
            }
        }
        all
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.errors.is_empty() && self.places.is_empty()
    }

    /// Those that `other` does not have, or has not as often. Words with a digit in them are not
    /// compared: they are times, places and addresses. Where the other has places as well, they
    /// are what this validator always says.
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

    /// The lines, as they are shown.
    pub(crate) fn text(&self) -> String {
        let all: Vec<&str> = self
            .errors
            .iter()
            .chain(&self.places)
            .map(String::as_str)
            .collect();
        let more = all.len().saturating_sub(SHOWN);
        let shown = all[..all.len() - more].join("\n");
        if more == 0 {
            shown
        } else {
            format!("{shown}\n.. and {more} more")
        }
    }
}

/// The part of a line that would stand in the content as well, if the line only repeats that.
fn repeated(text: &str) -> String {
    text.chars().take(REPEATED).collect()
}

/// Where in a line an error is named.
fn marker(line: &str) -> Option<usize> {
    // Of the same length, byte by byte.
    let lower = line.to_ascii_lowercase();
    let phrase = |phrase: &&str| {
        let at = lower.find(*phrase)?;
        let is_denied = NEGATIONS.iter().any(|no| lower[..at].ends_with(no));
        (!is_denied).then_some(at)
    };
    let is_letter = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    let word = |word: &&str| {
        lower.match_indices(*word).map(|(at, _)| at).find(|at| {
            let (before, after) = (&lower[..*at], &lower[at + word.len()..]);
            let is_labelled = after.starts_with(':') && !before.ends_with(is_letter);
            is_labelled || (after.starts_with(']') && before.ends_with('['))
        })
    };
    let loud = |word: &&str| {
        line.match_indices(*word).map(|(at, _)| at).find(|at| {
            let (before, after) = (&line[..*at], &line[at + word.len()..]);
            let is_denied = NEGATIONS.iter().any(|no| before.ends_with(no));
            let is_alone = !before.ends_with(is_letter) && after.starts_with([' ', '\t']);
            is_alone && !is_denied
        })
    };
    PHRASES
        .iter()
        .find_map(phrase)
        .or_else(|| WORDS.iter().find_map(word))
        .or_else(|| LOUD.iter().find_map(loud))
}

/// Whether a line names a line of what lies at `path`, or below it, and nothing says that it is
/// less than an error. One in parentheses only says where something else stands.
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
        && !LESS.iter().any(|less| lower.contains(less))
}

/// A line without the words that have a digit in them.
fn without_numbers(line: &str) -> String {
    let words = line.split(|c: char| c.is_whitespace() || "()[]<>,;='\"".contains(c));
    let words = words.filter(|word| !word.contains(|c: char| c.is_ascii_digit()));
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(output: &str) -> Complaints {
        Complaints::of(
            output,
            &[Path::new("/etc/x.conf"), Path::new("/etc/x.d")],
            |_| false,
        )
    }

    #[test]
    fn a_line_that_names_an_error_is_one() {
        for line in [
            "x.conf:3: ERROR: unknown directive",
            "FATAL: Bungled x.conf line 3",
            "nginx: [emerg] unknown directive",
            "x: syntax error in line 2",
            "12:00 worker ERROR unknown key",
            "ts=1 level=error msg=x",
            "{\"level\":\"error\",\"msg\":\"x\"}",
        ] {
            assert_eq!(of(line).errors, [line]);
        }
    }

    #[test]
    fn a_line_that_only_has_such_a_word_is_none() {
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
            assert!(of(line).is_empty(), "{line}");
        }
    }

    #[test]
    fn a_line_that_names_a_line_of_the_config_is_one() {
        for line in [
            "2026/01/02 03:04:05| aclParseAccessLine: /etc/x.conf line 11: http_access nonsense",
            "unknown key in line 3 of \"/etc/x.conf\"",
            "/etc/x.d/a.conf:12: not known, skipped",
        ] {
            assert_eq!(of(line).places, [line]);
        }
    }

    #[test]
    fn a_place_in_a_warning_or_without_a_line_is_none() {
        let lines = [
            "nginx: [warn] the \"listen ... http2\" directive is deprecated in /etc/x.conf:4",
            "/etc/x.conf line 5: Deprecated option UsePrivilegeSeparation",
            "Processing Configuration File: /etc/x.conf (depth 0)",
            "/etc/y.conf:3: something",
            "the configuration file /etc/x.conf syntax is ok at 10:15",
        ];
        lines
            .iter()
            .for_each(|line| assert!(of(line).is_empty(), "{line}"));
    }

    #[test]
    fn what_repeats_the_content_is_none() {
        let of = |output: &str| {
            Complaints::of(output, &[], |marker: &str| "log error: %x".contains(marker))
        };
        assert!(of("Processing: log error: %x").is_empty());
        assert!(!of("ERROR: no such log").is_empty());
    }

    #[test]
    fn one_that_was_there_before_is_not_new_wherever_it_stands() {
        let (before, after) = (
            of("10:01 x:3: error: old"),
            of("10:02 x:4: error: old\n10:02 x:5: error: new"),
        );
        assert_eq!(after.beyond(&before).text(), "10:02 x:5: error: new");
        assert!(before.beyond(&after).is_empty());
    }

    #[test]
    fn noise_that_differs_from_run_to_run_is_not_new_and_one_more_of_it_is() {
        let noise =
            |n: u32| format!("ERROR:root:no pool <app.Pool object at 0x7f{n:x}a> (/tmp/x{n})");
        assert!(of(&noise(11)).beyond(&of(&noise(12))).is_empty());
        let twice = format!("{}\n{}", noise(1), noise(2));
        assert!(!of(&twice).beyond(&of(&noise(3))).is_empty());
        // However many there are, the same ones are not new.
        let many = |from: usize| {
            let lines = (from..25).map(|at| format!("error: k{} is not set", "u".repeat(at)));
            of(&lines.collect::<Vec<_>>().join("\n"))
        };
        assert!(many(1).beyond(&many(0)).is_empty() && !many(0).beyond(&many(1)).is_empty());
        assert!(many(0).text().ends_with(".. and 5 more"));
    }

    #[test]
    fn a_list_of_places_is_no_complaint_of_a_validator_that_always_makes_one() {
        let (before, after) = (
            of("vhost a (/etc/x.conf:1)"),
            of("vhost a (/etc/x.conf:1)\nvhost b (/etc/x.conf:9)"),
        );
        assert!(after.beyond(&before).is_empty());
        assert_eq!(after.beyond(&of("")), after);
    }
}
