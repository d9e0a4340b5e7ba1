//! `[hosts]`: the machines of a fleet, and the command that connects to each.

use std::{collections::BTreeMap, time::Duration};

use super::{Bus, FleetName, Share};
use crate::inventory::{AddressFault, Expression, HostEntry, HostName, check_address, is_label};

/// The command that connects to a host, unless the file has another: the system's `ssh`, which
/// brings its configuration, keys and checks. Nothing can ask: neither ssh nor sudo.
pub(super) const DEFAULT_CONNECT: [&str; 15] = [
    "ssh",
    "-T",
    "-oBatchMode=yes",
    "-oConnectTimeout=10",
    "-oServerAliveInterval=5",
    "-oServerAliveCountMax=3",
    "-oForwardAgent=no",
    "-oForwardX11=no",
    "--",
    "{address}",
    "sudo",
    "-n",
    "/usr/bin/hello",
    "agent",
    "--stdio",
];

/// The hosts that are worked on at once, unless the file says it. An ssh connection costs about 25
/// ms of this machine's processor and 2 MB of memory.
pub(super) const DEFAULT_PARALLEL: usize = 64;

/// How long a host may send nothing, unless the file says it. An agent sends a sign of life every 2
/// seconds while it works.
pub(super) const DEFAULT_SILENCE: Duration = Duration::from_secs(20);

/// The hosts of a fleet, and how they are reached.
#[derive(Debug, Clone)]
pub struct Hosts {
    /// The hosts of the file, in its order.
    pub list: Vec<HostEntry>,
    /// The command that prints further hosts; empty if there is none.
    pub inventory: Vec<String>,
    /// The command that connects to a host.
    pub connect: Connect,
    /// The NATS server that reaches every host without a command of its own; none where the
    /// command does.
    pub bus: Option<Bus>,
    /// The commands of some hosts; the first that fits a host counts.
    pub via: Vec<Via>,
    /// The hosts that are worked on at once.
    pub parallel: usize,
    /// The longest time in which a host sends nothing.
    pub silence: Duration,
    /// The number of hosts that a run may go without because they are not reached.
    pub max_unreachable: Share,
}

/// How long an agent waits for its coordinator, unless the host's file says it. A link that comes
/// back within a minute ends no run.
pub(crate) const DEFAULT_LEASE: Duration = Duration::from_secs(60);

/// The longest time of a commit-confirmed timer, unless the host's file says it: a day.
pub(crate) const DEFAULT_CONFIRM_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// What a host says of itself in its own file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agent {
    /// Its name.
    pub name: Option<HostName>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// How long the session of a run waits for its coordinator.
    pub lease: Duration,
    /// The longest time of a commit-confirmed timer.
    pub confirm_max: Duration,
    /// The name of its fleet on a NATS server.
    pub fleet: Option<FleetName>,
}

impl Default for Agent {
    fn default() -> Self {
        Self {
            name: None,
            labels: BTreeMap::new(),
            lease: DEFAULT_LEASE,
            confirm_max: DEFAULT_CONFIRM_MAX,
            fleet: None,
        }
    }
}

/// The command that connects to some hosts.
#[derive(Debug, Clone)]
pub struct Via {
    /// The hosts.
    pub on: Expression,
    /// The command.
    pub connect: Connect,
}

/// A command that connects to a host: its words may hold `{address}`, `{name}` and `{LABEL}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect(Vec<String>);

/// Why there is no command that connects to a host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The host has no label that the command names.
    #[error("it has no label `{0}`, which its command to connect names")]
    NoLabel(String),
    /// The value of a label cannot be a word of the command.
    #[error("the value {value:?} of its label `{label}` cannot be used to connect: {why}")]
    Label {
        /// The label.
        label: String,
        /// Its value.
        value: String,
        /// The reason.
        why: AddressFault,
    },
}

/// Why a list of words is no command that connects.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// There is no program in it.
    #[error("the command that connects has no program")]
    Empty,
    /// No word depends on the host.
    #[error("no word of the command names the host: {{address}}, {{name}} or a {{LABEL}}")]
    SameForAll,
}

impl Default for Connect {
    fn default() -> Self {
        Self(DEFAULT_CONNECT.map(str::to_owned).to_vec())
    }
}

impl Connect {
    /// Checks the words of a command.
    ///
    /// # Errors
    /// Fails if there is none, or if none names the host.
    pub fn new(words: Vec<String>) -> Result<Self, TemplateError> {
        let names_host = words
            .iter()
            .flat_map(|word| parts(word))
            .any(|part| matches!(part, Part::Label(_)));
        match words.first() {
            None => Err(TemplateError::Empty),
            Some(program) if program.is_empty() => Err(TemplateError::Empty),
            Some(_) if !names_host => Err(TemplateError::SameForAll),
            Some(_) => Ok(Self(words)),
        }
    }

    /// Returns the words for one host.
    ///
    /// # Errors
    /// Fails if the host has no label that a word names, or if its value could be taken for an
    /// option.
    pub fn argv(&self, host: &HostEntry) -> Result<Vec<String>, ConnectError> {
        self.0.iter().map(|word| filled(word, host)).collect()
    }
}

impl Hosts {
    /// Returns the command that connects to a host; none if the NATS server does.
    ///
    /// # Errors
    /// Fails as [`Connect::argv`] does.
    pub fn connect_argv(&self, host: &HostEntry) -> Result<Option<Vec<String>>, ConnectError> {
        let fits = |via: &&Via| {
            let none = |_: &str, _, _: &HostName| false;
            let selected = via.on.select(std::slice::from_ref(host), none);
            selected.is_ok_and(|hosts| !hosts.is_empty())
        };
        let via = self.via.iter().find(fits);
        let own = Some(&self.connect).filter(|_| self.bus.is_none());
        let connect = via.map(|via| &via.connect).or(own);
        connect.map(|connect| connect.argv(host)).transpose()
    }
}

/// One part of a word.
enum Part<'a> {
    Text(&'a str),
    Label(&'a str),
}

/// Parts a word at its placeholders. A brace around anything but a name is a brace, as in the
/// scripts of a shell.
fn parts(word: &str) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    let mut text = word;
    let mut from = 0;
    while let Some(open) = text[from..].find('{').map(|at| from + at) {
        match text[open + 1..].split_once('}') {
            Some((label, after)) if is_label(label, "") => {
                parts.extend([Part::Text(&text[..open]), Part::Label(label)]);
                text = after;
                from = 0;
            }
            _ => from = open + 1,
        }
    }
    parts.push(Part::Text(text));
    parts
}

fn filled(word: &str, host: &HostEntry) -> Result<String, ConnectError> {
    let mut filled = String::new();
    for part in parts(word) {
        filled.push_str(match part {
            Part::Text(text) => text,
            Part::Label("name") => host.name.as_str(),
            Part::Label("address") => &host.address,
            Part::Label(label) => label_word(&host.labels, label)?,
        });
    }
    Ok(filled)
}

/// Returns the value of a label as a word of a command.
fn label_word<'a>(
    labels: &'a BTreeMap<String, String>,
    label: &str,
) -> Result<&'a str, ConnectError> {
    let value = labels
        .get(label)
        .ok_or_else(|| ConnectError::NoLabel(label.to_owned()))?;
    check_address(value).map_err(|why| ConnectError::Label {
        label: label.to_owned(),
        value: value.clone(),
        why,
    })?;
    Ok(value)
}
