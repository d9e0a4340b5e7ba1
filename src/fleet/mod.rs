//! `fleet.toml`: the groups of the fleet, and how the instances of each are found, validated,
//! signalled and proven.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use schemars::{Schema, SchemaGenerator};

use crate::{
    assertion::{password_in, without_passwords},
    config::{self, ReadError},
    diagnostic::{ConfigError, suggest},
    screen,
    trust::{Distrust, ResolvedPath},
};

mod argv;
mod bus;
mod count;
mod group;
mod hosts;
mod key_target;
mod kinds;
mod matching;
mod order;
mod path_base;
mod raw;
mod reading;
mod rollout;
mod shapes;
mod source;
mod spanned;
mod trigger;
mod validation;

#[cfg(test)]
pub(crate) use self::argv::NAMES as PLACEHOLDERS;
pub(crate) use self::hosts::{DEFAULT_CONFIRM_MAX, DEFAULT_LEASE};
pub use self::{
    argv::{option_of, placeholder, title_of, title_parts, uses, value_of, variable_of},
    bus::{Bus, FleetName, FleetNameError},
    count::{Count, CountError, DurationError, parse_count, parse_duration, parse_timer},
    group::{
        ExecutesItself, Group, Listed, NoSignal, OnBadConfig, Reloads, Signal, Speaks, Unproven,
        Validation,
    },
    hosts::{Agent, Connect, ConnectError, Hosts, TemplateError, Via},
    key_target::url_of,
    kinds::{KINDS, Kind},
    matching::{ListenAt, ListenAtError, Match, fits, in_unit, lacking, unit_name},
    order::{Graph, Order, outside_order},
    path_base::PathBase,
    reading::{Reading, Repeated, TitleError},
    rollout::{OnFailure, Rollout, Share, ShareError, WaveEnd, WavesError, check_waves},
    source::{
        Address, AddressError, CREDENTIALS, CommandRevision, ContentSource, Key, Origin,
        StoreAccess, StoreCommands,
    },
    trigger::Trigger,
};

/// The largest `fleet.toml`, in bytes. 1 MiB has room for thousands of groups.
const MAX_FLEET: u64 = 1 << 20;

/// Why a fleet cannot be used: exit 2.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// No `fleet.toml` in the default places.
    #[error(
        "no fleet.toml: looked for ./fleet.toml and /etc/hello/fleet.toml; name one with --fleet, \
         or name a kind as the group (`hello kinds` lists them)"
    )]
    Nowhere,
    /// No `fleet.toml` in the default places, and the command needs its hosts.
    #[error(
        "no fleet.toml: looked for ./fleet.toml and /etc/hello/fleet.toml; name one that has \
         [hosts] with --fleet"
    )]
    NoHostFile,
    /// The file cannot be read.
    #[error("cannot read `{path}`: {why}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        why: String,
    },
    /// Another user than root and the caller can write the file, so it is not trusted.
    #[error("`{}` does not count: {}; {}", .0.display(), .1, mend(.1))]
    Untrusted(PathBuf, Distrust),
    /// The file is not valid.
    #[error("{0}")]
    Fault(String),
    /// A URL on the command line that names no key.
    #[error("--store: {0}")]
    Key(String),
    /// A URL on the command line that names no NATS server.
    #[error("--nats: {0}")]
    Nats(AddressError),
    /// The file names hosts, and the command works on this machine alone. To go on would leave the
    /// hosts as they are without a word.
    #[error(
        "`{0}` names hosts, and this command works on this machine alone; run it on each host, or \
         name a fleet file without [hosts]"
    )]
    OtherHosts(PathBuf),
    /// A name on the command line that no group has.
    #[error("no group `{0}`; {1}")]
    NoGroup(String, String),
    /// There are several groups and none was named.
    #[error("{0} groups: name one or more ({1}), or use --all")]
    Unnamed(usize, String),
}

