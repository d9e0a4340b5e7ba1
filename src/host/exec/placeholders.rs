//! Fills in the placeholders in the argv of a command: of a validator, an assertion, a restart, or
//! a command that prints restart keys.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    fleet::{option_of, placeholder, title_of, url_of, value_of, variable_of},
    host::{
        exec::environ,
        proc::{argument::argument, title},
    },
    identity::{Identity, Renewal},
};

/// Why a placeholder has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoValue {
    #[error("`{{{0}}}`: its group has no config")]
    Config(String),
    /// A lossy conversion would name another file.
    #[error(
        "`{{{name}}}`: `{}` is not UTF-8, as the arguments of a command must be",
        .path.display()
    )]
    NotText { name: String, path: PathBuf },
    #[error("`{{{0}}}`: its command line has no such argument")]
    Argument(String),
    #[error("`{{{0}}}`: it was started without such a variable, or this user may not see it")]
    Variable(String),
    #[error("`{{{0}}}`: it has no title with such a text, or with several")]
    Title(String),
    #[error(
        "`{{{0}}}`: its value is empty, begins with `-`, or has characters that cannot be printed"
    )]
    Odd(String),
    #[error("`{{{0}}}`: it has no endpoint")]
    Endpoint(String),
    #[error("`{0}` has no port")]
    Port(String),
    #[error("no placeholder `{{{0}}}`")]
    Unknown(String),
}

/// The values of an instance for placeholders.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Values<'a> {
    /// Its pid in its own PID namespace.
    pub(crate) pid: i32,
    /// Its pid here, for its environment and its title; 0 if there is no process.
    pub(crate) process: i32,
    /// Its executable, as [`exe`] finds it.
    pub(crate) exe: &'a Path,
    /// Its arguments without the name of the program.
    pub(crate) args: &'a [String],
    /// Its URL, or `unix:PATH`; empty if it is not known.
    pub(crate) endpoint: &'a str,
    /// The live path of its first target.
    pub(crate) config: Option<&'a Path>,
    /// The path of the candidate of that target.
    pub(crate) candidate: Option<&'a Path>,
}

impl<'a> Values<'a> {
    /// Returns the values of an instance of which only the endpoint is known.
    pub(crate) fn at(endpoint: &'a str) -> Self {
        Self {
            pid: 0,
            process: 0,
            exe: Path::new(""),
            args: &[],
            endpoint,
            config: None,
            candidate: None,
        }
    }

    /// Returns `argv` with every placeholder filled in. `{args}` and `{opt:..}` become any number
    /// of arguments.
    ///
    /// # Errors
    /// Fails if the instance does not have a value.
    pub(crate) fn fill(&self, argv: &[String]) -> Result<Vec<String>, NoValue> {
        self.fill_with(argv, |own| own.to_owned())
    }

    /// Returns `argv` as [`Values::fill`] does, and applies `own` to arguments of the process
    /// itself.
    ///
    /// # Errors
    /// Fails as [`Values::fill`] does.
    pub(crate) fn fill_with(
        &self,
        argv: &[String],
        mut own: impl FnMut(&str) -> String,
    ) -> Result<Vec<String>, NoValue> {
        let mut filled = Vec::new();
        for arg in argv {
            match placeholder(arg) {
                Some(("", "args", "")) => filled.extend(self.args.iter().map(|arg| own(arg))),
                Some(("", name, "")) if option_of(name).is_some() => {
                    let option = option_of(name).unwrap_or_default();
                    let given = (0..self.args.len())
                        .filter_map(|index| option_at(self.args, index, option))
                        .flatten();
                    filled.extend(given.map(|arg| own(arg)));
                }
                _ => filled.push(self.text(arg)?),
            }
        }
        Ok(filled)
    }

    /// Fills in one argument in one pass, so a value with braces stays as it is.
    fn text(&self, arg: &str) -> Result<String, NoValue> {
        let Some((before, name, after)) = placeholder(arg) else {
            return Ok(arg.to_owned());
        };
        Ok(format!(
            "{before}{}{}",
            self.value(name)?,
            self.text(after)?
        ))
    }

