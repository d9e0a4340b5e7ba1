//! `fleet.toml`: which processes make up the fleet, and how each group is found, judged and waited for.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;

use crate::{
    config::{self, ReadError},
    fact::{Fact, RawFact},
};

/// The only kind this version knows; a group's defaults come from its embedded file.
const KINDS: &[(&str, &str)] = &[("hello", include_str!("kinds/hello.toml"))];
const MAX_FLEET: u64 = 1 << 20;

/// Why a fleet cannot be used: exit 2.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// No file where one is looked for.
    #[error("no fleet.toml: looked for ./fleet.toml and /etc/hello/fleet.toml; name one with --fleet, or a kind: `hello broadcast hello`")]
    Nowhere,
    /// The file cannot be read.
    #[error("cannot read `{path}`: {why}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        why: String,
    },
    /// Others than root and the caller can write the file, so its word does not count.
    #[error("`{0}` can be written by others than root and you; run `chmod go-w` on it, or make it yours")]
    Untrusted(PathBuf),
    /// The file is not what it should be.
    #[error("{0}")]
    Fault(String),
    /// A name on the command line that no group has.
    #[error("no group `{0}`; there are: {1}")]
    NoGroup(String, String),
    /// More than one group and none was named.
    #[error("{0} groups: name one or more ({1}), or say --all")]
    Unnamed(usize, String),
}

/// A fleet with every default filled in.
#[derive(Debug, Clone)]
pub struct Fleet {
    /// Where it was read from; none for a kind named on the command line.
    pub path: Option<PathBuf>,
    /// In file order.
    pub groups: Vec<Group>,
}

/// How many instances a group must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// At least.
    pub min: usize,
    /// At most.
    pub max: usize,
}

/// One group, resolved.
#[derive(Debug, Clone)]
pub struct Group {
    /// Unique in its file.
    pub name: String,
    /// Which processes.
    pub matching: Match,
    /// Which of these not.
    pub exclude: Option<Match>,
    /// Whose processes, by name or number; none for the caller's own.
    pub user: Option<String>,
    /// Number of instances, checked before anything is touched.
    pub count: Count,
    /// Where an instance's config is: the first that exists. Empty for a group that is only signalled and confirmed.
    pub config: Vec<Place>,
    /// Where the config of another user's process may lie, when its own command line names it.
    pub config_under: Vec<PathBuf>,
    /// Whether the config must not be shown; none when its mode decides.
    pub secret: Option<bool>,
    /// The validator's argv, with `{exe}` and `{candidate}` to fill in.
    pub validate: Vec<String>,
    /// Per instance, from its signal to the proof.
    pub timeout: Duration,
    /// A list of processes instead of a scan.
    pub instances: Vec<Listed>,
    /// Whether somebody who knows the program says that it reloads on SIGHUP; a handler alone proves nothing.
    pub reloads: Reloads,
    /// What the program tells of itself.
    pub speaks: Speaks,
    /// Which of several listening sockets is asked.
    pub listen: Option<ListenAt>,
    /// What makes it reload.
    pub signal: Signal,
    /// All must hold.
    pub confirm: Vec<Fact>,
    /// One that holds after the signal and did not before says that the config was refused.
    pub reject: Vec<Fact>,
    /// How often in a row, each time on a fresh connection.
    pub samples: u32,
    /// Without one, one instance is signalled and proven alone before the others: nobody knows what this program does.
    pub kind: Option<String>,
}

/// Which processes: everything that is given must hold.
#[derive(Debug, Clone)]
pub struct Match {
    /// Glob over the executable's file name, or over its path where it holds a `/`.
    pub exe: Option<glob::Pattern>,
    /// Each must be one of the process's arguments.
    pub args: Vec<String>,
    /// Who runs it, by name or number.
    pub user: Option<String>,
}

/// Whether a program reloads on the signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloads {
    /// Nobody says so.
    No,
    /// Somebody says so, and its handler must be there.
    Yes,
    /// Somebody says so, of a program that waits for it in `sigwait`, which shows no handler.
    Unchecked,
}

/// What makes a program reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Signal {
    Hup,
    Usr1,
    Usr2,
}

impl Signal {
    /// As the kernel counts it.
    #[must_use]
    pub fn number(self) -> u32 {
        match self {
            Self::Hup => 1,
            Self::Usr1 => 10,
            Self::Usr2 => 12,
        }
    }

    /// As people write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Hup => "SIGHUP",
            Self::Usr1 => "SIGUSR1",
            Self::Usr2 => "SIGUSR2",
        }
    }
}

/// A listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAt {
    /// Any address with this port.
    TcpPort(u16),
    /// This address.
    Tcp(std::net::SocketAddr),
    /// This socket file.
    Unix(PathBuf),
}

/// What a program tells of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Speaks {
    /// Nothing: only the facts of `confirm` count.
    None,
    /// Digest, instance and refusals, as `hello serve` does.
    Hello,
}

