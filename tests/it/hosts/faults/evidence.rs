//! What processes, files and sockets say of a host. `hello` is never asked.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::fcntl::{Flock, FlockArg};
use serde_json::Value;

use crate::{
    hosts::bed::{AT_START, Bed, names, open_marks},
    world::{ask, message_of, started_at},
};

/// The longest wait for one answer of a server.
const ANSWER: Duration = Duration::from_secs(20);

/// One server of a host.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Server {
    pub(super) pid: i32,
    pub(super) started: Option<u64>,
    /// What it serves; none without an answer.
    pub(super) message: Option<String>,
    /// The signals that it has acted on; none without an answer.
    pub(super) signals: Option<u64>,
}

/// The journal of one run.
#[derive(Debug, Clone)]
pub(super) struct Journal {
    pub(super) run: String,
    pub(super) events: Vec<Value>,
}

/// Everything that is seen of one host from outside.
#[derive(Debug, Clone)]
pub(super) struct Evidence {
    pub(super) name: String,
    pub(super) servers: Vec<Server>,
    /// The message in the file that they share.
    pub(super) disk: Option<String>,
    pub(super) journals: Vec<Journal>,
    /// The marks of open runs.
    pub(super) open: Vec<String>,
    /// What a session holds: agents and locks.
    pub(super) held: Vec<String>,
    /// Its sockets, and the files that it has staged.
    pub(super) files: Vec<PathBuf>,
}

impl Journal {
    /// Reads the journals of a state directory, the oldest first.
    pub(super) fn all(state: &Path) -> Vec<Self> {
        let runs = state.join("runs");
        let read = |run: String| {
            let text = std::fs::read_to_string(runs.join(&run).join("events.jsonl"));
            let text = text.unwrap_or_default();
            // The last line of a killed process may be a part of one.
            let events = text
                .lines()
                .filter_map(|line| serde_json::from_str(line).ok());
            Self {
                events: events.collect(),
                run,
            }
        };
        names(&runs).into_iter().map(read).collect()
    }

    /// Iterates over the events of this name.
    pub(super) fn named(&self, name: &str) -> impl Iterator<Item = &Value> {
        self.events.iter().filter(move |e| e["event"] == name)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.named(name).next().is_some()
    }

    /// Returns true if the run has begun to touch the host, and has armed a timer with that.
    pub(super) fn is_armed(&self) -> bool {
        self.named("intent").any(|e| !e["armed_s"].is_null())
    }

    /// Returns the processes that each intent names, in the order of the events.
    pub(super) fn intents(&self) -> Vec<(i64, u64)> {
        self.named("intent").flat_map(processes).collect()
    }
}

/// Returns the processes of an intent.
pub(super) fn processes(intent: &Value) -> Vec<(i64, u64)> {
    let pairs = intent["pids"].as_array().cloned().unwrap_or_default();
    let pair = |pair: &Value| Some((pair[0].as_i64()?, pair[1].as_u64()?));
    pairs.iter().filter_map(pair).collect()
}

impl Evidence {
    /// Looks at a host.
    pub(super) fn of(bed: &Bed, host: usize) -> Self {
        let fleet = &bed.hosts[host];
        let state = bed.state(host);
        let server = |n: usize| Server {
            pid: fleet.pid(n),
            started: started_at(fleet.pid(n)),
            message: ask(fleet.url(n), "/", ANSWER).map(|answer| answer.body.trim_end().into()),
            signals: signals(fleet.url(n)),
        };
        Self {
            name: format!("h{host}"),
            servers: (0..fleet.len()).map(server).collect(),
            disk: std::fs::read(fleet.path("web.toml"))
                .ok()
                .and_then(|bytes| message_of(&bytes)),
            journals: Journal::all(&state),
            open: open_marks(&state),
            held: held(bed, host),
            files: sockets(&state).chain(staged(fleet.dir.path())).collect(),
        }
    }

    /// Looks at every host.
    pub(super) fn all(bed: &Bed) -> Vec<Self> {
        (0..bed.hosts.len())
            .map(|host| Self::of(bed, host))
            .collect()
    }

    /// Returns how often the intents of all journals name each process.
    pub(super) fn intended(&self) -> BTreeMap<(i64, u64), u64> {
        let mut counts = BTreeMap::new();
        for process in self.journals.iter().flat_map(Journal::intents) {
            *counts.entry(process).or_default() += 1;
        }
        counts
    }

    /// Returns true if all servers and the file have this message.
    pub(super) fn is_on(&self, message: &str) -> bool {
        let has = |seen: &Option<String>| seen.as_deref() == Some(message);
        has(&self.disk) && self.servers.iter().all(|server| has(&server.message))
    }
}

fn signals(url: &str) -> Option<u64> {
    let answer = ask(url, "/-/config", ANSWER)?;
    let report: Value = serde_json::from_str(&answer.body).ok()?;
    Some(report["last_attempt"]["seq"].as_u64()? - AT_START)
}

/// Returns what a session of a run holds on a host.
fn held(bed: &Bed, host: usize) -> Vec<String> {
    let agents = bed.agents(host).into_iter();
    let mut held: Vec<String> = agents
        .map(|(pid, line)| format!("agent {pid}: {line}"))
        .collect();
    let dir = bed.hosts[host].dir.path();
    let folder = File::open(dir).unwrap();
    if Flock::lock(folder, FlockArg::LockExclusiveNonblock).is_err() {
        held.push(format!("lock of {}", dir.display()));
    }
    held
}

/// Returns the sockets of the sessions on a host.
fn sockets(state: &Path) -> impl Iterator<Item = PathBuf> {
    let folder = state.join("agents");
    let names = names(&folder).into_iter();
    names.map(move |name| folder.join(name))
}

/// Returns the files that a run has staged beside its targets.
fn staged(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let is_staged = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.starts_with('.') && name.contains(".hello-")
    };
    paths.filter(is_staged).collect()
}
