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
    let Some(name) = name else {
        table().answer([screen::counted(KINDS.len(), "kind")]);
        return ExitCode::SUCCESS;
    };
    let Some(kind) = KINDS.iter().find(|kind| kind.name == name) else {
        let hint = diagnostic::suggest(name, KINDS.iter().map(|kind| kind.name));
        let hint = hint.unwrap_or_default();
        return fail(Verdict::Usage.exit(), &format!("no kind `{name}`; {hint}"));
    };
    screen::answer([kind.as_group().trim_end()]);
    ExitCode::SUCCESS
}

/// Returns a table of every kind.
fn table() -> Table {
    let mut table = Table::new(1, ["KIND", "ON ITS SIGNAL"]);
    for kind in KINDS {
        let about = kind.about();
        let about = about.split_once(": ").map_or(about, |(_, about)| about);
        table.row([kind.name, about]);
    }
    table
}
