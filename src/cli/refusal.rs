//! How a command ends that could not look at anything: a sentence for people, and an object on
//! stdout where the command line asked for JSON. The command line may be one that cannot be parsed.

use std::{ffi::OsString, process::ExitCode};

use serde_json::{Map, Value, json};

use crate::{
    event::{Abort, Verdict},
    report::{self, Summary},
    screen,
};

/// Short options that take no value, so that others may stand behind them in one word.
const FLAGS: &str = "qvhV";

/// What the raw arguments ask for, whether or not they can be parsed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    verb: Option<String>,
    json: bool,
    dry_run: bool,
}

impl Wanted {
    fn of(args: impl Iterator<Item = OsString>) -> Self {
        let mut wanted = Self::default();
        let mut args = args.map(|arg| arg.to_string_lossy().into_owned());
        while let Some(arg) = args.next() {
            let output = match arg.as_str() {
                "--" => break,
                "--dry-run" => {
                    wanted.dry_run = true;
                    None
                }
                "--output" => args.next(),
                _ if let Some(value) = arg.strip_prefix("--output=") => Some(value.to_owned()),
                _ if arg.starts_with("--") => None,
                _ if let Some(letters) = arg.strip_prefix('-') => match letters
                    .trim_start_matches(|c| FLAGS.contains(c))
                    .strip_prefix('o')
                {
                    Some("") => args.next(),
                    Some(value) => Some(value.trim_start_matches('=').to_owned()),
                    None => None,
                },
                _ => {
                    wanted.verb.get_or_insert(arg);
                    None
                }
            };
            wanted.json |= output.is_some_and(|output| output == "json" || output == "jsonl");
        }
        wanted
    }

    /// The command, where it is one that `--help` knows.
    fn verb(&self) -> &str {
        const VERBS: [&str; 6] = [
            "broadcast",
            "resume",
            "revert",
            "status",
            "doctor",
            "history",
        ];
        self.verb
            .as_deref()
            .filter(|verb| VERBS.contains(verb))
            .unwrap_or_default()
    }

    /// The object that stands for the answer.
    fn object(&self, verdict: Verdict, reason: &str, next: Vec<String>) -> Value {
        let rest = |value: Value| match value {
            Value::Object(keys) => keys,
            _ => Map::new(),
        };
        let rest = match self.verb() {
            "broadcast" | "resume" | "revert" => {
                let abort = Abort::new(verdict, reason);
                let summary = Summary::refused(abort, next, self.dry_run);
                rest(serde_json::to_value(summary).unwrap_or_default())
            }
            "status" => {
                return report::refused(
                    verdict,
                    reason,
                    &next,
                    rest(json!({ "instances": [], "groups": [], "open": [], "running": [] })),
                );
            }
            "doctor" => {
                return report::refused(
                    verdict,
                    reason,
                    &next,
                    rest(json!({ "processes": [], "missing": [] })),
                );
            }
            "history" => {
                return report::refused(verdict, reason, &next, rest(json!({ "runs": [] })));
            }
            _ => return report::refused(verdict, reason, &next, Map::new()),
        };
        Value::Object(rest)
    }
}

/// Ends the command: tells why, and prints the object where one was asked for.
pub(super) fn fail(code: u8, why: &str) -> ExitCode {
    screen::tell(&screen::failure(why));
    answer(code, why);
    ExitCode::from(code)
}

/// Prints the object of an end that people were told already.
pub(super) fn answer(code: u8, why: &str) {
    let wanted = Wanted::of(std::env::args_os().skip(1));
    if !wanted.json {
        return;
    }
    let verdict = [
        Verdict::Usage,
        Verdict::NoMatch,
        Verdict::Invalid,
        Verdict::Refused,
    ]
    .into_iter()
    .find(|verdict| verdict.exit() == code);
    let help = [wanted.verb(), "--help"]
        .into_iter()
        .filter(|word| !word.is_empty())
        .fold("hello".to_owned(), |line, word| line + " " + word);
    let reason = why
        .trim_start_matches("error: ")
        .split("\n\n")
        .next()
        .unwrap_or_default()
        .trim_end();
    screen::data([wanted.object(verdict.unwrap_or(Verdict::Failed), reason, vec![help])]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(line: &str) -> Wanted {
        Wanted::of(line.split(' ').map(OsString::from))
    }

    #[test]
    fn json_is_seen_in_every_spelling_also_where_the_rest_is_wrong() {
        for line in [
            "status -o json",
            "status -ojson",
            "status -o=json",
            "status --output json",
            "status --output=jsonl",
            "broadcast -qojson",
            "-o json x",
        ] {
            assert!(wanted(line).json, "{line}");
        }
        for line in [
            "status",
            "status -o screen",
            "status -o",
            "status -n o json",
            "status -- -o json",
            "status --reason json",
        ] {
            assert!(!wanted(line).json, "{line}");
        }
        assert_eq!(wanted("revert x --dry-run --odd").verb(), "revert");
        assert!(wanted("revert x --dry-run").dry_run);
    }

    #[test]
    fn an_answer_that_is_none_has_the_keys_of_one() {
        for (verb, key) in [
            ("broadcast", "instances"),
            ("revert", "targets"),
            ("status", "open"),
            ("doctor", "missing"),
            ("history", "runs"),
        ] {
            let object = wanted(verb).object(Verdict::Usage, "why", vec!["hello --help".into()]);
            assert!(object[key].is_array(), "{object:#}");
            for (key, value) in [
                ("exit", json!(2)),
                ("reason", json!("why")),
                ("dry_run", json!(false)),
                ("next", json!(["hello --help"])),
            ] {
                assert_eq!(object[key], value, "{verb}: {key}");
            }
        }
        assert_eq!(
            wanted("revert --dry-run").object(Verdict::Usage, "", Vec::new())["dry_run"],
            true
        );
    }
}
