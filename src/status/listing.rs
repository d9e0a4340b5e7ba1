//! The instances and groups as people read them: a table, its totals, and a legend.

use super::{
    group_row::GroupRow,
    row::{COLUMNS, KnownBy, Row, RowTarget, State},
};
use crate::screen::{Table, counted};

/// The meaning of `not known` where no fault was found.
pub(super) const LEGEND: &str = "not known: the instance does not report its config, and no run \
                                 has proven the config that is on the disk";

/// The rows that are shown, and the lines below them.
#[derive(Debug)]
pub(super) struct Listing {
    table: Table,
    /// The totals over all instances and groups, whether or not they are shown.
    totals: String,
    legend: Option<&'static str>,
}

impl Listing {
    /// Returns the listing of all instances and all faults of groups; with `quiet`, only of those
    /// that do not agree.
    pub(super) fn new(rows: &[Row], groups: &[GroupRow], skipped: usize, quiet: bool) -> Self {
        let mut table = Table::new(1, COLUMNS);
        let is_shown = |row: &&Row| !quiet || row.state() == State::Fault;
        for row in rows.iter().filter(is_shown) {
            row.add_to(&mut table);
        }
        groups.iter().for_each(|group| group.add_to(&mut table));
        let has_unknown = rows.iter().any(is_unknown);
        let legend = (has_unknown && !quiet).then_some(LEGEND);
        Self::of(table, totals(rows, groups, skipped), legend)
    }

    /// Returns a listing of these parts.
    pub(super) fn of(table: Table, totals: String, legend: Option<&'static str>) -> Self {
        Self {
            table,
            totals,
            legend,
        }
    }

    /// Returns a listing of nothing.
    pub(super) fn empty() -> Self {
        Self::new(&[], &[], 0, true)
    }

    /// Prints the table, its totals and the legend; nothing where no row is shown.
    pub(super) fn print(&self) {
        if self.table.len() > 0 {
            let legend = self.legend.into_iter();
            self.table
                .answer(std::iter::once(&*self.totals).chain(legend));
        }
    }

    /// Returns every line, the totals first, as a screen needs them that shows only the first
    /// lines.
    pub(super) fn lines(&self) -> Vec<String> {
        if self.table.len() == 0 {
            return Vec::new();
        }
        let legend = self.legend.map(str::to_owned);
        std::iter::once(self.totals.clone())
            .chain(self.table.lines(None))
            .chain(legend)
            .collect()
    }
}

/// Tells whether the config of an instance without a fault is not known.
pub(super) fn is_unknown(row: &Row) -> bool {
    let is_unknown = |target: &RowTarget| target.known == KnownBy::No;
    row.state() == State::NoFault && row.targets.iter().any(is_unknown)
}

/// Returns the number of instances by state, of groups with a fault, and of skipped processes.
pub(super) fn totals(rows: &[Row], groups: &[GroupRow], skipped: usize) -> String {
    let mut text = counted(rows.len(), "instance");
    let mut separator = ": ";
    for state in [State::Ok, State::NoFault, State::Fault] {
        let count = rows.iter().filter(|row| row.state() == state).count();
        if count > 0 {
            text += &format!("{separator}{count} {}", state.word());
            separator = ", ";
        }
    }
    let faulty = groups.iter().filter(|group| !group.faults.is_empty());
    match faulty.count() {
        0 => {}
        count => text += &format!("; {}: {count} FAULT", counted(groups.len(), "group")),
    }
    match skipped {
        0 => {}
        1 => text += "; 1 process skipped",
        count => text += &format!("; {count} processes skipped"),
    }
    text
}

#[cfg(test)]
mod tests;
