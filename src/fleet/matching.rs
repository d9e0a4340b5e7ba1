//! Which processes a group means: everything that is given must hold.

use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

/// Which processes: everything that is given must hold.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Match {
    /// Globs, of which one must fit the executable's file name, or its path where the glob holds a `/`.
    #[serde(serialize_with = "any_as_written")]
    pub exe: Vec<glob::Pattern>,
    /// Globs over the script that an interpreter runs: its first argument that is no option (a `-m MODULE` counts), by file name or path as `exe`.
    #[serde(serialize_with = "any_as_written")]
    pub script: Vec<glob::Pattern>,
    /// Of each entry one glob must fit an argument; a command line that was rewritten into one string counts by its words.
    #[serde(serialize_with = "all_as_written")]
    pub args: Vec<Vec<glob::Pattern>>,
    /// Who runs it, by name or number.
    pub user: Option<String>,
    /// Glob over its path in the unified control group hierarchy.
    #[serde(serialize_with = "as_written")]
    pub cgroup: Option<glob::Pattern>,
    /// The systemd unit that it belongs to; its leader is the unit's MainPID.
    pub unit: Option<String>,
    /// It is the process whose number stands in this file.
    pub pid_file: Option<PathBuf>,
    /// It or a child of it listens on this TCP port.
    pub port: Option<u16>,
    /// It or a child of it listens here.
    pub listens: Option<ListenAt>,
}

fn as_written<S: Serializer>(pattern: &Option<glob::Pattern>, to: S) -> Result<S::Ok, S::Error> {
    pattern.as_ref().map(glob::Pattern::as_str).serialize(to)
}

fn any_as_written<S: Serializer>(patterns: &[glob::Pattern], to: S) -> Result<S::Ok, S::Error> {
    patterns.iter().map(glob::Pattern::as_str).collect::<Vec<_>>().serialize(to)
}

fn all_as_written<S: Serializer>(patterns: &[Vec<glob::Pattern>], to: S) -> Result<S::Ok, S::Error> {
    patterns.iter().map(|any| any.iter().map(glob::Pattern::as_str).collect::<Vec<_>>()).collect::<Vec<_>>().serialize(to)
}

impl Match {
    /// Whether nothing at all is given, which would mean every process.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self { exe, script, args, user, cgroup, unit, pid_file, port, listens } = self;
        let patterns = exe.is_empty() && script.is_empty() && args.is_empty() && cgroup.is_none();
        patterns && user.is_none() && unit.is_none() && pid_file.is_none() && port.is_none() && listens.is_none()
    }

    /// Whether `exe`, as `/proc/PID/exe` says, is the wanted executable.
    #[must_use]
    pub fn has_exe(&self, exe: &Path) -> bool {
        // The kernel marks a replaced executable; the process is the same program all the same.
        let text = exe.to_string_lossy();
        let path = text.strip_suffix(" (deleted)").unwrap_or(&text);
        self.exe.is_empty() || self.exe.iter().any(|pattern| fits(pattern, path))
    }

    /// Whether a process's arguments (without its own name) hold every wanted one.
    #[must_use]
    pub fn has_args(&self, args: &[String]) -> bool {
        self.args.iter().all(|any| args.iter().any(|arg| any.iter().any(|pattern| pattern.matches(arg))))
    }
}

/// By path where the pattern holds a `/`, else by file name.
#[must_use]
pub fn fits(pattern: &glob::Pattern, path: &str) -> bool {
    let path = Path::new(path);
    if pattern.as_str().contains('/') {
        return pattern.matches_path(path);
    }
    path.file_name().is_some_and(|name| pattern.matches(&name.to_string_lossy()))
}

/// A listening socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub enum ListenAt {
    /// Any address with this port.
    TcpPort(u16),
    /// This address.
    Tcp(std::net::SocketAddr),
    /// A socket file, by glob over its path.
    Unix(#[serde(serialize_with = "one_as_written")] glob::Pattern),
    /// What this option of the process's own command line says: `PORT`, `:PORT` or `HOST:PORT`.
    Arg(String),
}

fn one_as_written<S: Serializer>(pattern: &glob::Pattern, to: S) -> Result<S::Ok, S::Error> {
    pattern.as_str().serialize(to)
}

impl std::str::FromStr for ListenAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(option) = text.strip_prefix("{arg:").and_then(|t| t.strip_suffix('}')).filter(|o| !o.is_empty()) {
            return Ok(Self::Arg(option.into()));
        }
        let says = match text.split_once(':') {
            Some(("tcp", rest)) => rest.parse().map(Self::TcpPort).ok().or_else(|| rest.parse().map(Self::Tcp).ok()),
            Some(("unix", path)) if path.starts_with('/') => glob::Pattern::new(path).map(Self::Unix).ok(),
            _ => None,
        };
        says.ok_or_else(|| format!("{text:?} is none of tcp:PORT, tcp:ADDRESS:PORT, unix:/PATH and {{arg:--option}}"))
    }
}