/// Where a process's config file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The value of this option on the process's own command line.
    Arg(String),
    /// This path.
    Path(PathBuf),
}

/// A process named by its number.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// The process.
    pub pid: i32,
    /// Its URL; found from its sockets when absent.
    pub endpoint: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFleet {
    version: u32,
    #[serde(default)]
    group: Vec<RawGroup>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGroup {
    name: Option<String>,
    kind: Option<String>,
    r#match: Option<RawMatch>,
    count: Option<RawCount>,
    config: Option<String>,
    validate: Option<Vec<String>>,
    timeout: Option<String>,
    instances: Option<Vec<Listed>>,
    reloads: Option<bool>,
    speaks: Option<Speaks>,
    confirm: Option<Vec<RawFact>>,
    samples: Option<u32>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMatch {
    exe: String,
    #[serde(default)]
    args: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum RawCount {
    Exactly(usize),
    Range(String),
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.min, self.max) {
            (min, usize::MAX) => write!(f, "{min} or more"),
            (min, max) if min == max => write!(f, "{min}"),
            (min, max) => write!(f, "{min} to {max}"),
        }
    }
}

impl Fleet {
    /// Reads `path`.
    ///
    /// # Errors
    /// When it cannot be read, others can write it, or it is not a fleet; the text names file, line and column.
    pub fn load(path: &Path) -> Result<Self, FleetError> {
        let unreadable = |why: String| FleetError::Unreadable { path: path.into(), why };
        let meta = std::fs::metadata(path).map_err(|e| unreadable(e.to_string()))?;
        let me = nix::unistd::geteuid().as_raw();
        if meta.mode() & 0o022 != 0 || (meta.uid() != 0 && meta.uid() != me) {
            return Err(FleetError::Untrusted(path.into()));
        }
        let bytes = config::read(path, MAX_FLEET).map_err(|e| match e {
            ReadError::Io(e) => unreadable(e.to_string()),
            ReadError::Unacceptable(why) => unreadable(why),
        })?;
        let text = String::from_utf8(bytes).map_err(|e| unreadable(e.to_string()))?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, FleetError> {
        let fault = |why: String| FleetError::Fault(format!("`{}`: {why}", path.display()));
        let raw: RawFleet = toml::from_str(text).map_err(|e| fault(e.to_string()))?;
        if raw.version != 1 {
            return Err(fault(format!("version = {}, but this hello reads version 1", raw.version)));
        }
        let mut groups: Vec<Group> = Vec::new();
        for (at, group) in raw.group.into_iter().enumerate() {
            let group = resolve(group).map_err(|why| fault(format!("group {}: {why}", at + 1)))?;
            if groups.iter().any(|g| g.name == group.name) {
                return Err(fault(format!("two groups are named `{}`", group.name)));
            }
            groups.push(group);
        }
        if groups.is_empty() {
            return Err(fault("no [[group]] in it".into()));
        }
        Ok(Self { path: Some(path.into()), groups })
    }

    /// The fleet that a kind alone describes: every process of it.
    ///
    /// # Errors
    /// When there is no such kind.
    pub fn of_kind(kind: &str) -> Result<Self, FleetError> {
        let raw = RawGroup { name: Some(kind.into()), kind: Some(kind.into()), ..RawGroup::default() };
        let group = resolve(raw).map_err(FleetError::Fault)?;
        Ok(Self { path: None, groups: vec![group] })
    }

    /// Keeps the named groups; with no name and not `all`, the only one there is.
    ///
    /// # Errors
    /// When a name is unknown, or several groups are left to choose from.
    pub fn select(mut self, names: &[String], all: bool) -> Result<Self, FleetError> {
        let known = self.groups.iter().map(|g| g.name.as_str()).collect::<Vec<_>>().join(", ");
        if let Some(name) = names.iter().find(|n| !self.groups.iter().any(|g| g.name == **n)) {
            return Err(FleetError::NoGroup(name.clone(), known));
        }
        if names.is_empty() && !all && self.groups.len() > 1 {
            return Err(FleetError::Unnamed(self.groups.len(), known));
        }
        self.groups.retain(|g| names.is_empty() || names.contains(&g.name));
        Ok(self)
    }
}

fn resolve(raw: RawGroup) -> Result<Group, String> {
    let base = match raw.kind.as_deref() {
        None => RawGroup::default(),
        Some(kind) => {
            let (_, text) = KINDS.iter().find(|(name, _)| *name == kind).ok_or_else(|| format!("no kind `{kind}` (the kinds are: hello)"))?;
            toml::from_str(text).map_err(|e| format!("kind `{kind}`: {e}"))?
        }
    };
    let name = raw.name.clone().or_else(|| raw.kind.clone()).ok_or("`name` is missing")?;
    let confirm = raw.confirm.or(base.confirm).ok_or("nothing says how a reload is proven: add [[group.confirm]]")?;
    let confirm = confirm.into_iter().map(Fact::try_from).collect::<Result<Vec<_>, _>>()?;
    let speaks = raw.speaks.or(base.speaks).unwrap_or(Speaks::None);
    if confirm.is_empty() && speaks == Speaks::None {
        return Err("`confirm` is empty, so nothing could be proven: add [[group.confirm]]".into());
    }
    let samples = raw.samples.or(base.samples).unwrap_or(if speaks == Speaks::Hello { 1 } else { 3 });
    if samples == 0 {
        return Err("samples = 0 would prove nothing".into());
    }
    let matching = raw.r#match.or(base.r#match).ok_or("`match` is missing")?;
    let config = raw.config.or(base.config).ok_or("`config` is missing")?;
    let validate = raw.validate.or(base.validate).unwrap_or_default();
    let timeout = raw.timeout.or(base.timeout).unwrap_or_else(|| "5s".into());
    let instances = raw.instances.unwrap_or_default();
    if instances.iter().any(|i| i.pid <= 0) {
        return Err("a pid of `instances` is not above 0".into());
    }
    let config = match config.strip_prefix("{arg:").and_then(|c| c.strip_suffix('}')) {
        Some(option) => Place::Arg(option.into()),
        None if config.starts_with('/') => Place::Path(config.into()),
        None => return Err(format!("config = {config:?} is neither `{{arg:--option}}` nor an absolute path")),
    };
    Ok(Group {
        name,
        matching: Match { exe: Some(glob::Pattern::new(&matching.exe).map_err(|e| format!("match.exe: {e}"))?), args: matching.args, user: None },
        exclude: None,
        user: None,
        count: match raw.count {
            None => Count { min: 1, max: usize::MAX },
            Some(RawCount::Exactly(n)) => Count { min: n, max: n },
            Some(RawCount::Range(text)) => parse_count(&text)?,
        },
        config: vec![config],
        config_under: Vec::new(),
        secret: None,
        listen: None,
        signal: Signal::Hup,
        reject: Vec::new(),
        validate,
        timeout: parse_duration(&timeout)?,
        instances,
        reloads: if raw.reloads.or(base.reloads).unwrap_or(false) { Reloads::Yes } else { Reloads::No },
        speaks,
        confirm,
        samples,
        kind: raw.kind,
    })
}

/// `3`, `3..`, `..5` or `3..5`.
///
/// # Errors
/// A sentence when it is none of these.
pub fn parse_count(text: &str) -> Result<Count, String> {
    let number = |t: &str, default: usize| match t {
        "" => Ok(default),
        t => t.parse().map_err(|_| format!("count = {text:?} is not 3, 3.., ..5 or 3..5")),
    };
    let count = match text.split_once("..") {
        Some((min, max)) => Count { min: number(min, 1)?, max: number(max, usize::MAX)? },
        None => {
            let exactly = text.parse().map_err(|_| format!("count = {text:?} is not a number"))?;
            Count { min: exactly, max: exactly }
        }
    };
    if count.min > count.max {
        return Err(format!("count = {text:?} has its ends the wrong way round"));
    }
    Ok(count)
}

/// `5s`, `500ms`, `2m`; above nothing, at most an hour.
///
/// # Errors
/// A sentence when it is no such duration.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| format!("{text:?} is no duration such as 5s or 500ms"))?;
    match Duration::try_from(parsed) {
        Ok(d) if d <= Duration::from_secs(3600) => Ok(d),
        _ => Err(format!("{text:?} is not between 0s and 1h")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    fn parse(text: &str) -> Result<Fleet, FleetError> {
        Fleet::parse(text, Path::new("fleet.toml"))
    }

    #[test]
    fn a_kind_fills_what_a_group_leaves_out() {
        let fleet = parse("version = 1\n[[group]]\nname = \"web\"\nkind = \"hello\"\ncount = \"3..\"\n").unwrap();
        let group = &fleet.groups[0];
        assert_eq!(group.config[0], Place::Arg("--config".into()));
        assert_eq!(group.count, Count { min: 3, max: usize::MAX });
        assert_eq!(group.timeout, Duration::from_secs(5));
    }

    #[test]
    fn faults_name_file_and_line() {
        let text = parse("version = 1\n[[group]]\nnmae = \"web\"\n").unwrap_err().to_string();
        assert!(text.contains("fleet.toml") && text.contains("line 3"), "{text}");
        assert!(parse("version = 2\n").unwrap_err().to_string().contains("version"));
        assert!(parse("version = 1\n").unwrap_err().to_string().contains("[[group]]"));
    }

    #[test]
    fn counts() {
        assert_eq!(parse_count("..5").unwrap(), Count { min: 1, max: 5 });
        assert_eq!(parse_count("4").unwrap(), Count { min: 4, max: 4 });
        assert!(parse_count("5..3").is_err() && parse_count("x").is_err());
    }
}