/// Returns the next step if a fleet file is not trusted.
fn mend(why: &Distrust) -> String {
    match why.fix_command() {
        Some(mend) => format!("run `{mend}`, or name another file with --fleet"),
        None => "name the file itself with --fleet".into(),
    }
}

/// A fleet with every default filled in.
#[derive(Debug, Clone, Default)]
pub struct Fleet {
    /// The file that it was read from; none for a kind named on the command line.
    pub path: Option<PathBuf>,
    /// The groups in file order.
    pub groups: Vec<Group>,
    /// The groups that each group of the file comes after, also of groups that are not in a run.
    pub order: Order,
    /// The rollout of groups that only hosts know.
    pub rollout: Rollout,
    /// The machines of the fleet; none if it is this machine alone.
    pub hosts: Option<Hosts>,
    /// The name and labels that this host gives itself towards a coordinator.
    pub agent: Option<Agent>,
}

/// Returns the schema of the file.
#[must_use]
pub(crate) fn schema(generator: SchemaGenerator) -> Schema {
    raw::schema(generator)
}

impl Fleet {
    /// Reads `path`.
    ///
    /// # Errors
    /// Fails if it cannot be read, another user can write it, or it is not valid; the text names
    /// file, line and column.
    pub fn load(path: &Path) -> Result<Self, FleetError> {
        Self::parse(&read(path)?, path)
    }

    /// Reads the file of a host, and the NATS server of `url` with the access that a `[[store]]` of
    /// the file gives.
    ///
    /// # Errors
    /// Fails as [`Self::load`] does, and if the URL names no NATS server.
    #[cfg(feature = "nats")]
    pub(crate) fn load_with_bus(path: &Path, url: &str) -> Result<(Self, Bus), FleetError> {
        let origin = Origin::of_nats(url).map_err(FleetError::Nats)?;
        let bytes = read(path)?;
        let fleet = Self::parse(&bytes, path)?;
        let access = raw::access_of(url, &bytes);
        let access = access.map_err(|fault| shown_fault(&fault, &bytes, path))?;
        let agent = fleet.agent.as_ref();
        let bus = Bus {
            origin,
            access,
            fleet: agent
                .and_then(|agent| agent.fleet.clone())
                .unwrap_or_default(),
        };
        Ok((fleet, bus))
    }

    /// Reads one group as the text of it stands in `fleet.toml`.
    ///
    /// # Errors
    /// Fails if it is not valid.
    pub(crate) fn of_group(text: &str) -> Result<Self, FleetError> {
        let fleet = format!("version = 1\n{text}");
        let fleet = Self::parse(fleet.as_bytes(), Path::new("fleet.toml"))?;
        Ok(Self {
            path: None,
            ..fleet
        })
    }

    fn parse(bytes: &[u8], path: &Path) -> Result<Self, FleetError> {
        let text = String::from_utf8_lossy(bytes);
        let error = |fault: ConfigError| shown_fault(&fault, bytes, path);
        let raw::Contents {
            groups,
            rollout,
            hosts,
            agent,
        } = raw::read(bytes).map_err(error)?;
        if let Some(span) = password_in(&text) {
            let hint =
                "an assertion takes it from `auth_file = PATH`, a command from a file of its own"
                    .to_owned();
            return Err(error(ConfigError::new(
                bytes,
                "a URL with a password in it, which would be printed and stored",
                Some(hint),
                Some(span),
            )));
        }
        let order = groups
            .iter()
            .filter(|g| !g.after.is_empty())
            .map(|g| (g.name.clone(), g.after.clone()))
            .collect();
        Ok(Self {
            path: Some(path.into()),
            groups,
            order,
            rollout,
            hosts,
            agent,
        })
    }

    /// Returns the fleet of every process of a kind.
    ///
    /// # Errors
    /// Fails if there is no such kind.
    pub fn of_kind(kind: &str) -> Result<Self, FleetError> {
        Ok(Self {
            groups: vec![raw::of_kind(kind).map_err(|e| FleetError::Fault(e.to_string()))?],
            ..Self::default()
        })
    }

