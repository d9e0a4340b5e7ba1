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
    lines::End,
    marks::{self, left_open},
    past::{self, Past},
};
use crate::{
    config,
    event::{Form, State},
    fleet::{Group, Order},
};

/// Largest `plan.json` that is read, in bytes: 100,000 instances need about 60 MB.
const MAX_PLAN: u64 = 256 << 20;
/// So many runs may go on with each other before the first of them is forgotten.
const GENERATIONS: usize = 100;

/// Why there is no run to read.
#[derive(Debug, thiserror::Error)]
pub enum LeftError {
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
    /// The state directory cannot be read, or others can write it: what it says does not count then.
    #[error("the state directory `{path}` cannot be used: {1}", path = .0.display())]
    State(PathBuf, io::Error),
    /// What is kept of it cannot be read, or was written by another version.
    #[error("what is kept of run `{0}` cannot be read: {1}")]
    Unreadable(String, String),
}

/// A run as it was left.
#[derive(Debug, Clone)]
pub struct Left {
    /// Its id.
    pub id: String,
    /// What it did.
    pub verb: Verb,
    /// Whether what it was bringing is the old config of the first of the runs that went on with each other.
    pub back: bool,
    /// Whether it is of this boot; pids and start times mean nothing else.
    pub same_boot: bool,
    /// The groups, with every default filled in.
    pub groups: Vec<Group>,
    /// What groups that are not in the run come after.
    pub order: Order,
    /// Every target.
    pub targets: Vec<LeftTarget>,
    /// Every instance at its survey.
    pub instances: Vec<LeftInstance>,
    /// What those whose facts ask for a change answered on the old config of the first of the runs that went on with each other.
    pub readings: BTreeMap<(i32, u64), Vec<Option<String>>>,
    /// Who may have been signalled, by this run or by one that it went on with.
    pub touched: BTreeMap<(i32, u64), Touch>,
    /// When each of those was to be signalled last.
    pub asked: BTreeMap<(i32, u64), Timestamp>,
    /// How it ended; a mixed run has an end and is open all the same.
    pub past: Past,
}

/// A target of a run.
#[derive(Debug, Clone, Deserialize)]
pub struct LeftTarget {
    /// Where it is.
    #[serde(with = "crate::exact")]
    pub path: PathBuf,
    /// What it is.
    pub form: Form,
    /// Digest before; none where nobody had the bytes.
    pub from: Option<String>,
    /// Digest wanted.
    pub to: String,
}

/// An instance of a run.
#[derive(Debug, Clone, Deserialize)]
pub struct LeftInstance {
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
pub struct Touch {
    /// It was to be signalled on the way forth.
    pub forth: bool,
    /// It was to be signalled on the way back.
    pub back: bool,
    /// What became of it after that was written down last; none when nothing was: perhaps it was signalled.
    pub state: Option<State>,
}

impl Touch {
    /// Tells whether nothing that it was signalled for is under way.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state.is_some_and(State::leaves_nothing_open)
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
    targets: Vec<LeftTarget>,
    instances: Vec<LeftInstance>,
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
        state: State,
    },
    #[serde(other)]
    Other,
}

impl Left {
    /// The run whose id begins with `name`; without one, the newest that is open.
    ///
    /// # Errors
    /// See [`LeftError`].
    pub fn find(state: &Path, name: Option<&str>) -> Result<Self, LeftError> {
        let unusable = |e| LeftError::State(state.into(), e);
        let id = match name {
            // Nobody has ever begun one.
            _ if !state.exists() => return Err(name.map_or_else(|| LeftError::NoneOpen(state.into()), |name| LeftError::Unknown(name.into(), state.into()))),
            _ if let Err(e) = super::trusted(state) => return Err(unusable(e)),
            None => match left_open(state).pop() {
                Some(open) => open.id,
                None => {
                    let running = marks::marked(state).into_iter().rev().find(|past| past.running);
                    return Err(running.map_or_else(|| LeftError::NoneOpen(state.into()), |past| LeftError::Running(past.id, state.into())));
                }
            },
            Some(name) => match past::find(state, name).map_err(unusable)?.as_slice() {
                [] => return Err(LeftError::Unknown(name.into(), state.into())),
                [one] => one.clone(),
                all => return Err(LeftError::Ambiguous(name.into(), all.len())),
            },
        };
        Self::load(state, &id).map_err(|why| LeftError::Unreadable(id, why))
    }

