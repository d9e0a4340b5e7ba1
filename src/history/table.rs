//! The list of runs as people read it.

use crate::{
    report::{action, local_time, operator_name, result},
    runs::{OldRun, RunElsewhere, RunInfo, ShortIds},
    screen::{Table, counted},
};

/// Prints the newest runs. `all` is the number of runs that are kept, and `state_args` is
/// ` --state DIR`, or empty.
pub(super) fn print(
    runs: impl Iterator<Item = RunInfo>,
    all: usize,
    ids: &ShortIds,
    state_args: &str,
) {
    let runs: Vec<RunInfo> = runs.collect();
    let over_hosts = runs.iter().any(|run| !run.host.is_local());
    let mut list = RunTable::new(over_hosts);
    for run in runs {
        list.add(&run, ids, state_args);
    }
    if list.table.len() > 0 {
        list.table.answer([list.totals(all)]);
    }
}

/// The runs, one row each, with what to do about those that are open.
struct RunTable {
    table: Table,
    /// True if a run is of another host: the host of each is a column then.
    over_hosts: bool,
    open: usize,
}

impl RunTable {
    fn new(over_hosts: bool) -> Self {
        let table = if over_hosts {
            Table::new(1, ["RUN", "HOST", "BEGAN", "ACTION", "RESULT", "BY"])
        } else {
            Table::new(1, ["RUN", "BEGAN", "ACTION", "RESULT", "BY"])
        };
        Self {
            table,
            over_hosts,
            open: 0,
        }
    }

    fn add(&mut self, run: &RunInfo, ids: &ShortIds, state_args: &str) {
        let began = run.began.as_ref();
        let at = run.at.map(|at| local_time(at, "%Y-%m-%d %H:%M:%S"));
        let action = began.map(|began| action(began, ids));
        let operator = began.map(operator_name);
        let id = ids.of_run(&run.id);
        let at = at.as_deref().unwrap_or("-");
        let action = action.as_deref().unwrap_or("?");
        let result = result(run, ids);
        let operator = operator.as_deref().unwrap_or("?");
        if self.over_hosts {
            let host = run.host.as_str();
            self.table.row([id, host, at, action, &result, operator]);
        } else {
            self.table.row([id, at, action, &result, operator]);
        }
        if let Some(reason) = began.and_then(|began| began.reason.as_ref()) {
            self.table.below(&format!("reason: {reason}"));
        }
        let commands = run.next(state_args);
        for command in &commands {
            self.table.command(command);
        }
        if let Some(RunElsewhere { note, commands }) = run.elsewhere() {
            self.table.below(&note);
            commands
                .iter()
                .for_each(|command| self.table.command(command));
        }
        if let Some(OldRun { note, command }) = run.old_version(state_args) {
            self.table.below(note);
            self.table.command(&command);
        }
        self.open += usize::from(run.open && !run.running);
    }

    /// Returns the number of listed runs, of all that are kept, and of those that are open.
    fn totals(&self, all: usize) -> String {
        let listed = self.table.len();
        let runs = if listed < all {
            format!("{listed} of {}", counted(all, "run"))
        } else {
            counted(all, "run")
        };
        match self.open {
            0 => runs,
            open => format!("{runs}, {open} open"),
        }
    }
}

#[cfg(test)]
mod tests;
