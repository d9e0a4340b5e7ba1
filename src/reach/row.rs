//! One host in the answer of `hello hosts`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::{
    event::Verdict,
    hosts::{ConnectFailure, Fault, QueryError},
    inventory::HostEntry,
    protocol::Greeting,
};

/// The state of a host before a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "HostState")]
pub(super) enum State {
    /// Its agent greeted, and its groups can be reloaded.
    Ready,
    /// Its agent did not greet.
    Unreachable,
    /// It speaks another dialect: another version of hello.
    Skewed,
    /// It was reached, and cannot be used.
    Refused,
}

impl State {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Unreachable => "UNREACHABLE",
            Self::Skewed => "SKEWED",
            Self::Refused => "REFUSED",
        }
    }
}

/// One host.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "Host")]
pub(super) struct HostRow {
    /// Its name.
    pub(super) name: String,
    /// Its address.
    pub(super) address: String,
    /// The labels of the inventory.
    pub(super) labels: BTreeMap<String, String>,
    /// Whether it can be used.
    pub(super) state: State,
    /// Why it cannot be used.
    pub(super) why: Option<String>,
    /// What repairs it, as far as that is known.
    pub(super) repair: Option<String>,
    /// The version of hello there.
    pub(super) version: Option<String>,
    /// The user that the agent runs as.
    pub(super) uid: Option<u32>,
    /// The fleet file there.
    pub(super) fleet: Option<String>,
    /// The groups that may be reloaded there.
    pub(super) groups: Vec<GroupRow>,
    /// The open runs there.
    pub(super) open: Vec<OpenRow>,
}

/// A group that may be reloaded on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "HostGroup")]
pub(super) struct GroupRow {
    /// Its name.
    pub(super) name: String,
    /// Its kind.
    pub(super) kind: Option<String>,
    /// The number of instances that the host demands.
    pub(super) count: String,
    /// True if a validator judges its configs.
    pub(super) validator: bool,
}

/// An open run of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "HostOpenRun")]
pub(super) struct OpenRow {
    /// Its id.
    pub(super) run: String,
    /// How it ended: a verdict, or `open` or `unknown`.
    pub(super) verdict: String,
    /// True while a session carries it out, or waits for its coordinator.
    pub(super) running: bool,
    /// The seconds until its commit-confirmed timer rolls it back there; none without such a timer.
    pub(super) armed_s: Option<u64>,
}

impl OpenRow {
    /// Returns the run in a cell of a table. Hosts share a row, so it has no time.
    pub(super) fn text(&self) -> String {
        let words = [(self.running, "running"), (self.armed_s.is_some(), "armed")];
        let words = words.into_iter().filter(|(is_so, _)| *is_so);
        let words: Vec<&str> = words.map(|(_, word)| word).collect();
        if words.is_empty() {
            return self.run.clone();
        }
        format!("{} ({})", self.run, words.join(", "))
    }
}

impl HostRow {
    fn new(host: &HostEntry, state: State) -> Self {
        Self {
            name: host.name.to_string(),
            address: host.address.clone(),
            labels: host.labels.clone(),
            state,
            why: None,
            repair: None,
            version: None,
            uid: None,
            fleet: None,
            groups: Vec::new(),
            open: Vec::new(),
        }
    }

    /// Returns the row of a host whose agent greeted. Without a fleet file that can be used,
    /// nothing may be reloaded there.
    pub(super) fn greeted(host: &HostEntry, greeting: Greeting) -> Self {
        let state = if greeting.fault.is_none() {
            State::Ready
        } else {
            State::Refused
        };
        let repair = format!("correct the fleet file on `{}`", host.name);
        Self {
            repair: greeting.fault.as_ref().map(|_| repair),
            why: greeting.fault,
            version: Some(greeting.version),
            uid: Some(greeting.uid),
            fleet: greeting.fleet,
            groups: greeting
                .groups
                .into_iter()
                .map(|group| GroupRow {
                    name: group.name,
                    kind: group.kind,
                    count: group.count,
                    validator: group.validator,
                })
                .collect(),
            open: greeting
                .open
                .into_iter()
                .map(|open| OpenRow {
                    run: open.run,
                    verdict: open.verdict,
                    running: open.running,
                    armed_s: open.armed_s,
                })
                .collect(),
            ..Self::new(host, state)
        }
    }

    /// Returns the row of a host that cannot be used.
    pub(super) fn failed(host: &HostEntry, why: &QueryError) -> Self {
        let (state, repair) = match why {
            QueryError::Connect(failure) => (state_of(failure), failure.repair(host)),
            QueryError::Unanswered(..) if why.verdict() == Verdict::Refused => {
                (State::Refused, None)
            }
            QueryError::Unanswered(..) => (State::Unreachable, None),
        };
        Self {
            why: Some(why.text()),
            repair,
            ..Self::new(host, state)
        }
    }

    /// Returns the groups in one cell of a table.
    pub(super) fn groups_text(&self) -> String {
        let groups: Vec<String> = self
            .groups
            .iter()
            .map(|group| format!("{} {}", group.name, group.count))
            .collect();
        groups.join(", ")
    }
}

fn state_of(failure: &ConnectFailure) -> State {
    match failure.fault {
        Fault::Skewed { .. } => State::Skewed,
        Fault::OtherHost(_) => State::Refused,
        _ => State::Unreachable,
    }
}