    /// A later run that changes one of its targets and was left open too: what that one touched is not known here.
    #[must_use]
    pub fn overtaken_by(&self, state: &Path) -> Option<String> {
        let shares = |other: &Past| marks::targets(state, &other.id).iter().any(|path| self.targets.iter().any(|t| t.path == *path));
        left_open(state).into_iter().rev().find(|other| other.id > self.id && shares(other)).map(|other| other.id)
    }

    /// The run that took its place.
    #[must_use]
    pub fn superseded_by(&self) -> Option<&str> {
        match &self.past.end {
            Some(End::SupersededBy { run, .. }) => Some(run),
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
        let whole = |run: &Self| run.instances.iter().map(|i| ((i.pid, i.started), Touch { forth: true, back: true, state: None })).collect();
        let (mut back, mut asked, mut touched) = (false, BTreeMap::new(), if of.is_some() { whole(earlier.last().unwrap_or(&left)) } else { BTreeMap::new() });
        for run in earlier.iter_mut().rev().chain([&mut left]) {
            if run.verb == Verb::Revert {
                back = !back;
                touched.values_mut().for_each(|touch| std::mem::swap(&mut touch.forth, &mut touch.back));
            }
            run.back = back;
            // Pids of another boot mean nothing.
            (run.touched, run.asked) = if run.same_boot { (std::mem::take(&mut touched), std::mem::take(&mut asked)) } else { Default::default() };
            // Its owner may have died before it wrote the first line.
            if run.past.began.is_some() {
                let lines = past::events(state, &run.id).map_err(|e| e.to_string())?;
                lines.filter_map(|line| serde_json::from_value(line).ok()).for_each(|line| run.take(line));
            }
            (touched, asked) = if run.same_boot { (run.touched.clone(), run.asked.clone()) } else { Default::default() };
        }
        Ok(left)
    }

    /// A run without its events, and the one that it went on with.
    fn read(state: &Path, id: &str) -> Result<(Self, Option<String>), String> {
        let bytes = config::read(&state.join("runs").join(id).join("plan.json"), MAX_PLAN).map_err(|e| e.to_string())?;
        let Plan { verb, of, boot_id: boot, groups, order, targets, instances, readings } =
            serde_json::from_slice(&bytes).map_err(|e| format!("plan.json: {e}"))?;
        let (back, touched, asked) = (false, BTreeMap::new(), BTreeMap::new());
        let (same_boot, past) = (boot == boot_id(), Past::of(state, id));
        let readings = readings.into_iter().map(|(pid, started, read)| ((pid, started), read)).collect();
        Ok((Self { id: id.into(), verb, back, same_boot, groups, order, targets, instances, readings, touched, asked, past }, of))
    }

    fn take(&mut self, line: Line) {
        match line {
            Line::Intent { undo, pids, at } => {
                for id in pids {
                    self.asked.insert(id, at);
                    let touch = self.touched.entry(id).or_default();
                    (touch.state, touch.forth, touch.back) = (None, touch.forth | !undo, touch.back | undo);
                }
            }
            Line::Instance { pid, started, state, successor_of } => {
                let id = (pid, started);
                // Who took somebody's place was perhaps signalled since.
                let of = successor_of.and_then(|old| self.touched.iter().find(|((pid, _), _)| *pid == old).map(|(_, touch)| *touch));
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
        targets: Vec<LeftTarget>,
    }
    let ids = past::ids(state).unwrap_or_default().into_iter().filter(|other| other.as_str() > id);
    let wrote = |id: &String| {
        let bytes = config::read(&state.join("runs").join(id).join("plan.json"), MAX_PLAN).unwrap_or_default();
        let plan = serde_json::from_slice::<Targets>(&bytes);
        plan.is_ok_and(|plan| plan.targets.iter().any(|t| t.path == path && (t.to == sha256 || t.from.as_deref() == Some(sha256))))
    };
    ids.rev().find(wrote)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    const PLAN: &str = r#"{"verb":"VERB","of":OF,"boot_id":"BOOT","groups":[],"targets":[{"path":"/a","form":"file","from":"1","to":"2"}],
        "instances":[{"group":"g","pid":1,"started":5,"targets":["/a"]},{"group":"g","pid":2,"started":5,"targets":["/a"]}]}"#;
    const BEGAN: &str = r#"{"event":"began","verb":"broadcast","of":null,"who":{"uid":0,"login_uid":null,"sudo_user":null,"ci_job":null},"boot_id":"x",
        "command":[],"reason":null,"groups":[],"instances":2,"targets":1,"waves":1}"#;

    fn run(state: &Path, verb: &str, of: Option<&str>, events: &str) -> String {
        let id = super::super::new_id();
        again(state, &id, verb, of, events);
        id
    }

    fn again(state: &Path, id: &str, verb: &str, of: Option<&str>, events: &str) {
        let dir = state.join("runs").join(id);
        std::fs::create_dir_all(&dir).unwrap();
        let of = of.map_or("null".into(), |of| format!("\"{of}\""));
        std::fs::write(dir.join("plan.json"), PLAN.replace("VERB", verb).replace("OF", &of).replace("BOOT", &boot_id())).unwrap();
        std::fs::write(dir.join("events.jsonl"), BEGAN.replace('\n', " ") + "\n" + events).unwrap();
    }

    fn event(name: &str, rest: &str) -> String {
        format!("{{\"event\":\"{name}\"{rest},\"v\":1,\"at\":\"2026-01-01T00:00:00Z\"}}\n")
    }

    #[test]
    fn who_is_in_an_intent_is_perhaps_touched_until_something_is_known_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let intent = |undo: bool| event("intent", &format!(",\"undo\":{undo},\"wave\":1,\"targets\":[],\"pids\":[[1,5],[2,5]]"));
        let instance =
            |pid: i32, state: &str, of: &str| event("instance", &format!(",\"pid\":{pid},\"started\":5,\"state\":\"{state}\",\"successor_of\":{of}"));
        let touched = |events: &str| Left::find(dir.path(), Some(&run(dir.path(), "broadcast", None, events))).unwrap().touched;
        let touch = |forth, back, state| Touch { forth, back, state };
        assert!(touched("").is_empty());
        let began = intent(false) + &instance(1, "confirmed", "null");
        let forth = touched(&began);
        assert_eq!((forth[&(1, 5)], forth[&(2, 5)]), (touch(true, false, Some(State::Confirmed)), touch(true, false, None)));
        let torn = began.clone() + "{\"event\":\"instance\",\"pid\":2,\"sta";
        assert_eq!(touched(&torn), forth, "a torn last line says nothing");
        let id = run(dir.path(), "broadcast", None, &(torn + "\n" + &event("superseded_by", ",\"run\":\"7\"")));
        let left = Left::find(dir.path(), Some(&id)).unwrap();
        assert_eq!((left.superseded_by(), &left.touched), (Some("7"), &forth));
        let back = touched(&(began + &intent(true) + &instance(3, "reverted", "1") + &instance(4, "confirmed", "null")));
        assert_eq!((back[&(1, 5)], back[&(3, 5)]), (touch(true, true, None), touch(true, true, Some(State::Reverted))));
        assert!(!back.contains_key(&(4, 5)), "who came meanwhile got no signal");
    }