    fn value(&self, name: &str) -> Result<String, NoValue> {
        let path = |path: Option<&Path>| {
            let path = path.ok_or_else(|| NoValue::Config(name.into()))?;
            path.to_str()
                .map(str::to_owned)
                .ok_or_else(|| NoValue::NotText {
                    name: name.into(),
                    path: path.into(),
                })
        };
        match name {
            "exe" => path(Some(self.exe)),
            "config" => path(self.config),
            "candidate" => path(self.candidate),
            "config.dir" => path(self.config.and_then(directory)),
            "candidate.dir" => path(self.candidate.and_then(directory)),
            _ if variable_of(name).is_some() => self.variable(name),
            _ if title_of(name).is_some() => self.titled(name),
            "pid" => Ok(self.pid.to_string()),
            _ if value_of(name).is_some() => {
                let value = value_of(name).and_then(|option| argument(self.args, option));
                value
                    .map(str::to_owned)
                    .ok_or_else(|| NoValue::Argument(name.into()))
            }
            _ if self.endpoint.is_empty() => Err(NoValue::Endpoint(name.into())),
            "listen" => Ok(address(self.endpoint).to_owned()),
            "listen.host" => self.listen().map(|(host, _)| host),
            "listen.port" => self.listen().map(|(_, port)| port),
            _ => Err(NoValue::Unknown(name.into())),
        }
    }

    /// Returns the value of a variable that the process was started with.
    fn variable(&self, name: &str) -> Result<String, NoValue> {
        let absent = || NoValue::Variable(name.into());
        let variable = variable_of(name).ok_or_else(absent)?;
        let value = environ::variable(self.process, variable).flatten();
        let value = value.ok_or_else(absent)?.into_string();
        word(name, value.map_err(|_| NoValue::Odd(name.into()))?)
    }

    /// Returns the value in the title that the process has written over its command line.
    fn titled(&self, name: &str) -> Result<String, NoValue> {
        let absent = || NoValue::Title(name.into());
        let parts = title_of(name).ok_or_else(absent)?;
        let title = title::of(self.process)
            .filter(|title| !title::is_cut(self.process, title.len()))
            .ok_or_else(absent)?;
        match title::values(&title, parts).as_slice() {
            [value] => word(name, (*value).to_owned()),
            _ => Err(absent()),
        }
    }

    /// Returns host and port. For a Unix socket these are its directory and the digits after the
    /// last dot of its name, as `psql` expects them.
    fn listen(&self) -> Result<(String, String), NoValue> {
        let address = address(self.endpoint);
        let parts = match address.strip_prefix("unix:") {
            Some(socket) => socket.rsplit_once('/').and_then(|(dir, name)| {
                Some((
                    if dir.is_empty() { "/" } else { dir },
                    name.rsplit_once('.')?.1,
                ))
            }),
            None => address
                .rsplit_once(':')
                .map(|(host, port)| (host.trim_start_matches('[').trim_end_matches(']'), port)),
        };
        let is_number = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
        let (host, port) = parts
            .filter(|(_, port)| is_number(port))
            .ok_or_else(|| NoValue::Port(address.into()))?;
        Ok((host.into(), port.into()))
    }
}

/// Returns a value that the process chose, if it can be a path or a word, and no option.
fn word(name: &str, value: String) -> Result<String, NoValue> {
    let is_odd = value.is_empty()
        || value.starts_with('-')
        || value.contains(|c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER);
    if is_odd {
        return Err(NoValue::Odd(name.into()));
    }
    Ok(value)
}

/// Returns the directory that a target is in; none of a key.
fn directory(path: &Path) -> Option<&Path> {
    path.parent().filter(|_| url_of(path).is_none())
}

/// Returns an endpoint without its scheme and the last slash.
fn address(endpoint: &str) -> &str {
    endpoint
        .split_once("://")
        .map_or(endpoint, |(_, rest)| rest)
        .trim_end_matches('/')
}

/// Returns the arguments at `index` that set `option`, in the spelling of the process, which is
/// known to be valid.
fn option_at<'a>(args: &'a [String], index: usize, option: &str) -> Option<&'a [String]> {
    match args.get(index)?.strip_prefix(option)? {
        "" => args.get(index..index + 2),
        rest if rest.starts_with('=') || (rest.starts_with('/') && option.len() == 2) => {
            args.get(index..=index)
        }
        _ => None,
    }
}

