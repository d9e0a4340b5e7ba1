//! The errors that a validator names in a config that it passes. Some programs leave out a line
//! that they do not take and go on: `squid -k parse` ends with 0 then, and such a line would never
//! be in force.

use std::path::Path;

/// Words that name an error where `:` or `]` stands behind them.
const WORDS: [&str; 5] = ["error", "fatal", "emerg", "alert", "crit"];

/// Phrases that name one by themselves.
const PHRASES: [&str; 3] = ["syntax error", "parse error", "bungled"];

/// Words that turn a phrase into its opposite: `no syntax errors`.
const NEGATIONS: [&str; 3] = ["no ", "0 ", "without "];

/// Words of lines that name a place of the config for something less than an error.
const LESS: [&str; 7] = [
    "warn", "deprecat", "obsolete", "notice", "note:", "info", "debug",
];

/// Lines of each kind that are kept; more of them say nothing else.
const MAX_LINES: usize = 20;

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
            let lines = match marker(line) {
                Some(marker) if !is_content(marker) => &mut all.errors,
                None if paths.iter().any(|path| names_a_line(line, path)) => &mut all.places,
                _ => continue,
            };
            if lines.len() < MAX_LINES {
                lines.push(line.to_owned());
            }
        }
        all
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.errors.is_empty() && self.places.is_empty()
    }

    /// Those that `other` does not have. Numbers are not compared: they are times and places. Where
    /// the other has places as well, they are what this validator always says.
    pub(crate) fn beyond(&self, other: &Self) -> Self {
        let known: Vec<String> = other
            .errors
            .iter()
            .map(|line| without_numbers(line))
            .collect();
        let errors = self
            .errors
            .iter()
            .filter(|line| !known.contains(&without_numbers(line)))
            .cloned()
            .collect();
        Self {
            errors,
            places: if other.places.is_empty() {
                self.places.clone()
            } else {
                Vec::new()
            },
        }
    }

    /// The lines, as they are shown.
    pub(crate) fn text(&self) -> String {
        [self.errors.as_slice(), &self.places].concat().join("\n")
    }
}

/// The part of a line that names an error.
fn marker(line: &str) -> Option<&str> {
    // Of the same length, byte by byte.
    let lower = line.to_ascii_lowercase();
    let phrase = PHRASES.iter().find_map(|phrase| {
        let at = lower.find(phrase)?;
        let is_denied = NEGATIONS.iter().any(|no| lower[..at].ends_with(no));
        (!is_denied).then(|| &line[at..at + phrase.len()])
    });
    let word = |word: &&str| {
        lower.match_indices(*word).find_map(|(at, _)| {
            let (before, end) = (&lower[..at], at + word.len());
            let is_whole =
                !before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '_' | '-'));
            (is_whole && lower[end..].starts_with([':', ']'])).then(|| &line[at..=end])
        })
    };
    phrase.or_else(|| WORDS.iter().find_map(word))
}

/// Whether a line names a line of what lies at `path`, or below it, and nothing says that it is
/// less than an error.
fn names_a_line(line: &str, path: &Path) -> bool {
    let Some((_, after)) = path.to_str().and_then(|path| line.split_once(path)) else {
        return false;
    };
    let file = after.split_whitespace().next().unwrap_or_default();
    let is_followed = |text: &str, mark: &str| {
        text.split(mark)
            .skip(1)
            .any(|after| after.starts_with(|c: char| c.is_ascii_digit()))
    };
    let lower = line.to_ascii_lowercase();
    (is_followed(file, ":") || is_followed(&lower, "line "))
        && !LESS.iter().any(|less| lower.contains(less))
}

fn without_numbers(line: &str) -> String {
    line.chars().filter(|c| !c.is_ascii_digit()).collect()
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
    fn a_list_of_places_is_no_complaint_of_a_validator_that_always_makes_one() {
        let (before, after) = (
            of("vhost a (/etc/x.conf:1)"),
            of("vhost a (/etc/x.conf:1)\nvhost b (/etc/x.conf:9)"),
        );
        assert!(after.beyond(&before).is_empty());
        assert_eq!(after.beyond(&of("")), after);
    }
}
