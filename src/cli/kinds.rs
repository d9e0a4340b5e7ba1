//! `hello kinds`.

use std::process::ExitCode;

use super::refusal::fail;
use crate::{
    diagnostic,
    event::Verdict,
    fleet::{Fleet, KINDS, Kind},
    screen::{self, Table},
};

/// Prints every kind, or one of them as a group of `fleet.toml`.
pub(super) fn kinds(name: Option<&str>) -> ExitCode {
    let Some(name) = name else {
        let (refused, others): (Vec<&Kind>, Vec<&Kind>) =
            KINDS.iter().partition(|kind| is_refused(kind));
        let count = screen::counted(others.len(), "kind");
        table(["KIND", "ON ITS SIGNAL"], &others).answer([count.as_str(), ""]);
        let count = screen::counted(refused.len(), "kind");
        table(["REFUSED", "NO SIGNAL RELOADS IT"], &refused).answer([count]);
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

/// Tells whether every instance of the kind is refused, since no signal reloads it.
fn is_refused(kind: &Kind) -> bool {
    let fleet = Fleet::of_kind(kind.name).ok();
    let group = fleet.as_ref().and_then(|fleet| fleet.groups.first());
    group.is_some_and(|group| group.never_reloads().is_some())
}

/// Returns a table of these kinds.
fn table(header: [&str; 2], kinds: &[&Kind]) -> Table {
    let mut table = Table::new(1, header);
    for kind in kinds {
        let about = kind.about();
        let about = about.split_once(": ").map_or(about, |(_, about)| about);
        table.row([kind.name, about]);
    }
    table
}
