//! The instances of several hosts as people read them: a table, its totals, and a legend.

use std::collections::BTreeMap;

use super::{
    answer::Rows,
    listing::{LEGEND, Listing, is_unknown, totals},
    row::{NONE, Row, State},
};
use crate::{
    names,
    screen::{Table, counted},
};

/// The most instances with a row each. Above it, instances that have group, config and faults in
/// common share a row, so that 400 hosts fit on a screen.
const SINGLE: usize = 20;

/// Returns the listing of all hosts; with `quiet`, only of what does not agree.
pub(super) fn listing(rows: &Rows, hosts: usize, quiet: bool) -> Listing {
    let is_shown = |row: &&Row| !quiet || row.state() == State::Fault;
    let shown: Vec<&Row> = rows.instances.iter().filter(is_shown).collect();
    let is_single = shown.len() <= SINGLE;
    let mut table = if is_single {
        single(&shown)
    } else {
        grouped(&shown)
    };
    for group in rows.groups.iter().filter(|group| !group.faults.is_empty()) {
        let (word, host) = (State::Fault.word(), group.host.as_str());
        if is_single {
            table.row([word, host, &group.group, NONE, NONE]);
        } else {
            table.row([word, &group.group, NONE, NONE, host]);
        }
        group.faults.iter().for_each(|fault| table.below(fault));
    }
    let totals = format!(
        "{}: {}",
        counted(hosts, "host"),
        totals(&rows.instances, &rows.groups, rows.skipped.len())
    );
    let has_unknown = rows.instances.iter().any(is_unknown);
    Listing::of(table, totals, (has_unknown && !quiet).then_some(LEGEND))
}

fn single(rows: &[&Row]) -> Table {
    let mut table = Table::new(1, ["STATUS", "HOST", "GROUP", "PID", "CONFIG"]);
    for row in rows {
        table.row([
            row.state().word(),
            row.host.as_str(),
            &row.group,
            &row.pid_cell(),
            &row.config_cell(),
        ]);
        row.add_below(&mut table);
    }
    table
}

fn grouped(rows: &[&Row]) -> Table {
    let mut order: Vec<(&Row, Vec<String>)> = Vec::new();
    let mut known: BTreeMap<_, usize> = BTreeMap::new();
    for row in rows {
        let cells = (
            row.state().word(),
            &row.group,
            row.config_cell(),
            &row.faults,
            &row.unvalidated,
        );
        let index = *known.entry(cells).or_insert_with(|| {
            order.push((row, Vec::new()));
            order.len() - 1
        });
        order[index]
            .1
            .push(format!("{} {}", row.host, row.pid_cell()));
    }
    let mut table = Table::new(1, ["STATUS", "GROUP", "COUNT", "CONFIG", "HOST PID"]);
    for (row, instances) in order {
        table.row([
            row.state().word(),
            &row.group,
            &instances.len().to_string(),
            &row.config_cell(),
            &names::list(&instances, ", ", names::MOST),
        ]);
        row.add_below(&mut table);
    }
    table
}
