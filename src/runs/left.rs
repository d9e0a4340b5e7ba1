//! Reads a run back: what it was to do, how far it came, and whom it may have touched.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{Verb, boot_id};
use crate::{
    config,
    event::{Form, State, Verdict},
    fleet::Group,
};

/// Largest `plan.json` that is read, in bytes: 100,000 instances need about 60 MB.
const MAX_PLAN: u64 = 256 << 20;
/// So much of `events.jsonl` is read, in bytes.
const MAX_EVENTS: u64 = 1 << 30;
/// So many runs may go on with each other before the first of them is forgotten.
const GENERATIONS: usize = 1000;

/// Why there is no run to read.
#[derive(Debug, thiserror::Error)]
pub enum LeftError {
    /// No run was named, and none is open.
    #[error("no run is open in `{}`: every run there came to its end", .0.display())]
    NoneOpen(PathBuf),
    /// No run has that name.
    #[error("no run `{0}` is kept in `{path}`", path = .1.display())]
    Unknown(String, PathBuf),
    /// Several runs begin like that.
    #[error("{1} runs begin with `{0}`: say more of it")]
    Ambiguous(String, usize),
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
    /// Every target.
    pub targets: Vec<LeftTarget>,
    /// Every instance at its survey.
    pub instances: Vec<LeftInstance>,
    /// Who may have been signalled, by this run or by one that it went on with.
    pub touched: BTreeMap<(i32, u64), Touch>,
    /// How it ended; a mixed run has an end and is open all the same.
    pub end: Option<Verdict>,
    /// The run that took its place.
    pub superseded_by: Option<String>,
    /// Whether its owner died, or somebody must look.
    pub open: bool,
}

/// A target of a run.
#[derive(Debug, Clone, Deserialize)]
pub struct LeftTarget {
    /// Where it is.
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

/// `plan.json`.
#[derive(Debug, Deserialize)]
struct Plan {
    verb: Verb,
    of: Option<String>,
    boot_id: String,
    groups: Vec<Group>,
    targets: Vec<LeftTarget>,
    instances: Vec<LeftInstance>,
}

/// One line of `events.jsonl`.
#[derive(Debug, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum Line {
    Intent {
        undo: bool,
        pids: Vec<(i32, u64)>,
    },
    Instance {
        pid: i32,
        started: u64,
        successor_of: Option<i32>,
        state: State,
    },
    Finished {
        verdict: Verdict,
    },
    SupersededBy {
        run: String,
    },
    #[serde(other)]
    Other,
}

impl Line {
    /// What was cut off when its writer died may have another line behind it.
    fn parse(line: &[u8]) -> Option<Self> {
        let parsed = serde_json::from_slice(line).ok();
        parsed.or_else(|| {
            let text = String::from_utf8_lossy(line);
            serde_json::from_str(&text[text.rfind("{\"event\":")?..]).ok()
        })
    }
}

impl Left {
    /// The run whose id begins with `name`; without one, the newest that is open.
    ///
    /// # Errors
    /// See [`LeftError`].
    pub fn find(state: &Path, name: Option<&str>) -> Result<Self, LeftError> {
        let folder = state.join(if name.is_some() { "runs" } else { "open" });
        let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let ids = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let mut ids: Vec<String> = ids.filter(|id| name.is_none_or(|name| !name.is_empty() && id.starts_with(name))).collect();
        ids.sort();
        let id = match (name, ids.pop(), ids.len()) {
            (None, None, _) => return Err(LeftError::NoneOpen(state.into())),
            (Some(name), None, _) => return Err(LeftError::Unknown(name.into(), state.into())),
            (Some(name), Some(id), others) if others > 0 && id != name => return Err(LeftError::Ambiguous(name.into(), others + 1)),
            (_, Some(id), _) => id,
        };
        Self::load(state, &id, GENERATIONS).map_err(|why| LeftError::Unreadable(id, why))
    }

    /// `generations` of the runs that it went on with are read as well.
    fn load(state: &Path, id: &str, generations: usize) -> Result<Self, String> {
        let dir = state.join("runs").join(id);
        let bytes = config::read(&dir.join("plan.json"), MAX_PLAN).map_err(|e| e.to_string())?;
        let Plan { verb, of, boot_id: boot, groups, targets, instances } = serde_json::from_slice(&bytes).map_err(|e| format!("plan.json: {e}"))?;
        let mut left = Self {
            id: id.into(),
            verb,
            back: verb == Verb::Revert,
            same_boot: boot == boot_id(),
            groups,
            targets,
            instances,
            touched: BTreeMap::new(),
            end: None,
            superseded_by: None,
            open: state.join("open").join(id).exists(),
        };
        match of.map(|of| Self::load(state, &of, generations.saturating_sub(1)).ok().filter(|_| generations > 0)) {
            Some(Some(earlier)) => {
                left.back ^= earlier.back;
                let turn = |touch: Touch| if verb == Verb::Revert { Touch { forth: touch.back, back: touch.forth, ..touch } } else { touch };
                left.touched = earlier.touched.into_iter().map(|(id, touch)| (id, turn(touch))).collect();
            }
            // Nobody knows any more whom that one touched.
            Some(None) => left.touched = left.instances.iter().map(|i| ((i.pid, i.started), Touch { forth: true, back: true, state: None })).collect(),
            None => {}
        }
        match File::open(dir.join("events.jsonl")) {
            Ok(events) => left.read(BufReader::new(events.take(MAX_EVENTS)))?,
            // Its owner died before it wrote the first line.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e.to_string()),
        }
        Ok(left)
    }

