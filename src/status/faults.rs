//! The findings of `hello status` beyond single instances: faults of groups, open runs, and runs
//! that are under way.

use std::{collections::BTreeSet, path::PathBuf};

use super::{
    answer::{Answer, OpenRun, Rows, Running, Skipped, skipped_lines},
    group_row::GroupRow,
    listing::Listing,
    options::Options,
    row::Row,
    snapshot::Snapshot,
};
use crate::{
    event::Verdict,
    inventory::HostName,
    report::Output,
    runs::{self, OldRun, RunElsewhere, RunInfo},
    screen,
};

/// Everything that is reported besides the rows.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) groups: Vec<GroupRow>,
    pub(super) running: Vec<Running>,
    pub(super) open: Vec<RunInfo>,
    /// The commands about each open run.
    next: Vec<Vec<String>>,
    /// Why the files of open runs, or the list of these runs, cannot be read.
    unreadable: Vec<String>,
}

impl Findings {
    /// Adds the runs of `--state` that concern these groups and targets, and the holders of locks.
    pub(super) fn add_runs(&mut self, options: &Options, rows: &[Row], locks: Vec<String>) {
        let groups: BTreeSet<&str> = options
            .fleet
            .groups
            .iter()
            .map(|group| group.name.as_str())
            .collect();
        let targets: BTreeSet<&PathBuf> = rows
            .iter()
            .flat_map(|row| &row.targets)
            .map(|target| &target.path)
            .collect();
        let state = options.state.as_deref();
        let concerns = |run: &RunInfo| {
            let run_targets = state
                .map(|state| runs::open_targets(state, &run.id))
                .unwrap_or_default();
            let has_group = run.began.as_ref().is_none_or(|began| {
                began
                    .groups
                    .iter()
                    .any(|group| groups.contains(group.as_str()))
            });
            has_group || run_targets.iter().any(|path| targets.contains(path))
        };
        let marked = state.map(runs::marked_runs).unwrap_or_default();
        let (running, open): (Vec<RunInfo>, Vec<RunInfo>) = marked
            .into_iter()
            .filter(|run| run.open || run.running)
            .filter(concerns)
            .partition(|run| run.running);
        if let Some(state) = state {
            let args = &options.state_args;
            self.next = open
                .iter()
                .map(|run| runs::next(state, run, args))
                .collect();
            let unreadable = open
                .iter()
                .filter_map(|run| runs::unreadable(state, &run.id));
            self.unreadable = runs::unlisted(state)
                .into_iter()
                .chain(unreadable)
                .collect();
        }
        self.open = open;
        let mut locks = locks.into_iter();
        self.running = running
            .into_iter()
            .map(|run| {
                let began = run.began.as_ref().map(|began| {
                    format!("uid {}: {}", began.operator.uid, began.command.join(" "))
                });
                Running {
                    host: HostName::local(),
                    owner: locks.next().or(began).unwrap_or_else(|| "unknown".into()),
                    run: Some(run.id),
                }
            })
            .collect();
        self.running.extend(locks.map(|owner| Running {
            host: HostName::local(),
            run: None,
            owner,
        }));
    }

    /// Returns the verdict: a run is under way, nothing was found, all agree, or a fault.
    pub(super) fn verdict(&self, rows: &[Row]) -> Verdict {
        let ended = self.groups.iter().any(|group| !group.ended.is_empty());
        match rows {
            _ if !self.running.is_empty() => Verdict::Busy,
            _ if !self.unreadable.is_empty() => Verdict::Mixed,
            [] if !ended && self.open.is_empty() => Verdict::NoMatch,
            rows if self.open.is_empty()
                && self.groups.iter().all(|g| g.faults.is_empty())
                && rows.iter().all(|r| r.faults.is_empty()) =>
            {
                Verdict::Converged
            }
            _ => Verdict::Mixed,
        }
    }

    /// Returns everything that is shown.
    pub(super) fn snapshot(
        self,
        options: &Options,
        rows: Vec<Row>,
        skipped: &[(i32, String)],
    ) -> Snapshot {
        let verdict = self.verdict(&rows);
        let reason = self.reason(verdict, &rows);
        let skipped_lines = skipped_lines(skipped).filter(|_| !options.quiet);
        let is_failure = verdict == Verdict::NoMatch && options.output == Output::Screen;
        Snapshot {
            notes: skipped_lines.chain(self.run_lines(options)).collect(),
            listing: Listing::new(&rows, &self.groups, skipped.len(), options.quiet),
            failure: is_failure.then(|| reason.clone()),
            json: self.json(options, (verdict, &reason), rows, skipped),
            exit: verdict.exit(),
        }
    }

