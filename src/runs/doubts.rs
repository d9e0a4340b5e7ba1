//! The processes of which a run that has a mark may have changed the config. Until a later signal
//! is proven, an older proof says nothing of them.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use jiff::Timestamp;

use super::{
    boot_id,
    info::RunInfo,
    interrupted::{InterruptedRun, RunError},
    open_runs,
};
use crate::event::Outcome;

/// The runs that have a mark, and what each may have signalled.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    /// Oldest first.
    pub(super) runs: Vec<RunInfo>,
    /// By pid and start time.
    touched: BTreeMap<(i32, u64), Vec<Touch>>,
    unread: Vec<UnreadRun>,
    /// Why the marks cannot be listed.
    pub(super) unlisted: Option<String>,
}

/// A signal that a run may have sent to one process.
#[derive(Debug, Clone, Copy)]
struct Touch {
    /// The place of the run in the list.
    run: usize,
    /// No signal was sent later.
    signalled: Timestamp,
    /// True if its reload was not seen to end.
    is_pending: bool,
}

/// A run whose files cannot be read. It may have signalled every reader of its targets.
#[derive(Debug)]
pub(super) struct UnreadRun {
    /// The place of the run in the list.
    pub(super) run: usize,
    /// Its targets; empty where these are not known either.
    pub(super) targets: Vec<PathBuf>,
}

/// Why it is not known what a process runs, though an earlier run may have proven something.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Doubt<'a> {
    /// This run may have signalled it, and has not proven what it runs since.
    Signalled(&'a RunInfo),
    /// The files of this run cannot be read, so it may have signalled it.
    Unread(&'a RunInfo),
    /// The record of what runs have signalled is lost.
    Lost,
}

/// Tells whether a run with these targets is about a process that reads `read`. Without targets, it
/// may be about every process.
pub(super) fn concerns(targets: &[PathBuf], read: &[PathBuf]) -> bool {
    targets.is_empty() || targets.iter().any(|target| read.contains(target))
}

impl Doubts {
    /// Reads the marked runs under `state`, except `own`.
    pub(super) fn of(state: &Path, own: Option<&str>) -> Self {
        let mut doubts = Self::default();
        let ids = match open_runs::listed(state) {
            Ok(ids) => ids,
            Err(e) => {
                doubts.unlisted = Some(e.to_string());
                return doubts;
            }
        };
        for id in ids.iter().filter(|id| Some(id.as_str()) != own) {
            doubts.add(state, RunInfo::of(state, id));
        }
        doubts
    }

    fn add(&mut self, state: &Path, info: RunInfo) {
        let run = self.runs.len();
        match InterruptedRun::find(state, Some(&info.id)) {
            Ok(left) if left.same_boot => {
                for (id, record) in &left.touched {
                    if let Some(outcome) = record.outcome
                        && matches!(outcome, Outcome::Untouched | Outcome::Refused)
                    {
                        continue;
                    }
                    let signalled = left.signalled.get(id).copied();
                    self.touched.entry(*id).or_default().push(Touch {
                        run,
                        signalled: signalled.unwrap_or(Timestamp::MAX),
                        is_pending: !record.is_over(),
                    });
                }
            }
            Ok(_) => {}
            Err(RunError::OldVersion { instances, .. }) => {
                for id in instances {
                    self.touched.entry(id).or_default().push(Touch {
                        run,
                        signalled: Timestamp::MAX,
                        is_pending: true,
                    });
                }
            }
            Err(_) => {
                let began = info.began.as_ref();
                if began.is_none_or(|began| began.boot_id == boot_id()) {
                    let targets = open_runs::targets(state, &info.id);
                    self.unread.push(UnreadRun { run, targets });
                }
            }
        }
        self.runs.push(info);
    }

    /// Returns the newest run that may have signalled the process after `over`, the last signal
    /// whose reload was seen to end.
    pub(super) fn run_after(&self, id: (i32, u64), over: Option<Timestamp>) -> Option<&RunInfo> {
        let last = self.after(id, over).last()?;
        self.runs.get(last.run)
    }

    /// Tells whether the reload of such a signal may be under way.
    pub(super) fn is_pending(&self, id: (i32, u64), over: Option<Timestamp>) -> bool {
        self.after(id, over).any(|touch| touch.is_pending)
    }

    fn after(&self, id: (i32, u64), over: Option<Timestamp>) -> impl Iterator<Item = &Touch> {
        let touches = self.touched.get(&id).into_iter().flatten();
        touches.filter(move |touch| over.is_none_or(|over| over < touch.signalled))
    }

    /// Iterates over every process that a run which is not under way may have signalled.
    pub(super) fn left(&self) -> impl Iterator<Item = (i32, u64)> {
        let is_left = |touch: &Touch| self.runs.get(touch.run).is_some_and(|run| !run.running);
        self.touched
            .iter()
            .filter(move |(_, touches)| touches.iter().any(is_left))
            .map(|(id, _)| *id)
    }

    /// Iterates over the runs whose files cannot be read, and that are not under way.
    pub(super) fn unread(&self) -> impl Iterator<Item = &UnreadRun> {
        let is_left = |run: &&UnreadRun| self.runs.get(run.run).is_some_and(|run| !run.running);
        self.unread.iter().filter(is_left)
    }

    /// Returns the newest run whose files cannot be read, and that is about a reader of `read`.
    pub(super) fn unread_about(&self, read: &[PathBuf]) -> Option<&RunInfo> {
        let about = |run: &&UnreadRun| concerns(&run.targets, read);
        self.runs.get(self.unread.iter().rev().find(about)?.run)
    }
}

impl Doubt<'_> {
    /// Returns true if the run that is the reason is under way: its end decides.
    #[must_use]
    pub(crate) fn is_running(&self) -> bool {
        match self {
            Self::Signalled(run) | Self::Unread(run) => run.running,
            Self::Lost => false,
        }
    }

    /// Returns the doubt with the commands that end it. `state_args` is ` --state DIR`, or empty.
    #[must_use]
    pub(crate) fn text(&self, state_args: &str) -> String {
        let next = match self {
            Self::Signalled(run) => match run.old_version(state_args) {
                Some(old) => vec![old.command],
                None => run.next(state_args),
            },
            Self::Unread(run) if !run.running => abandon(&run.id, state_args),
            Self::Unread(_) | Self::Lost => Vec::new(),
        };
        let next: Vec<String> = next.iter().map(|command| format!("`{command}`")).collect();
        match next.as_slice() {
            [] => self.to_string(),
            next => format!("{self}: {}", next.join(" or ")),
        }
    }
}

