//! Reads a run back: what it was to do, how far it came, and whom it may have touched.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::Deserialize;

use super::{
    Verb, boot_id,
    info::{self, RunInfo},
    open_runs::{self, open_runs},
    records::RunEnded,
};
use crate::{
    config,
    event::{Outcome, TargetKind},
    fleet::{Group, Order},
};

/// Largest `plan.json` that is read, in bytes: 100,000 instances need about 60 MB.
const MAX_PLAN: u64 = 256 << 20;
/// So many runs may go on with each other before the first of them is forgotten.
const GENERATIONS: usize = 100;

/// Why there is no run to read.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No run was named, and none is open.
    #[error("no run is open in `{}`: every run there came to its end", .0.display())]
    NoneOpen(PathBuf),
    /// No run was named, and one is under way.
    #[error("run `{0}` is under way in `{path}`", path = .1.display())]
    Running(String, PathBuf),
    /// No run has that name.
    #[error("no run `{0}` is kept in `{path}`", path = .1.display())]
    Unknown(String, PathBuf),
    /// Several runs begin like that.
    #[error("{1} runs begin with `{0}`: say more of it")]
    Ambiguous(String, usize),
    /// The state directory cannot be read, or others can write it: what it says does not count
    /// then.
    #[error("the state directory `{path}` cannot be used: {1}", path = .0.display())]
    State(PathBuf, io::Error),
    /// What is kept of it cannot be read, or was written by another version.
    #[error("what is kept of run `{0}` cannot be read: {1}")]
    Unreadable(String, String),
}

/// A run as it was left.
#[derive(Debug, Clone)]
pub struct InterruptedRun {
    /// Its id.
    pub id: String,
    /// What it did.
    pub verb: Verb,
    /// Whether what it was bringing is the old config of the first of the runs that went on with
    /// each other.
    pub back: bool,
    /// Whether it is of this boot; pids and start times mean nothing else.
    pub same_boot: bool,
    /// The groups, with every default filled in.
    pub groups: Vec<Group>,
    /// What groups that are not in the run come after.
    pub order: Order,
    /// Every target.
    pub targets: Vec<RunTarget>,
    /// Every instance at its survey.
    pub instances: Vec<RunInstance>,
    /// What those whose facts ask for a change answered on the old config of the first of the runs
    /// that went on with each other.
    pub readings: BTreeMap<(i32, u64), Vec<Option<String>>>,
    /// Who may have been signalled, by this run or by one that it went on with.
    pub touched: BTreeMap<(i32, u64), SignalRecord>,
    /// When each of those was to be signalled last.
    pub signalled: BTreeMap<(i32, u64), Timestamp>,
    /// How it ended; a mixed run has an end and is open all the same.
    pub past: RunInfo,
}

/// A target of a run.
#[derive(Debug, Clone, Deserialize)]
pub struct RunTarget {
    /// Where it is.
    #[serde(with = "crate::exact")]
    pub path: PathBuf,
    /// What it is.
    pub form: TargetKind,
    /// Digest before; none where nobody had the bytes.
    pub from: Option<String>,
    /// Digest wanted.
    pub to: String,
}

/// An instance of a run.
#[derive(Debug, Clone, Deserialize)]
pub struct RunInstance {
    /// Its group.
    pub group: String,
    /// Process number.
    pub pid: i32,
    /// Start time in clock ticks since boot.
    pub started: u64,
    /// What it reads.
    #[serde(with = "crate::exact")]
    pub targets: Vec<PathBuf>,
}

/// What may have been done to one process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SignalRecord {
    /// It was to be signalled on the way forth.
    pub forth: bool,
    /// It was to be signalled on the way back.
    pub back: bool,
    /// What became of it after that was written down last; none when nothing was: perhaps it was
    /// signalled.
    pub state: Option<Outcome>,
}

impl SignalRecord {
    /// Tells whether nothing that it was signalled for is under way.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state.is_some_and(Outcome::is_settled)
    }
}