    /// Returns the arguments of a command that select these groups, quoted for a shell.
    #[must_use]
    pub(crate) fn arguments(&self) -> String {
        match &self.path {
            Some(path) => format!("--fleet {}", screen::quote(path)),
            None => {
                let groups = self.groups.iter().map(|g| screen::quote(&g.name));
                groups.collect::<Vec<_>>().join(" ")
            }
        }
    }

    /// Returns the fleet if it is this machine.
    ///
    /// # Errors
    /// Fails if the file names hosts.
    pub fn of_this_machine(self) -> Result<Self, FleetError> {
        match (&self.hosts, &self.path) {
            (Some(_), path) => Err(FleetError::OtherHosts(path.clone().unwrap_or_default())),
            (None, _) => Ok(self),
        }
    }

    /// Keeps the named groups. Without a name and without `all`, the fleet must have one group.
    ///
    /// # Errors
    /// Fails if a name is unknown, or if there are several groups and none was named.
    pub fn select(mut self, names: &[String], all: bool) -> Result<Self, FleetError> {
        let known = self
            .groups
            .iter()
            .map(|g| g.name.as_str())
            .collect::<Vec<_>>()
            .join(", ");
        let groups: BTreeSet<&str> = self.groups.iter().map(|g| g.name.as_str()).collect();
        if let Some(name) = names.iter().find(|name| !groups.contains(name.as_str())) {
            let hint = suggest(name, groups.iter().copied()).unwrap_or_default();
            return Err(FleetError::NoGroup(name.clone(), hint));
        }
        if names.is_empty() && !all && self.groups.len() > 1 {
            return Err(FleetError::Unnamed(self.groups.len(), known));
        }
        let names: BTreeSet<&String> = names.iter().collect();
        self.groups
            .retain(|g| names.is_empty() || names.contains(&g.name));
        Ok(self)
    }
}

/// Reads a fleet file that no other user can write.
fn read(path: &Path) -> Result<Vec<u8>, FleetError> {
    let unreadable = |why: String| FleetError::Unreadable {
        path: path.into(),
        why,
    };
    let resolved = ResolvedPath::of(path).map_err(|e| unreadable(e.to_string()))?;
    resolved
        .is_trusted()
        .map_err(|why| FleetError::Untrusted(path.into(), why))?;
    let file = resolved.open().map_err(|e| unreadable(e.to_string()))?;
    config::read_fd(file, MAX_FLEET).map_err(|e| match e {
        ReadError::Io(e) => unreadable(e.to_string()),
        ReadError::Unacceptable(why) => unreadable(why.to_string()),
    })
}

/// Returns a fault with its line, but no password in it.
fn shown_fault(fault: &ConfigError, bytes: &[u8], path: &Path) -> FleetError {
    let text = String::from_utf8_lossy(bytes);
    let shown = without_passwords(&text);
    let text = format!(
        "in `{}`: {fault}\n{}",
        path.display(),
        fault.render(path, shown.as_bytes())
    );
    FleetError::Fault(without_passwords(&text).into_owned())
}

/// Returns the key of `url`, with the access that the `[[store]]` of the fleet file `file` give it.
///
/// # Errors
/// Fails if the URL names no key of a store, or if the file cannot be used.
pub fn store_key(url: &str, file: Option<&Path>) -> Result<Key, FleetError> {
    let no_stores = "version = 1\n";
    match file {
        None => raw::key_of(url, no_stores.as_bytes()).map_err(|e| FleetError::Key(e.to_string())),
        Some(path) => {
            let bytes = read(path)?;
            raw::key_of(url, &bytes).map_err(|fault| shown_fault(&fault, &bytes, path))
        }
    }
}

#[cfg(test)]
mod tests;