    /// Returns the lines about open runs and runs under way.
    fn run_lines(&self, options: &Options) -> Vec<String> {
        let mut lines = Vec::new();
        let (old, open): (Vec<_>, Vec<_>) = self.open.iter().partition(|run| run.is_old);
        if let Some(newest) = open.last() {
            let ids: Vec<&str> = open.iter().map(|run| run.id.as_str()).collect();
            lines.push(screen::worded("Open run", &ids.join(", ")));
            let what = if newest.installs_old() {
                "to finish the newest, and so to restore the old config:"
            } else {
                "to finish the newest, or to restore the old config:"
            };
            match newest.elsewhere() {
                Some(RunElsewhere { note, commands }) => {
                    lines.push(screen::hint(&note, &commands));
                }
                None => lines.push(screen::hint(what, &self.newest_next())),
            }
        }
        for why in &self.unreadable {
            lines.push(screen::worded("Not read", &screen::line(why)));
        }
        for run in old {
            if let Some(OldRun { note, command }) = run.old_version(&options.state_args) {
                lines.push(screen::worded("Open run", &format!("{}: {note}", run.id)));
                lines.push(screen::hint("its old bytes are named by:", &[command]));
            }
        }
        for Running { run, owner, .. } in &self.running {
            let run = run
                .as_ref()
                .map_or_else(String::new, |run| format!("run {run}: "));
            lines.push(screen::worded("Under way", &format!("{run}{owner}")));
        }
        lines
    }

    /// Returns the answer as JSON.
    fn json(
        self,
        options: &Options,
        (verdict, reason): (Verdict, &str),
        instances: Vec<Row>,
        skipped: &[(i32, String)],
    ) -> serde_json::Value {
        let next = self.next(options);
        let open = self.open.iter().zip(self.next);
        let open = open.map(|(run, next)| OpenRun {
            host: HostName::local(),
            run: run.id.clone(),
            verdict: run.verdict().to_owned(),
            next: if run.is_old { Vec::new() } else { next },
            part_of: run.part_of().cloned(),
        });
        let skipped = skipped.iter().map(|(pid, why)| Skipped {
            host: HostName::local(),
            pid: *pid,
            why: why.clone(),
        });
        let rows = Rows {
            instances,
            skipped: skipped.collect(),
            open: open.collect(),
            groups: self.groups,
            running: self.running,
            hosts: Vec::new(),
        };
        Answer::json(verdict, reason, &next, &rows)
    }

    /// Returns why the verdict is no success, in one line.
    fn reason(&self, verdict: Verdict, rows: &[Row]) -> String {
        let groups = self.groups.iter().flat_map(|g| {
            g.faults
                .iter()
                .map(move |fault| format!("group `{}` {fault}", g.group))
        });
        match verdict {
            Verdict::Converged => String::new(),
            Verdict::Busy => format!(
                "a run is under way: {}",
                self.running
                    .iter()
                    .map(|run| run.owner.as_str())
                    .collect::<Vec<_>>()
                    .join("; ")
            ),
            Verdict::NoMatch => {
                let groups: Vec<String> = groups.collect();
                if groups.is_empty() {
                    "nothing was found".into()
                } else {
                    format!("nothing was found: {}", groups.join("; "))
                }
            }
            _ => {
                let open = self
                    .open
                    .iter()
                    .map(|run| format!("run {} was left open", run.id));
                let rows = rows
                    .iter()
                    .filter_map(|row| Some(format!("pid {}: {}", row.pid, row.faults.first()?)));
                let unreadable = self.unreadable.iter().cloned();
                unreadable
                    .chain(open)
                    .chain(groups)
                    .chain(rows)
                    .next()
                    .unwrap_or_default()
            }
        }
    }

    /// Returns the commands about the newest open run of this version.
    fn newest_next(&self) -> Vec<String> {
        let runs = self.open.iter().zip(&self.next);
        let newest = runs.rev().find(|(run, _)| !run.is_old);
        newest.map_or_else(Vec::new, |(_, next)| next.clone())
    }

    /// Returns the next commands about open runs; the one that only reads comes first.
    fn next(&self, options: &Options) -> Vec<String> {
        let Some(newest) = self.open.last() else {
            return Vec::new();
        };
        let look = format!("hello history {}{}", newest.id, options.state_args);
        let own = self.next.last().filter(|_| !newest.is_old);
        let rest = own
            .into_iter()
            .flatten()
            .filter(|next| **next != look)
            .cloned();
        std::iter::once(look.clone()).chain(rest).collect()
    }
}