/// `plan.json`.
#[derive(Debug, Deserialize)]
struct Plan {
    verb: Verb,
    of: Option<String>,
    boot_id: String,
    groups: Vec<Group>,
    #[serde(default)]
    order: Order,
    targets: Vec<RunTarget>,
    instances: Vec<RunInstance>,
    #[serde(default)]
    readings: Vec<(i32, u64, Vec<Option<String>>)>,
}

/// One line of `events.jsonl`.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    Intent {
        undo: bool,
        pids: Vec<(i32, u64)>,
        at: Timestamp,
    },
    Instance {
        pid: i32,
        started: u64,
        successor_of: Option<i32>,
        state: Outcome,
    },
    #[serde(other)]
    Other,
}

impl InterruptedRun {
    /// The run whose id begins with `name`; without one, the newest that is open.
    ///
    /// # Errors
    /// See [`LeftError`].
    pub fn find(state: &Path, name: Option<&str>) -> Result<Self, RunError> {
        let unusable = |e| RunError::State(state.into(), e);
        let id = match name {
            // Nobody has ever begun one.
            _ if !state.exists() => {
                return Err(name.map_or_else(
                    || RunError::NoneOpen(state.into()),
                    |name| RunError::Unknown(name.into(), state.into()),
                ));
            }
            _ if let Err(e) = super::trusted(state) => return Err(unusable(e)),
            None => match open_runs(state).pop() {
                Some(open) => open.id,
                None => {
                    let running = open_runs::marked_runs(state)
                        .into_iter()
                        .rev()
                        .find(|past| past.running);
                    return Err(running.map_or_else(
                        || RunError::NoneOpen(state.into()),
                        |past| RunError::Running(past.id, state.into()),
                    ));
                }
            },
            Some(name) => match info::find(state, name).map_err(unusable)?.as_slice() {
                [] => return Err(RunError::Unknown(name.into(), state.into())),
                [one] => one.clone(),
                all => return Err(RunError::Ambiguous(name.into(), all.len())),
            },
        };
        Self::load(state, &id).map_err(|why| RunError::Unreadable(id, why))
    }

    /// A later run that changes one of its targets and was left open too: what that one touched is
    /// not known here.
    #[must_use]
    pub fn overtaken_by(&self, state: &Path) -> Option<String> {
        let shares = |other: &RunInfo| {
            open_runs::targets(state, &other.id)
                .iter()
                .any(|path| self.targets.iter().any(|t| t.path == *path))
        };
        open_runs(state)
            .into_iter()
            .rev()
            .find(|other| other.id > self.id && shares(other))
            .map(|other| other.id)
    }

    /// The run that took its place.
    #[must_use]
    pub fn superseded_by(&self) -> Option<&str> {
        match &self.past.end {
            Some(RunEnded::SupersededBy { run, .. }) => Some(run),
            _ => None,
        }
    }