/// Returns the executable of an instance, even if another file is at its path now.
///
/// For an interpreter in a virtual environment it is the name that the process was started by,
/// because the interpreter finds its modules by that.
pub(crate) fn exe(identity: &Identity) -> PathBuf {
    // A reload executes this program, so it must validate the config.
    if let Renewal::Another(path, _) = &identity.renewal {
        return path.clone();
    }
    own_name(identity.pid)
        .filter(|name| is_virtual(name) && inode(name) != (0, 0) && inode(name) == identity.exe)
        .unwrap_or_else(|| held(identity))
}

/// Returns the path by which a command finds the executable of its instance, even if another file
/// is at the original path now.
pub(crate) fn held(identity: &Identity) -> PathBuf {
    format!("/proc/{}/exe", identity.inside).into()
}

/// Returns the name that a process was started by; none if it is not an absolute path.
pub(crate) fn own_name(pid: i32) -> Option<PathBuf> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let name = String::from_utf8(line.split(|b| *b == 0).next()?.to_vec()).ok()?;
    name.starts_with('/').then(|| name.into())
}

fn is_virtual(name: &Path) -> bool {
    name.ancestors()
        .nth(2)
        .is_some_and(|home| home.join("pyvenv.cfg").exists())
}

/// Returns device and inode of a file; zeros if there is none.
pub(crate) fn inode(path: &Path) -> (u64, u64) {
    path.metadata()
        .map(|m| (m.dev(), m.ino()))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn filled(argv: &str, args: &str, endpoint: &str) -> Result<String, NoValue> {
        let args = words(args);
        let known = Values {
            pid: 7,
            process: 0,
            exe: Path::new("/proc/7/exe"),
            args: &args,
            endpoint,
            config: Some(Path::new("/etc/{pid}")),
            candidate: Some(Path::new("/etc/.new")),
        };
        known.fill(&words(argv)).map(|filled| filled.join(" "))
    }

    #[test]
    fn every_placeholder_is_filled_in_once() {
        assert_eq!(
            filled("{exe} -c{candidate} {config} {pid}", "", "").unwrap(),
            "/proc/7/exe -c/etc/.new /etc/{pid} 7"
        );
        assert_eq!(filled("x {args} y", "-c a b", "").unwrap(), "x -c a b y");
        assert_eq!(
            filled(
                "{listen} {listen.host} {listen.port}",
                "",
                "http://127.0.0.1:80/"
            )
            .unwrap(),
            "127.0.0.1:80 127.0.0.1 80"
        );
        assert_eq!(
            filled(
                "{listen} {listen.host} {listen.port}",
                "",
                "http://[::1]:80/"
            )
            .unwrap(),
            "[::1]:80 ::1 80"
        );
        assert_eq!(
            filled("{listen.host} {listen.port}", "", "unix:/run/.s.PGSQL.5432").unwrap(),
            "/run 5432"
        );
        assert_eq!(
            filled("{listen}", "", "unix:/run/x.sock").unwrap(),
            "unix:/run/x.sock"
        );
        assert_eq!(
            filled("{arg:1} -x={arg:-c}", "run -c a", "").unwrap(),
            "run -x=a"
        );
        assert_eq!(
            filled("{arg:4}", "run -c a", ""),
            Err(NoValue::Argument("arg:4".into()))
        );
        assert_eq!(
            filled("{listen.port}", "", "unix:/run/x.sock"),
            Err(NoValue::Port("unix:/run/x.sock".into()))
        );
        assert_eq!(
            filled("{listen}", "", ""),
            Err(NoValue::Endpoint("listen".into()))
        );
    }

    #[test]
    fn an_option_is_copied_in_every_spelling_and_in_order() {
        let options = |args: &str| filled("{opt:-c} {opt:--file}", args, "").unwrap();
        assert_eq!(
            options("-c a --file=b -x y -c/d -c=e -cf --files=g"),
            "-c a -c/d -c=e --file=b"
        );
        assert_eq!(options("x y"), "");
        assert_eq!(options("--file"), "");
        let known = Values {
            pid: 7,
            process: 0,
            exe: Path::new("x"),
            args: &words("-c a"),
            endpoint: "",
            config: None,
            candidate: None,
        };
        assert_eq!(
            known
                .fill_with(&words("{opt:-c} a"), str::to_uppercase)
                .unwrap(),
            ["-C", "A", "a"]
        );
        assert_eq!(
            known.fill(&words("{candidate}")),
            Err(NoValue::Config("candidate".into()))
        );
    }
}