    #[test]
    fn what_an_earlier_run_touched_is_known_to_those_that_go_on_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let find = |name: &str| Left::find(dir.path(), Some(name));
        let first = run(dir.path(), "broadcast", None, &event("intent", ",\"undo\":false,\"wave\":1,\"targets\":[],\"pids\":[[1,5]]"));
        let second = run(dir.path(), "revert", Some(&first), "");
        let third = run(dir.path(), "resume", Some(&second), "");
        let (forth, back) = (Touch { forth: true, ..Touch::default() }, Touch { back: true, ..Touch::default() });
        assert_eq!([&first, &second, &third].map(|id| find(id).unwrap().touched[&(1, 5)]), [forth, back, back]);
        assert_eq!([&first, &second, &third].map(|id| find(id).unwrap().back), [false, true, true]);
        assert!(matches!(find(""), Err(LeftError::Ambiguous(_, 3))) && matches!(find("x"), Err(LeftError::Unknown(..))));
        assert!(matches!(Left::find(dir.path(), None), Err(LeftError::NoneOpen(_))));
        // Itself, for ever.
        again(dir.path(), &third, "resume", Some(&third), "");
        assert!(find(&third).unwrap().touched.values().all(|touch| touch.state.is_none()));
        std::fs::remove_dir_all(dir.path().join("runs").join(first)).unwrap();
        assert_eq!(find(&second).unwrap().touched.len(), 2, "nobody knows whom it touched, so it may be everybody");
    }
}