    fn load(state: &Path, id: &str) -> Result<Self, String> {
        let (mut left, mut of) = Self::read(state, id)?;
        // The runs that it went on with, the last one first.
        let mut earlier: Vec<Self> = Vec::new();
        while let Some(id) = of.take_if(|of| earlier.len() < GENERATIONS && *of != left.id) {
            let Ok((run, next)) = Self::read(state, &id) else {
                of = Some(id);
                break;
            };
            earlier.push(run);
            of = next;
        }
        // Of one that is not to be read nobody knows whom it touched.
        let whole = |run: &Self| {
            run.instances
                .iter()
                .map(|i| {
                    (
                        (i.pid, i.started),
                        SignalRecord {
                            forth: true,
                            back: true,
                            state: None,
                        },
                    )
                })
                .collect()
        };
        let (mut back, mut asked, mut touched) = (
            false,
            BTreeMap::new(),
            if of.is_some() {
                whole(earlier.last().unwrap_or(&left))
            } else {
                BTreeMap::new()
            },
        );
        for run in earlier.iter_mut().rev().chain([&mut left]) {
            if run.verb == Verb::Revert {
                back = !back;
                touched
                    .values_mut()
                    .for_each(|touch| std::mem::swap(&mut touch.forth, &mut touch.back));
            }
            run.back = back;
            // Pids of another boot mean nothing.
            (run.touched, run.signalled) = if run.same_boot {
                (std::mem::take(&mut touched), std::mem::take(&mut asked))
            } else {
                Default::default()
            };
            // Its owner may have died before it wrote the first line.
            if run.past.began.is_some() {
                let lines = info::events(state, &run.id).map_err(|e| e.to_string())?;
                lines
                    .filter_map(|line| serde_json::from_value(line).ok())
                    .for_each(|line| run.take(line));
            }
            (touched, asked) = if run.same_boot {
                (run.touched.clone(), run.signalled.clone())
            } else {
                Default::default()
            };
        }
        Ok(left)
    }

    /// A run without its events, and the one that it went on with.
    fn read(state: &Path, id: &str) -> Result<(Self, Option<String>), String> {
        let bytes = config::read(&state.join("runs").join(id).join("plan.json"), MAX_PLAN)
            .map_err(|e| e.to_string())?;
        let Plan {
            verb,
            of,
            boot_id: boot,
            groups,
            order,
            targets,
            instances,
            readings,
        } = serde_json::from_slice(&bytes).map_err(|e| format!("plan.json: {e}"))?;
        let (back, touched, asked) = (false, BTreeMap::new(), BTreeMap::new());
        let (same_boot, past) = (boot == boot_id(), RunInfo::of(state, id));
        let readings = readings
            .into_iter()
            .map(|(pid, started, read)| ((pid, started), read))
            .collect();
        Ok((
            Self {
                id: id.into(),
                verb,
                back,
                same_boot,
                groups,
                order,
                targets,
                instances,
                readings,
                touched,
                signalled: asked,
                past,
            },
            of,
        ))
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Intent { undo, pids, at } => {
                for id in pids {
                    self.signalled.insert(id, at);
                    let touch = self.touched.entry(id).or_default();
                    (touch.state, touch.forth, touch.back) =
                        (None, touch.forth | !undo, touch.back | undo);
                }
            }
            Line::Instance {
                pid,
                started,
                state,
                successor_of,
            } => {
                let id = (pid, started);
                // Who took somebody's place was perhaps signalled since.
                let of = successor_of.and_then(|old| {
                    self.touched
                        .iter()
                        .find(|((pid, _), _)| *pid == old)
                        .map(|(_, touch)| *touch)
                });
                if let Some(of) = of {
                    self.touched.insert(id, of);
                }
                // Who only came meanwhile got no signal.
                if let Some(touch) = self.touched.get_mut(&id) {
                    touch.state = Some(state);
                }
            }
            Line::Other => {}
        }
    }
}

/// The newest run after `id` that made the target at `path` what it is now.
#[must_use]
pub fn later(state: &Path, id: &str, path: &Path, sha256: &str) -> Option<String> {
    /// What is looked for in a `plan.json`.
    #[derive(Deserialize)]
    struct Targets {
        targets: Vec<RunTarget>,
    }
    let ids = info::run_ids(state)
        .unwrap_or_default()
        .into_iter()
        .filter(|other| other.as_str() > id);
    let wrote = |id: &String| {
        let bytes = config::read(&state.join("runs").join(id).join("plan.json"), MAX_PLAN)
            .unwrap_or_default();
        let plan = serde_json::from_slice::<Targets>(&bytes);
        plan.is_ok_and(|plan| {
            plan.targets
                .iter()
                .any(|t| t.path == path && (t.to == sha256 || t.from.as_deref() == Some(sha256)))
        })
    };
    ids.rev().find(wrote)
}

#[cfg(test)]
mod tests;
