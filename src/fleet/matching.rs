//! The processes that belong to a group: every key that is set must hold.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// The processes that belong to a group: every key that is set must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Match {
    /// Globs, of which one must fit the executable's file name, or its path where the glob holds a
    /// `/`.
    #[serde(with = "written")]
    pub exe: Vec<glob::Pattern>,
    /// Globs over the script that an interpreter runs, by file name or path as `exe`. The script is
    /// the first argument that is not an option, or the module of `-m MODULE`. For a process that
    /// calls itself `NAME: ..` it is NAME.
    #[serde(with = "written")]
    pub script: Vec<glob::Pattern>,
    /// For each entry, one glob must fit an argument. A command line that was rewritten into one
    /// string counts by its words.
    #[serde(with = "written")]
    pub args: Vec<Vec<glob::Pattern>>,
    /// Its user, by name or number.
    pub user: Option<String>,
    /// Glob over its path in the unified control group hierarchy; `*` crosses `/`.
    #[serde(with = "written")]
    pub cgroup: Option<glob::Pattern>,
    /// The systemd unit that it belongs to, with its suffix (default `.service`). The leader is the
    /// unit's MainPID.
    pub unit: Option<String>,
    /// The file that contains its pid.
    pub pid_file: Option<PathBuf>,
    /// The TCP port that it or one of its children listens on. The child must have the same
    /// executable, unless `exe` or `script` identifies the parent.
    pub port: Option<u16>,
    /// The socket that it or one of its children, as for `port`, listens on.
    pub listens: Option<ListenAt>,
}

/// Globs as text.
mod written {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    /// A glob, or an option or a list of them.
    pub(super) trait Written: Sized {
        type Text: Serialize + for<'de> Deserialize<'de>;
        fn text(&self) -> Self::Text;
        fn parse(text: Self::Text) -> Result<Self, glob::PatternError>;
    }

    impl Written for glob::Pattern {
        type Text = String;
        fn text(&self) -> String {
            self.as_str().into()
        }
        fn parse(text: String) -> Result<Self, glob::PatternError> {
            Self::new(&text)
        }
    }

    impl<T: Written> Written for Option<T> {
        type Text = Option<T::Text>;
        fn text(&self) -> Self::Text {
            self.as_ref().map(T::text)
        }
        fn parse(text: Self::Text) -> Result<Self, glob::PatternError> {
            text.map(T::parse).transpose()
        }
    }

    impl<T: Written> Written for Vec<T> {
        type Text = Vec<T::Text>;
        fn text(&self) -> Self::Text {
            self.iter().map(T::text).collect()
        }
        fn parse(text: Self::Text) -> Result<Self, glob::PatternError> {
            text.into_iter().map(T::parse).collect()
        }
    }

    pub(super) fn serialize<T: Written, S: Serializer>(
        globs: &T,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        globs.text().serialize(to)
    }

    pub(super) fn deserialize<'de, T: Written, D: Deserializer<'de>>(
        from: D,
    ) -> Result<T, D::Error> {
        T::parse(T::Text::deserialize(from)?).map_err(D::Error::custom)
    }
}

impl Match {
    /// Tells whether no key is set, so that every process would match.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Self {
            exe,
            script,
            args,
            user,
            cgroup,
            unit,
            pid_file,
            port,
            listens,
        } = self;
        let patterns = exe.is_empty() && script.is_empty() && args.is_empty() && cgroup.is_none();
        patterns
            && user.is_none()
            && unit.is_none()
            && pid_file.is_none()
            && port.is_none()
            && listens.is_none()
    }

    /// Returns this match grown key by key. Each comes with a sentence about a process that the key
    /// is the first to exclude.
    #[must_use]
    pub fn steps(&self) -> Vec<(Self, String)> {
        let mut now = Self::default();
        let mut steps = Vec::new();
        let mut grow = |change: &dyn Fn(&mut Self), why: String| {
            change(&mut now);
            steps.push((now.clone(), why));
        };
        if !self.exe.is_empty() {
            grow(
                &|m| m.exe.clone_from(&self.exe),
                format!("does not execute {}", any(&self.exe)),
            );
        }
        if !self.script.is_empty() {
            grow(
                &|m| m.script.clone_from(&self.script),
                format!("runs no script {}", any(&self.script)),
            );
        }
        for patterns in &self.args {
            grow(&|m| m.args.push(patterns.clone()), lacking(patterns));
        }
        if let Some(user) = &self.user {
            grow(
                &|m| m.user = Some(user.clone()),
                format!("is not user `{user}`'s"),
            );
        }
        if let Some(cgroup) = &self.cgroup {
            grow(
                &|m| m.cgroup = Some(cgroup.clone()),
                format!("is in no control group `{}`", cgroup.as_str()),
            );
        }
        if let Some(unit) = &self.unit {
            grow(
                &|m| m.unit = Some(unit.clone()),
                format!("is not in the unit `{unit}`"),
            );
        }
        if let Some(file) = &self.pid_file {
            grow(
                &|m| m.pid_file = Some(file.clone()),
                format!("is not the process that `{}` names", file.display()),
            );
        }
        if let Some(port) = self.port {
            grow(
                &|m| m.port = Some(port),
                format!("does not listen on port {port}"),
            );
        }
        if let Some(socket) = &self.listens {
            grow(
                &|m| m.listens = Some(socket.clone()),
                format!("does not listen at {socket}"),
            );
        }
        steps
    }

    /// Tells whether `exe`, the link `/proc/PID/exe`, is the wanted executable.
    #[must_use]
    pub fn has_exe(&self, exe: &Path) -> bool {
        // The kernel adds ` (deleted)` to the path of a replaced executable, proc_pid_exe(5).
        let text = exe.to_string_lossy();
        let path = text.strip_suffix(" (deleted)").unwrap_or(&text);
        self.exe.is_empty() || self.exe.iter().any(|pattern| fits(pattern, path))
    }

    /// Tells whether a process may run the wanted executable, if only its names are known: `comm`,
    /// of at most 15 bytes, and its first argument.
    #[must_use]
    pub fn may_have_exe(&self, comm: &str, name: &str) -> bool {
        self.exe.is_empty() || self.exe.iter().any(|pattern| may_fit(pattern, comm, name))
    }

    /// Tells whether a process's arguments, without the program's name, include every wanted one.
    #[must_use]
    pub fn has_args(&self, args: &[String]) -> bool {
        self.lacks(args).is_none()
    }

    /// Returns the first wanted argument that is missing: the globs of which one should fit.
    #[must_use]
    pub fn lacks(&self, args: &[String]) -> Option<&[glob::Pattern]> {
        let is_there = |any: &[glob::Pattern]| {
            args.iter()
                .any(|arg| any.iter().any(|pattern| pattern.matches(arg)))
        };
        self.args
            .iter()
            .map(Vec::as_slice)
            .find(|any| !is_there(any))
    }
}