    fn read(&mut self, mut events: impl BufRead) -> Result<(), String> {
        let mut line = Vec::new();
        loop {
            line.clear();
            if events.read_until(b'\n', &mut line).map_err(|e| e.to_string())? == 0 {
                return Ok(());
            }
            match Line::parse(&line) {
                Some(Line::Intent { undo, pids }) => {
                    for id in pids {
                        let touch = self.touched.entry(id).or_default();
                        (touch.state, touch.forth, touch.back) = (None, touch.forth | !undo, touch.back | undo);
                    }
                }
                Some(Line::Instance { pid, started, state, successor_of }) => {
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
                Some(Line::Finished { verdict }) => self.end = Some(verdict),
                Some(Line::SupersededBy { run }) => self.superseded_by = Some(run),
                Some(Line::Other) | None => {}
            }
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
    let entries = std::fs::read_dir(state.join("runs")).into_iter().flatten().flatten();
    let mut ids: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|other| other.as_str() > id).collect();
    ids.sort();
    let wrote = |id: &String| {
        let bytes = config::read(&state.join("runs").join(id).join("plan.json"), MAX_PLAN).unwrap_or_default();
        let plan = serde_json::from_slice::<Targets>(&bytes);
        plan.is_ok_and(|plan| plan.targets.iter().any(|t| t.path == path && (t.to == sha256 || t.from.as_deref() == Some(sha256))))
    };
    ids.into_iter().rev().find(wrote)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    const PLAN: &str = r#"{"verb":"VERB","of":OF,"boot_id":"BOOT","groups":[],"targets":[{"path":"/a","form":"file","from":"1","to":"2"}],
        "instances":[{"group":"g","pid":1,"started":5,"targets":["/a"]},{"group":"g","pid":2,"started":5,"targets":["/a"]}]}"#;

    fn run(state: &Path, id: &str, verb: &str, of: Option<&str>, events: &str) {
        let dir = state.join("runs").join(id);
        std::fs::create_dir_all(&dir).unwrap();
        let of = of.map_or("null".into(), |of| format!("\"{of}\""));
        std::fs::write(dir.join("plan.json"), PLAN.replace("VERB", verb).replace("OF", &of).replace("BOOT", &boot_id())).unwrap();
        std::fs::write(dir.join("events.jsonl"), events).unwrap();
    }

    fn event(name: &str, rest: &str) -> String {
        format!("{{\"event\":\"{name}\"{rest},\"v\":1,\"at\":\"x\"}}\n")
    }

    #[test]
    fn who_is_in_an_intent_is_perhaps_touched_until_something_is_known_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let intent = |undo: bool| event("intent", &format!(",\"undo\":{undo},\"wave\":1,\"targets\":[],\"pids\":[[1,5],[2,5]]"));
        let instance =
            |pid: i32, state: &str, of: &str| event("instance", &format!(",\"pid\":{pid},\"started\":5,\"state\":\"{state}\",\"successor_of\":{of}"));
        let touched = |events: &str| {
            run(dir.path(), "1", "broadcast", None, events);
            Left::find(dir.path(), Some("1")).unwrap().touched
        };
        let touch = |forth, back, state| Touch { forth, back, state };
        assert!(touched("").is_empty());
        let began = event("began", "") + &intent(false) + &instance(1, "confirmed", "null");
        let forth = touched(&began);
        assert_eq!((forth[&(1, 5)], forth[&(2, 5)]), (touch(true, false, Some(State::Confirmed)), touch(true, false, None)));
        let torn = began.clone() + "{\"event\":\"instance\",\"pid\":2,\"sta";
        assert_eq!(touched(&torn), forth, "a torn last line says nothing");
        let closed = torn + &event("superseded_by", ",\"run\":\"7\"");
        run(dir.path(), "1", "broadcast", None, &closed);
        assert_eq!(Left::find(dir.path(), Some("1")).unwrap().superseded_by.as_deref(), Some("7"), "written behind a torn line");
        let back = touched(&(began + &intent(true) + &instance(3, "reverted", "1") + &instance(4, "confirmed", "null")));
        assert_eq!((back[&(1, 5)], back[&(3, 5)]), (touch(true, true, None), touch(true, true, Some(State::Reverted))));
        assert!(!back.contains_key(&(4, 5)), "who came meanwhile got no signal");
    }

    #[test]
    fn what_an_earlier_run_touched_is_known_to_those_that_go_on_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let intent = event("intent", ",\"undo\":false,\"wave\":1,\"targets\":[],\"pids\":[[1,5]]");
        run(dir.path(), "1a", "broadcast", None, &intent);
        run(dir.path(), "1b", "revert", Some("1a"), "");
        run(dir.path(), "2", "resume", Some("1b"), "");
        let find = |name: &str| Left::find(dir.path(), Some(name));
        let (forth, back) = (Touch { forth: true, ..Touch::default() }, Touch { back: true, ..Touch::default() });
        assert_eq!((find("1a").unwrap().touched[&(1, 5)], find("1b").unwrap().touched[&(1, 5)], find("2").unwrap().touched[&(1, 5)]), (forth, back, back));
        assert_eq!(["1a", "1b", "2"].map(|name| find(name).unwrap().back), [false, true, true]);
        assert!(
            matches!(find("1"), Err(LeftError::Ambiguous(_, 2)))
                && matches!(find("3"), Err(LeftError::Unknown(..)))
                && matches!(find(""), Err(LeftError::Unknown(..)))
        );
        assert!(matches!(Left::find(dir.path(), None), Err(LeftError::NoneOpen(_))));
        // Itself, for ever.
        run(dir.path(), "4", "resume", Some("4"), "");
        assert!(find("4").unwrap().touched.values().all(|touch| touch.state.is_none()));
        std::fs::remove_dir_all(dir.path().join("runs/1a")).unwrap();
        assert_eq!(find("1b").unwrap().touched.len(), 2, "nobody knows whom it touched, so it may be everybody");
    }
}
