//! The end of a command that inspected nothing: an error on stderr, and an object on stdout if the
//! command line asks for JSON. The command line may be one that cannot be parsed.

use std::{ffi::OsString, process::ExitCode};

use serde_json::{Map, Value, json};

use super::{aliases, exports::ExportError, state::NoStateDir};
use crate::{
    event::{Abort, Verdict},
    history, reach,
    report::{self, Summary},
    screen, status,
};

/// The short options without a value. Other short options may follow them in one word.
const FLAGS: &str = "qvhVy";

/// The parts of the raw arguments that decide the form of the error.
#[derive(Debug, Default, PartialEq, Eq)]
struct RawArguments {
    verb: Option<String>,
    json: bool,
    dry_run: bool,
}

impl RawArguments {
    fn scan(args: impl Iterator<Item = OsString>) -> Self {
        let mut found = Self::default();
        let mut args = args.map(|arg| arg.to_string_lossy().into_owned());
        while let Some(arg) = args.next() {
            let output = match arg.as_str() {
                "--" => break,
                "--dry-run" => {
                    found.dry_run = true;
                    None
                }
                "--output" => args.next(),
                "--color" => {
                    args.next();
                    None
                }
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
                    found.verb.get_or_insert(arg);
                    None
                }
            };
            found.json |= output.is_some_and(|output| output == "json" || output == "jsonl");
        }
        found
    }

    /// The command, if it is one that prints JSON; else an empty string. An alias is the command
    /// that it stands for.
    fn verb(&self) -> &str {
        const VERBS: [&str; 9] = [
            "broadcast",
            "resume",
            "revert",
            "status",
            "hosts",
            "doctor",
            "history",
            "show",
            "diff",
        ];
        let name = aliases::command_of(self.verb.as_deref().unwrap_or_default());
        VERBS
            .into_iter()
            .find(|verb| *verb == name)
            .unwrap_or_default()
    }

    /// The object that the command prints instead of its result: the same keys, all empty.
    fn object(&self, verdict: Verdict, reason: &str, next: Vec<String>) -> Value {
        let empty = match self.verb() {
            "broadcast" | "resume" | "revert" => {
                let abort = Abort::new(verdict, reason);
                let summary = Summary::refused(abort, next, self.dry_run);
                return serde_json::to_value(summary).unwrap_or_default();
            }
            "status" => status::no_rows().into(),
            "hosts" => reach::no_rows().into(),
            "doctor" => json!({ "processes": [], "missing": [] }),
            "diff" => json!({ "targets": [], "unknown": [], "skipped": [] }),
            "history" => history::no_rows().into(),
            _ => json!({}),
        };
        let keys = match empty {
            Value::Object(keys) => keys,
            _ => Map::new(),
        };
        report::refused(verdict, reason, &next, keys)
    }
}

/// Options that do not agree with each other or with the fleet, with the way to correct them.
#[derive(Debug)]
pub(super) struct UsageError {
    why: String,
    /// The next step, and the command for it.
    hint: Option<(String, String)>,
}

impl UsageError {
    pub(super) fn with_hint(
        why: impl Into<String>,
        action: impl Into<String>,
        command: impl Into<String>,
    ) -> Self {
        Self {
            why: why.into(),
            hint: Some((action.into(), command.into())),
        }
    }

    /// Ends the command with the error and its hint.
    pub(super) fn fail(&self) -> ExitCode {
        let code = Verdict::Usage.exit();
        match &self.hint {
            Some((action, command)) => fail_with(code, &self.why, action, command.clone()),
            None => fail(code, &self.why),
        }
    }
}

impl From<String> for UsageError {
    fn from(why: String) -> Self {
        Self { why, hint: None }
    }
}

impl From<ExportError> for UsageError {
    fn from(why: ExportError) -> Self {
        why.to_string().into()
    }
}

impl From<NoStateDir> for UsageError {
    fn from(why: NoStateDir) -> Self {
        why.to_string().into()
    }
}

/// Ends the command: prints the error, and the object if the command line asks for JSON.
pub(super) fn fail(code: u8, why: &str) -> ExitCode {
    screen::tell(&screen::failure(why));
    print_object(code, why);
    ExitCode::from(code)
}

/// Ends the command with an error, and with the command to type next.
pub(super) fn fail_with(code: u8, why: &str, action: &str, command: String) -> ExitCode {
    screen::tell(&screen::failure(why));
    screen::tell(&format!("\n{}", screen::hint(action, &[&command])));
    print_object_with(code, why, Some(command));
    ExitCode::from(code)
}

/// Prints the object of an error that stderr has already, if the command line asks for JSON.
pub(super) fn print_object(code: u8, why: &str) {
    print_object_with(code, why, None);
}

/// Does the same with the command to type next; none for the help.
fn print_object_with(code: u8, why: &str, next: Option<String>) {
    let arguments = RawArguments::scan(std::env::args_os().skip(1));
    if !arguments.json {
        return;
    }
    let verdict = [
        Verdict::Usage,
        Verdict::NoMatch,
        Verdict::Invalid,
        Verdict::Refused,
        Verdict::Busy,
    ]
    .into_iter()
    .find(|verdict| verdict.exit() == code)
    .unwrap_or(Verdict::Failed);
    let help = || {
        [arguments.verb(), "--help"]
            .into_iter()
            .filter(|word| !word.is_empty())
            .fold("hello".to_owned(), |line, word| line + " " + word)
    };
    let next = next.unwrap_or_else(help);
    // Usage and hints of clap follow the first empty line.
    let reason = why
        .trim_start_matches("error: ")
        .split("\n\n")
        .next()
        .unwrap_or_default()
        .trim_end();
    screen::data([arguments.object(verdict, reason, vec![next])]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanned(line: &str) -> RawArguments {
        RawArguments::scan(line.split(' ').map(OsString::from))
    }

    #[test]
    fn json_is_found_in_every_spelling_even_if_other_arguments_are_wrong() {
        for line in [
            "status -o json",
            "status -ojson",
            "status -o=json",
            "status --output json",
            "status --output=jsonl",
            "broadcast -qojson",
            "-o json x",
        ] {
            assert!(scanned(line).json, "{line}");
        }
        for line in [
            "status",
            "status -o screen",
            "status -o",
            "status -n o json",
            "status -- -o json",
            "status --reason json",
        ] {
            assert!(!scanned(line).json, "{line}");
        }
        assert_eq!(scanned("revert x --dry-run --odd").verb(), "revert");
        assert!(scanned("revert x --dry-run").dry_run);
    }

    #[test]
    fn the_object_of_an_error_has_the_keys_of_a_result() {
        for (verb, key) in [
            ("broadcast", "instances"),
            ("revert", "targets"),
            ("status", "open"),
            ("doctor", "missing"),
            ("diff", "unknown"),
            ("history", "runs"),
        ] {
            let object = scanned(verb).object(Verdict::Usage, "why", vec!["hello --help".into()]);
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
            scanned("revert --dry-run").object(Verdict::Usage, "", Vec::new())["dry_run"],
            true
        );
    }
}
