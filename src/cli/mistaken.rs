//! The command line that was probably meant, where a word was taken for the name of a group.

use std::{
    ffi::{OsStr, OsString},
    path::Path,
};

use super::{aliases, refusal::UsageError};
use crate::{
    fleet::{FleetError, KINDS},
    screen,
};

/// The next step: a sentence that leads to the command, and the command.
type Step = (&'static str, String);

/// The options that take their value only behind a `=`.
pub(super) const BY_EQUALS: [&str; 2] = ["--validate", "--watch"];

impl From<FleetError> for UsageError {
    /// Adds the command that was probably meant to the error.
    fn from(error: FleetError) -> Self {
        let words: Vec<OsString> = std::env::args_os().skip(1).collect();
        let step = match &error {
            FleetError::NoGroup(name, _) => step(&words, name),
            _ => None,
        };
        match step {
            Some((action, command)) => Self::with_hint(error.to_string(), action, command),
            None => error.to_string().into(),
        }
    }
}

/// Returns the command line of this process with these words at its end. None if it has the value
/// of a `--set` in it, which may be a secret.
pub(super) fn this_command_with(more: &[&str]) -> Option<String> {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let more = more.iter().map(OsString::from);
    line(&words.into_iter().chain(more).collect::<Vec<_>>())
}

/// Returns the next step for the word `name` of the command line `words`, which no group has as its
/// name.
fn step(words: &[OsString], name: &str) -> Option<Step> {
    let place = words.iter().position(|word| word == name)?;
    let verb = words.iter().find_map(|word| word.to_str());
    let verb = aliases::command_of(verb.unwrap_or_default());
    let before = place
        .checked_sub(1)
        .and_then(|before| words[before].to_str());
    if let Some(option) = before.filter(|before| BY_EQUALS.contains(before)) {
        let action = "the value of this option follows a `=`:";
        let value = OsString::from(format!("{option}={name}"));
        return Some((action, replaced(words, place - 1..=place, &[value])?));
    }
    if ["broadcast", "diff"].contains(&verb) && Path::new(name).exists() {
        let action = "to install a file, name it with --config:";
        let config = [OsString::from("--config"), OsString::from(name)];
        return Some((action, replaced(words, place..=place, &config)?));
    }
    if name.bytes().all(|b| b.is_ascii_digit()) {
        return Some(("to look at one process:", format!("hello doctor {name}")));
    }
    if name.starts_with('@') {
        return Some(("to look at one run:", format!("hello show {name}")));
    }
    let is_kind = KINDS.iter().any(|kind| kind.name == name);
    let action = "a kind is a group only where no fleet file is; to add it to the file, copy what \
                  this prints:";
    is_kind.then(|| (action, format!("hello kinds {name}")))
}

fn replaced(
    words: &[OsString],
    place: std::ops::RangeInclusive<usize>,
    by: &[OsString],
) -> Option<String> {
    let mut words = words.to_vec();
    words.splice(place, by.iter().cloned());
    line(&words)
}

/// Returns the command line of these arguments, quoted for a shell.
fn line(words: &[OsString]) -> Option<String> {
    let holds_value = |word: &OsString| word.to_string_lossy().starts_with("--set");
    let quoted = |word: &OsString| screen::quote(word);
    let words = (!words.iter().any(holds_value)).then_some(words)?;
    let hello = screen::quote(OsStr::new("hello"));
    let all: Vec<String> = std::iter::once(hello)
        .chain(words.iter().map(quoted))
        .collect();
    Some(all.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(line: &str, name: &str) -> Option<String> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        step(&words, name).map(|(_, command)| command)
    }

    #[test]
    fn a_value_behind_a_space_is_shown_behind_an_equals_sign() {
        for (line, name, meant) in [
            ("status --watch 1", "1", "hello status --watch=1"),
            (
                "broadcast --validate strict web",
                "strict",
                "hello broadcast --validate=strict web",
            ),
        ] {
            assert_eq!(command(line, name).as_deref(), Some(meant));
        }
    }

    #[test]
    fn a_file_is_shown_as_the_config_of_the_commands_that_take_one() {
        assert_eq!(
            command("apply Cargo.toml --dry-run", "Cargo.toml").as_deref(),
            Some("hello apply --config Cargo.toml --dry-run")
        );
        assert_eq!(command("status Cargo.toml", "Cargo.toml"), None);
    }

    #[test]
    fn a_pid_a_run_and_a_kind_lead_to_the_command_that_takes_them() {
        for (name, meant) in [
            ("4711", "hello doctor 4711"),
            ("@-1", "hello show @-1"),
            ("nginx", "hello kinds nginx"),
        ] {
            let line = format!("status {name}");
            assert_eq!(command(&line, name).as_deref(), Some(meant));
        }
        assert_eq!(command("status webb", "webb"), None);
    }

    #[test]
    fn a_value_that_may_be_a_secret_is_not_repeated() {
        let line = "broadcast --set token=1 --validate off";
        assert_eq!(command(line, "off"), None);
    }
}
