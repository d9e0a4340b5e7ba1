//! The first frame of an agent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::inventory::HostName;

/// The dialect of this version. Before release 1.0 both sides must speak the same.
pub(crate) const VERSION: u32 = 2;

/// The beginning of the line that is the greeting. What comes before that line is noise.
pub(crate) const GREETING_START: &[u8] = b"{\"hello\":";

/// The first frame of an agent: what it is, and which groups may be reloaded on its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Greeting {
    /// `agent`. It is the first key, so that the line can be told from noise.
    pub(crate) hello: String,
    /// The greatest dialect that the agent speaks.
    pub(crate) v: u32,
    /// The lowest one.
    pub(crate) min: u32,
    /// The version of the program.
    pub(crate) version: String,
    /// The machine, as `uname -m` has it.
    pub(crate) arch: String,
    /// The boot of the host.
    pub(crate) boot: String,
    /// The user that the agent runs as.
    pub(crate) uid: u32,
    /// The name that the host's own file gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) host: Option<HostName>,
    /// The labels that the host's own file gives it.
    #[serde(default)]
    pub(crate) labels: BTreeMap<String, String>,
    /// The path of the host's own file; none if it has none, and so no groups.
    #[serde(default)]
    pub(crate) fleet: Option<String>,
    /// Why the host's own file cannot be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fault: Option<String>,
    /// What the agent can do besides the frames of its dialect.
    #[serde(default)]
    pub(crate) can: Vec<String>,
    /// The groups of the host's own file.
    #[serde(default)]
    pub(crate) groups: Vec<GroupGreeting>,
    /// The open runs of the host.
    #[serde(default)]
    pub(crate) open: Vec<OpenRun>,
    /// The limits of the agent.
    pub(crate) limits: Limits,
}

/// A group that may be reloaded on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupGreeting {
    pub(crate) name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<String>,
    /// The number of instances that the host's own file demands.
    pub(crate) count: String,
    /// True if a validator judges its configs.
    pub(crate) validator: bool,
    /// True if one instance goes first alone: it has no kind, or a bad config ends its program.
    #[serde(default)]
    pub(crate) canary: bool,
}

/// An open run of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OpenRun {
    pub(crate) run: String,
    /// How it ended: a verdict, or `open` or `unknown`.
    pub(crate) verdict: String,
    /// The seconds that are left of its commit-confirmed timer, if that is armed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) armed_s: Option<u64>,
    /// True while a session carries it out, or waits for its coordinator.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) running: bool,
}

/// The limits of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Bytes of a line.
    pub(crate) line: usize,
    /// Bytes of a candidate.
    pub(crate) blob: usize,
    /// Seconds that a session waits for its coordinator.
    #[serde(default)]
    pub(crate) lease_s: u64,
    /// The longest time of a commit-confirmed timer, in seconds.
    #[serde(default)]
    pub(crate) confirm_max_s: u64,
}

/// Returns the greatest dialect that this program and an agent both speak.
pub(crate) fn common_version(greeting: &Greeting) -> Option<u32> {
    (greeting.min..=greeting.v)
        .contains(&VERSION)
        .then_some(VERSION)
}
