//! The findings of `hello status` beyond single instances: faults of groups, open runs, and runs
//! that are under way.

use std::{collections::BTreeSet, path::PathBuf};

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    group_row::GroupRow,
    listing::Listing,
    options::Options,
    row::{Row, skipped_lines},
    snapshot::Snapshot,
};
use crate::{
    event::{VERSION, Verdict},
    report::Output,
    runs::{self, OldRun, RunInfo},
    screen,
};

/// A run that holds a lock, or writes its journal, now.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Running {
    /// The id of the run, if the state directory has it.
    run: Option<String>,
    /// The process, user, age and command of the run, as far as they are known.
    owner: String,
}

/// The answer of `hello status`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Status")]
pub(super) struct Answer<'a> {
    /// Version of this shape.
    #[schemars(extend("const" = VERSION))]
    v: u32,
    /// Always false.
    dry_run: bool,
    /// `converged`, `mixed` (a fault), `no_match` or `busy`; `failed` or `usage` of a command that
    /// looked at nothing.
    verdict: Verdict,
    /// The exit code of the verdict.
    exit: u8,
    /// Why the verdict is no success.
    reason: Option<&'a str>,
    /// The commands to type next; those that only read come first.
    next: Vec<String>,
    #[serde(flatten)]
    rows: Rows<'a>,
}

/// The lists of the answer.
#[derive(Debug, Default, Serialize, JsonSchema)]
struct Rows<'a> {
    /// Every instance, and every process that is refused or missing.
    instances: &'a [Row],
    /// Every group.
    groups: &'a [GroupRow],
    /// Processes that match and are no instances.
    skipped: Vec<Skipped<'a>>,
    /// Open runs that concern these groups.
    open: Vec<OpenRun<'a>>,
    /// Runs that are under way.
    running: &'a [Running],
}

/// A process that matches and is no instance.
#[derive(Debug, Serialize, JsonSchema)]
struct Skipped<'a> {
    /// Process number.
    pid: i32,
    /// The reason.
    why: &'a str,
}

/// An open run.
#[derive(Debug, Serialize, JsonSchema)]
struct OpenRun<'a> {
    /// Its id.
    run: &'a str,
    /// How it ended: a verdict, or `open` or `unknown`.
    verdict: &'a str,
    /// The commands that finish it; empty for a run of an earlier version.
    next: Vec<String>,
}

/// Returns the lists of an answer that looked at nothing.
#[must_use]
pub(crate) fn no_rows() -> Map<String, Value> {
    match serde_json::to_value(Rows::default()) {
        Ok(Value::Object(lists)) => lists,
        _ => Map::new(),
    }
}

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
                    owner: locks.next().or(began).unwrap_or_else(|| "unknown".into()),
                    run: Some(run.id),
                }
            })
            .collect();
        self.running
            .extend(locks.map(|owner| Running { run: None, owner }));
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
        &self,
        options: &Options,
        rows: &[Row],
        skipped: &[(i32, String)],
    ) -> Snapshot {
        let verdict = self.verdict(rows);
        let reason = self.reason(verdict, rows);
        let skipped_lines = skipped_lines(skipped).filter(|_| !options.quiet);
        let is_failure = verdict == Verdict::NoMatch && options.output == Output::Screen;
        Snapshot {
            notes: skipped_lines.chain(self.run_lines(options)).collect(),
            listing: Listing::new(rows, &self.groups, skipped.len(), options.quiet),
            failure: is_failure.then(|| reason.clone()),
            json: serde_json::to_value(self.answer(options, verdict, &reason, (rows, skipped)))
                .unwrap_or_default(),
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
            lines.push(screen::hint(what, &self.newest_next()));
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
        for Running { run, owner } in &self.running {
            let run = run
                .as_ref()
                .map_or_else(String::new, |run| format!("run {run}: "));
            lines.push(screen::worded("Under way", &format!("{run}{owner}")));
        }
        lines
    }

    fn answer<'a>(
        &'a self,
        options: &Options,
        verdict: Verdict,
        reason: &'a str,
        (rows, skipped): (&'a [Row], &'a [(i32, String)]),
    ) -> Answer<'a> {
        let open = self.open.iter().zip(&self.next);
        let open = open.map(|(run, next)| OpenRun {
            run: &run.id,
            verdict: run.verdict(),
            next: if run.is_old { Vec::new() } else { next.clone() },
        });
        let skipped = skipped.iter().map(|(pid, why)| Skipped { pid: *pid, why });
        Answer {
            v: VERSION,
            dry_run: false,
            verdict,
            exit: verdict.exit(),
            reason: Some(reason).filter(|reason| !reason.is_empty()),
            next: self.next(options),
            rows: Rows {
                instances: rows,
                groups: &self.groups,
                skipped: skipped.collect(),
                open: open.collect(),
                running: &self.running,
            },
        }
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
