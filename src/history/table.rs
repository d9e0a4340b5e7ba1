//! The list of runs as people read it.

use serde_json::Value;

use super::options::Options;
use crate::{
    report::{action, local_time, operator_name, result, unreached},
    runs::{OldRun, RunElsewhere, RunInfo, ShortIds},
    screen::{Table, counted},
};

/// A run in the list.
#[derive(Debug)]
pub(super) struct ListedRun {
    pub(super) info: RunInfo,
    /// The commands that finish it, typed on the host of its journal.
    pub(super) next: Vec<String>,
    /// Those that are typed on this machine. One row of a run over hosts has them.
    pub(super) commands: Vec<String>,
    /// A reminder of the hosts that the run went without; only in the row of its index.
    pub(super) unreached: Option<String>,
    /// The last events of its journal on that host; none where they were not asked for.
    pub(super) events: Option<HostEvents>,
}

/// Events of the journal of one host.
#[derive(Debug, Default)]
pub(super) struct HostEvents {
    /// The last ones, in their order.
    pub(super) last: Vec<Value>,
    /// How many more the host has.
    pub(super) more: u64,
}

impl ListedRun {
    /// Returns a run whose journal this machine has.
    pub(super) fn of_this_machine(info: RunInfo, options: &Options) -> Self {
        let next = info.next(&options.state_args);
        Self {
            unreached: unreached(&options.state, &info, &ShortIds::of(&options.state)),
            info,
            commands: next.clone(),
            next,
            events: None,
        }
    }
}

/// Prints the runs of several hosts, and then the totals.
pub(super) fn print_over_hosts(runs: &[ListedRun], ids: &ShortIds, totals: String) {
    let mut list = RunTable::new(true);
    for ListedRun {
        info,
        commands,
        unreached,
        ..
    } in runs
    {
        list.add_with(info, ids, commands);
        unreached.iter().for_each(|text| list.table.below(text));
    }
    list.table.answer([totals]);
}

/// Prints the newest runs. `all` is the number of runs that are kept.
pub(super) fn print(
    runs: impl Iterator<Item = RunInfo>,
    all: usize,
    ids: &ShortIds,
    options: &Options,
) {
    let runs: Vec<RunInfo> = runs.collect();
    let over_hosts = runs.iter().any(|run| !run.host.is_local());
    let mut list = RunTable::new(over_hosts);
    for run in runs {
        list.add(&run, ids, &options.state_args);
        let unreached = unreached(&options.state, &run, ids);
        unreached.iter().for_each(|text| list.table.below(text));
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
        self.add_with(run, ids, &run.next(state_args));
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
    }

    /// Adds a run with the commands that finish it.
    fn add_with(&mut self, run: &RunInfo, ids: &ShortIds, commands: &[String]) {
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
            let hosts = run.hosts().map(|hosts| counted(hosts, "host"));
            let host = hosts.as_deref().unwrap_or(run.host.as_str());
            self.table.row([id, host, at, action, &result, operator]);
        } else {
            self.table.row([id, at, action, &result, operator]);
        }
        if let Some(reason) = began.and_then(|began| began.reason.as_ref()) {
            self.table.below(&format!("reason: {reason}"));
        }
        for command in commands {
            self.table.command(command);
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