/// Returns the commands about an open run whose files cannot be read.
fn abandon(id: &str, state_args: &str) -> Vec<String> {
    vec![
        format!("hello history {id}{state_args}"),
        format!("hello forget {id} --abandon{state_args}"),
    ]
}

/// Returns why the files of a run cannot be read; none if they can, or if an earlier version wrote
/// them.
#[must_use]
pub(crate) fn unreadable(state: &Path, id: &str) -> Option<String> {
    match InterruptedRun::find(state, Some(id)) {
        Ok(_) | Err(RunError::OldVersion { .. }) => None,
        Err(why) => Some(why.to_string()),
    }
}

/// Returns the commands that finish an open run, or that give it up where its files cannot be read.
/// `state_args` is ` --state DIR`, or empty.
#[must_use]
pub(crate) fn next(state: &Path, run: &RunInfo, state_args: &str) -> Vec<String> {
    if run.open && !run.running && unreadable(state, &run.id).is_some() {
        return abandon(&run.id, state_args);
    }
    match run.old_version(state_args) {
        Some(old) => vec![old.command],
        None => run.next(state_args),
    }
}

impl std::fmt::Display for Doubt<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Signalled(run) if run.running => {
                write!(
                    f,
                    "run {}, which is under way, may have signalled it",
                    run.id
                )
            }
            Self::Signalled(run) if run.open => {
                write!(
                    f,
                    "run {}, which was left open, may have signalled it",
                    run.id
                )
            }
            Self::Signalled(run) => {
                write!(
                    f,
                    "run {} has signalled it, and what it proved was not recorded",
                    run.id
                )
            }
            Self::Unread(run) => write!(
                f,
                "run {} may have signalled it: its files cannot be read",
                run.id
            ),
            Self::Lost => f.write_str(
                "the record of earlier signals in the state directory cannot be read, or was lost",
            ),
        }
    }
}
