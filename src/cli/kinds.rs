//! `hello kinds`.

use std::process::ExitCode;

use super::refusal::fail;
use crate::{diagnostic, event::Verdict, fleet::KINDS, screen};

/// Prints every kind, or one of them as a group of `fleet.toml`.
pub(super) fn kinds(name: Option<&str>) -> ExitCode {
    let text = match name {
        None => KINDS
            .iter()
            .map(|kind| format!("{}\n", kind.about()))
            .collect(),
        Some(name) => match KINDS.iter().find(|kind| kind.name == name) {
            Some(kind) => kind.as_group(),
            None => {
                let hint = diagnostic::suggest(name, KINDS.iter().map(|kind| kind.name))
                    .unwrap_or_default();
                return fail(Verdict::Usage.exit(), &format!("no kind `{name}`; {hint}"));
            }
        },
    };
    screen::answer([text.trim_end_matches('\n')]);
    ExitCode::SUCCESS
}
