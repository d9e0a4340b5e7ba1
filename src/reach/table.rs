//! The hosts as people read them: a table of those that differ, and the totals.

use std::collections::BTreeMap;

use super::row::{HostRow, OpenRow, State};
use crate::{
    names,
    screen::{Table, counted},
};

/// The most hosts with a row each. Above it, hosts that have all cells in common share a row, so
/// that 400 hosts fit on a screen.
const SINGLE: usize = 20;

/// Prints the table and the totals.
pub(super) fn print(rows: &[HostRow]) {
    let mut table = Table::new(1, ["HOST", "STATE", "VERSION", "GROUPS", "OPEN RUNS"]);
    for (hosts, row) in grouped(rows) {
        let open: Vec<String> = row.open.iter().map(OpenRow::text).collect();
        table.row([
            &hosts,
            row.state.word(),
            row.version.as_deref().unwrap_or("-"),
            &or_none(row.groups_text()),
            &or_none(open.join(", ")),
        ]);
        if let Some(why) = &row.why {
            table.below(why);
        }
        if let Some(repair) = &row.repair {
            table.below(&format!("next: {repair}"));
        }
    }
    table.answer([totals(rows)]);
}

fn or_none(text: String) -> String {
    if text.is_empty() { "-".into() } else { text }
}

/// Returns each row with the hosts that it stands for, in the order of the first host of each.
pub(super) fn grouped(rows: &[HostRow]) -> Vec<(String, &HostRow)> {
    if rows.len() <= SINGLE {
        return rows.iter().map(|row| (row.name.clone(), row)).collect();
    }
    let mut order: Vec<(&HostRow, Vec<&str>)> = Vec::new();
    let mut known: BTreeMap<_, usize> = BTreeMap::new();
    for row in rows {
        let open: Vec<String> = row.open.iter().map(OpenRow::text).collect();
        // The hint names the host itself, so it does not tell rows apart.
        let cells = (row.state, &row.version, row.groups_text(), open, &row.why);
        let index = *known.entry(cells).or_insert_with(|| {
            order.push((row, Vec::new()));
            order.len() - 1
        });
        order[index].1.push(&row.name);
    }
    order
        .into_iter()
        .map(|(row, hosts)| {
            let count = hosts.len();
            let names = names::list(&hosts, ", ", names::MOST);
            let text = if count == 1 {
                names
            } else {
                format!("{}: {names}", counted(count, "host"))
            };
            (text, row)
        })
        .collect()
}

/// Returns the number of hosts by state.
pub(super) fn totals(rows: &[HostRow]) -> String {
    let mut text = counted(rows.len(), "host");
    let mut separator = ": ";
    for state in [
        State::Ready,
        State::Unreachable,
        State::Skewed,
        State::Refused,
    ] {
        let count = rows.iter().filter(|row| row.state == state).count();
        if count > 0 {
            text += &format!("{separator}{count} {}", state.word());
            separator = ", ";
        }
    }
    text
}
