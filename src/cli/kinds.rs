//! `hello kinds`.

use std::process::ExitCode;

use super::refusal::fail;
use crate::{
    diagnostic,
    event::Verdict,
    fleet::KINDS,
    screen::{self, Table},
};

/// Prints every kind, or one of them as a group of `fleet.toml`.
pub(super) fn kinds(name: Option<&str>) -> ExitCode {
    let lines = match name {
        None => list(),
        Some(name) => match KINDS.iter().find(|kind| kind.name == name) {
            Some(kind) => vec![kind.as_group().trim_end().to_owned()],
            None => {
                let hint = diagnostic::suggest(name, KINDS.iter().map(|kind| kind.name))
                    .unwrap_or_default();
                return fail(Verdict::Usage.exit(), &format!("no kind `{name}`; {hint}"));
            }
        },
    };
    screen::answer(lines);
    ExitCode::SUCCESS
}

/// Returns a table of every kind.
fn list() -> Vec<String> {
    let mut table = Table::new(["KIND", "ON SIGHUP"]);
    for kind in KINDS {
        let about = kind.about();
        let about = about.split_once(": ").map_or(about, |(_, about)| about);
        table.row([kind.name, about]);
    }
    let mut lines = table.lines();
    lines.push(screen::counted(KINDS.len(), "kind"));
    lines
}
