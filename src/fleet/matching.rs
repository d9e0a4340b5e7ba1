//! Which processes a group means: everything that is given must hold.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Which processes: everything that is given must hold.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Match {
    /// Globs, of which one must fit the executable's file name, or its path where the glob holds a
    /// `/`.
    #[serde(with = "written")]
    pub exe: Vec<glob::Pattern>,
    /// Globs over the script that an interpreter runs: its first argument that is no option (a `-m
    /// MODULE` counts), by file name or path as `exe`; of one that calls itself `NAME: ..` it is
    /// NAME.
    #[serde(with = "written")]
    pub script: Vec<glob::Pattern>,
    /// Of each entry one glob must fit an argument; a command line that was rewritten into one
    /// string counts by its words.
    #[serde(with = "written")]
    pub args: Vec<Vec<glob::Pattern>>,
    /// Who runs it, by name or number.
    pub user: Option<String>,
    /// Glob over its path in the unified control group hierarchy; `*` crosses `/`.
    #[serde(with = "written")]
    pub cgroup: Option<glob::Pattern>,
    /// The systemd unit that it belongs to, with its suffix (`.service` when none is given); its
    /// leader is the unit's MainPID.
    pub unit: Option<String>,
    /// It is the process whose number stands in this file.
    pub pid_file: Option<PathBuf>,
    /// It listens on this TCP port, or a child of it does: one of the same executable, or of any
    /// where `exe` or `script` says who the parent is.
    pub port: Option<u16>,
    /// It, or a child of it as for `port`, listens here.
    pub listens: Option<ListenAt>,
}

/// Globs as text.
mod written {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    /// What globs are in: one, one or none, a list, a list of lists.
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
    /// Whether nothing at all is given, which would mean every process.
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

    /// This match grown key by key, each with what is said of a process that it is the first not to
    /// fit.
    #[must_use]
    pub fn steps(&self) -> Vec<(Self, String)> {
        let (mut now, mut steps) = (Self::default(), Vec::new());
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
                format!("is not whom `{}` names", file.display()),
            );
        }
        if let Some(port) = self.port {
            grow(
                &|m| m.port = Some(port),
                format!("does not listen on port {port}"),
            );
        }
        if let Some(place) = &self.listens {
            grow(
                &|m| m.listens = Some(place.clone()),
                format!("does not listen at {place}"),
            );
        }
        steps
    }

    /// Whether `exe`, as `/proc/PID/exe` says, is the wanted executable.
    #[must_use]
    pub fn has_exe(&self, exe: &Path) -> bool {
        // The kernel marks a replaced executable; the process is the same program all the same.
        let text = exe.to_string_lossy();
        let path = text.strip_suffix(" (deleted)").unwrap_or(&text);
        self.exe.is_empty() || self.exe.iter().any(|pattern| fits(pattern, path))
    }

    /// Whether a program that only its names tell of (`comm`, of 15 bytes at most, and its first
    /// argument) may be the wanted executable.
    #[must_use]
    pub fn may_have_exe(&self, comm: &str, name: &str) -> bool {
        self.exe.is_empty() || self.exe.iter().any(|pattern| may_fit(pattern, comm, name))
    }

    /// Whether a process's arguments (without its own name) hold every wanted one.
    #[must_use]
    pub fn has_args(&self, args: &[String]) -> bool {
        self.lacks(args).is_none()
    }

    /// The first wanted argument that is not there: the globs of which one should fit.
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

/// What is said of a process that has none of these among its arguments.
#[must_use]
pub fn lacking(patterns: &[glob::Pattern]) -> String {
    format!("has no {} among its arguments", any(patterns))
}

/// Names that systemd gives a unit's kind by.
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

/// The full name of a systemd unit.
#[must_use]
pub fn unit_name(unit: &str) -> String {
    if SUFFIXES.iter().any(|s| unit.ends_with(s)) {
        unit.to_owned()
    } else {
        format!("{unit}.service")
    }
}

/// Whether a path in the control group hierarchy leads through `unit`.
#[must_use]
pub fn in_unit(cgroup: &str, unit: &str) -> bool {
    // systemd writes a `_` before a name that would be taken for one of the kernel's own files.
    cgroup
        .split('/')
        .any(|part| part == unit || part.strip_prefix('_') == Some(unit))
}

/// As [`fits`], where only names are to be had.
fn may_fit(pattern: &glob::Pattern, comm: &str, name: &str) -> bool {
    let text = pattern.as_str();
    let last = text.rsplit('/').next().unwrap_or(text);
    let plain = last.split(['*', '?', '[']).next().unwrap_or(last);
    // What the kernel cut off cannot be held against the pattern.
    let cut = comm.len() >= 15 && (plain.starts_with(comm) || comm.starts_with(plain));
    let by = |name: &str| glob::Pattern::new(last).is_ok_and(|p| p.matches(name));
    cut || by(comm) || by(name.rsplit('/').next().unwrap_or(name))
}

/// By path where the pattern holds a `/`, else by file name.
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
    /// What this option of the process's own command line says: `PORT`, `:PORT` or `HOST:PORT`.
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

impl std::str::FromStr for ListenAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(option) = text
            .strip_prefix("{arg:")
            .and_then(|t| t.strip_suffix('}'))
            .filter(|o| !o.is_empty())
        {
            return Ok(Self::Arg(option.into()));
        }
        let says = match text.split_once(':') {
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
        says.ok_or_else(|| {
            format!(
                "{text:?} is none of tcp:PORT, tcp:ADDRESS:PORT, unix:/PATH and {{arg:--option}}"
            )
        })
    }
}

#[cfg(test)]
mod tests;