fn any(patterns: &[glob::Pattern]) -> String {
    patterns
        .iter()
        .map(|pattern| format!("`{pattern}`"))
        .collect::<Vec<_>>()
        .join(" or ")
}

/// Describes a process that has none of these among its arguments.
#[must_use]
pub fn lacking(patterns: &[glob::Pattern]) -> String {
    format!("has no {} among its arguments", any(patterns))
}

/// The suffixes of systemd's unit types, systemd.unit(5).
const SUFFIXES: [&str; 11] = [
    ".service",
    ".scope",
    ".socket",
    ".slice",
    ".target",
    ".timer",
    ".path",
    ".mount",
    ".automount",
    ".swap",
    ".device",
];

/// Returns the full name of a systemd unit.
#[must_use]
pub fn unit_name(unit: &str) -> String {
    if SUFFIXES.iter().any(|s| unit.ends_with(s)) {
        unit.to_owned()
    } else {
        format!("{unit}.service")
    }
}

/// Tells whether a path in the control group hierarchy is in `unit`.
#[must_use]
pub fn in_unit(cgroup: &str, unit: &str) -> bool {
    // systemd adds a `_` before a name that the kernel uses for its own files.
    cgroup
        .split('/')
        .any(|part| part == unit || part.strip_prefix('_') == Some(unit))
}

/// Tells whether a glob may fit, as [`fits`] does, if only the names are known.
fn may_fit(pattern: &glob::Pattern, comm: &str, name: &str) -> bool {
    let text = pattern.as_str();
    let last = text.rsplit('/').next().unwrap_or(text);
    let plain = last.split(['*', '?', '[']).next().unwrap_or(last);
    // The kernel cuts `comm` off after 15 bytes, so the rest of the name is not known.
    let cut = comm.len() >= 15 && (plain.starts_with(comm) || comm.starts_with(plain));
    let fits = |name: &str| glob::Pattern::new(last).is_ok_and(|p| p.matches(name));
    cut || fits(comm) || fits(name.rsplit('/').next().unwrap_or(name))
}

/// Tells whether a glob fits: by path if it contains a `/`, else by file name.
#[must_use]
pub fn fits(pattern: &glob::Pattern, path: &str) -> bool {
    let path = Path::new(path);
    if pattern.as_str().contains('/') {
        return pattern.matches_path(path);
    }
    path.file_name()
        .is_some_and(|name| pattern.matches(&name.to_string_lossy()))
}

/// A listening socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ListenAt {
    /// Any address with this port.
    TcpPort(u16),
    /// This address.
    Tcp(std::net::SocketAddr),
    /// A socket file, by glob over its path.
    Unix(#[serde(with = "written")] glob::Pattern),
    /// The value of this option on the process's own command line: `PORT`, `:PORT` or `HOST:PORT`.
    Arg(String),
}

impl std::fmt::Display for ListenAt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TcpPort(port) => write!(f, "tcp:{port}"),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Unix(path) => write!(f, "unix:{path}"),
            Self::Arg(option) => write!(f, "{{arg:{option}}}"),
        }
    }
}

/// A text that names no listening socket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of tcp:PORT, tcp:ADDRESS:PORT, unix:/PATH and {{arg:--option}}")]
pub struct ListenAtError(String);

impl std::str::FromStr for ListenAt {
    type Err = ListenAtError;

    fn from_str(text: &str) -> Result<Self, ListenAtError> {
        if let Some(option) = text
            .strip_prefix("{arg:")
            .and_then(|t| t.strip_suffix('}'))
            .filter(|o| !o.is_empty())
        {
            return Ok(Self::Arg(option.into()));
        }
        let parsed = match text.split_once(':') {
            Some(("tcp", rest)) => rest
                .parse()
                .map(Self::TcpPort)
                .ok()
                .or_else(|| rest.parse().map(Self::Tcp).ok()),
            Some(("unix", path)) if path.starts_with('/') => {
                glob::Pattern::new(path).map(Self::Unix).ok()
            }
            _ => None,
        };
        parsed.ok_or_else(|| ListenAtError(text.into()))
    }
}

#[cfg(test)]
mod tests;
