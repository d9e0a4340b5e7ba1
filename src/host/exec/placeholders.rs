//! Fills in what the argv of a command leaves open: a validator's, a fact's, and those that start a
//! process again or name its keys.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    fleet::{option_of, placeholder, value_of},
    host::proc::argument::argument,
    identity::{Identity, Renewal},
};

/// What is known of an instance.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Values<'a> {
    pub(crate) pid: i32,
    /// Its executable, as [`exe`] finds it.
    pub(crate) exe: &'a Path,
    /// Its arguments without its own name.
    pub(crate) args: &'a [String],
    /// Its URL, or `unix:PATH`; empty when nobody has looked for it.
    pub(crate) endpoint: &'a str,
    /// The live path of its first target.
    pub(crate) config: Option<&'a Path>,
    /// Where the new content of that target stands now.
    pub(crate) candidate: Option<&'a Path>,
}

impl<'a> Values<'a> {
    /// One of which nothing but its endpoint is known.
    pub(crate) fn at(endpoint: &'a str) -> Self {
        Self {
            pid: 0,
            exe: Path::new(""),
            args: &[],
            endpoint,
            config: None,
            candidate: None,
        }
    }

    /// `argv` with every placeholder filled in; `{args}` and `{opt:..}` become any number of
    /// arguments.
    ///
    /// # Errors
    /// A sentence when something is asked for that this instance does not have.
    pub(crate) fn fill(&self, argv: &[String]) -> Result<Vec<String>, String> {
        self.fill_with(argv, |own| own.to_owned())
    }

    /// The same; what comes from the process's own command line goes through `own` first.
    ///
    /// # Errors
    /// As [`Known::fill`].
    pub(crate) fn fill_with(
        &self,
        argv: &[String],
        mut own: impl FnMut(&str) -> String,
    ) -> Result<Vec<String>, String> {
        let mut filled = Vec::new();
        for arg in argv {
            match placeholder(arg) {
                Some(("", "args", "")) => filled.extend(self.args.iter().map(|a| own(a))),
                Some(("", name, "")) if option_of(name).is_some() => {
                    let option = option_of(name).unwrap_or_default();
                    let all = (0..self.args.len())
                        .filter_map(|at| spelled(self.args, at, option))
                        .flatten();
                    filled.extend(all.map(|a| own(a)));
                }
                _ => filled.push(self.text(arg)?),
            }
        }
        Ok(filled)
    }

    /// One argument, in one pass: what is filled in is not looked at again.
    fn text(&self, arg: &str) -> Result<String, String> {
        let Some((before, name, after)) = placeholder(arg) else {
            return Ok(arg.to_owned());
        };
        Ok(format!(
            "{before}{}{}",
            self.value(name)?,
            self.text(after)?
        ))
    }

    fn value(&self, name: &str) -> Result<String, String> {
        let path = |path: Option<&Path>| {
            let path = path.ok_or_else(|| format!("`{{{name}}}`: its group has no config"))?;
            // Other text would name another file.
            path.to_str().map(str::to_owned).ok_or_else(|| {
                format!(
                    "`{{{name}}}`: `{}` is not UTF-8 text, which the arguments of a command are",
                    path.display()
                )
            })
        };
        match name {
            "exe" => path(Some(self.exe)),
            "config" => path(self.config),
            "candidate" => path(self.candidate),
            "pid" => Ok(self.pid.to_string()),
            _ if value_of(name).is_some() => {
                let value = value_of(name).and_then(|option| argument(self.args, option));
                value
                    .map(str::to_owned)
                    .ok_or_else(|| format!("`{{{name}}}`: its command line has no such argument"))
            }
            _ if self.endpoint.is_empty() => Err(format!("`{{{name}}}`: it has no endpoint")),
            "listen" => Ok(address(self.endpoint).to_owned()),
            "listen.host" => self.listen().map(|(host, _)| host),
            "listen.port" => self.listen().map(|(_, port)| port),
            _ => Err(format!("no placeholder `{{{name}}}`")),
        }
    }

    /// Host and port; of a Unix socket its directory and the digits behind the last dot of its
    /// name, as `psql` wants them.
    fn listen(&self) -> Result<(String, String), String> {
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
            .ok_or_else(|| format!("`{address}` has no port"))?;
        Ok((host.into(), port.into()))
    }
}

fn address(endpoint: &str) -> &str {
    endpoint
        .split_once("://")
        .map_or(endpoint, |(_, rest)| rest)
        .trim_end_matches('/')
}

/// The arguments that give `option` its value at `at`, spelled as the process was started: what it
/// took once it takes again.
fn spelled<'a>(args: &'a [String], at: usize, option: &str) -> Option<&'a [String]> {
    match args.get(at)?.strip_prefix(option)? {
        "" => args.get(at..at + 2),
        rest if rest.starts_with('=') || (rest.starts_with('/') && option.len() == 2) => {
            args.get(at..=at)
        }
        _ => None,
    }
}

/// The instance's own executable, whatever stands at its path by now. Of an interpreter in a
/// virtual environment the name that it was started by, since that is how it finds its modules.
pub(crate) fn exe(of: &Identity) -> PathBuf {
    // What its reload executes is what judges its config.
    if let Renewal::Another(path, _) = &of.renewal {
        return path.clone();
    }
    own_name(of.pid)
        .filter(|name| is_virtual(name) && inode(name) != (0, 0) && inode(name) == of.exe)
        .unwrap_or_else(|| held(of))
}

/// The executable of an instance as its command finds it, whatever stands at its path by now.
pub(crate) fn held(of: &Identity) -> PathBuf {
    format!("/proc/{}/exe", of.inside).into()
}

/// The name that a process was started by, where that is a path.
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

/// Device and inode; zeros for what is not there.
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

    fn filled(argv: &str, args: &str, endpoint: &str) -> Result<String, String> {
        let args = words(args);
        let known = Values {
            pid: 7,
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
        assert!(
            filled("{arg:4}", "run -c a", "")
                .unwrap_err()
                .contains("no such argument")
        );
        assert!(
            filled("{listen.port}", "", "unix:/run/x.sock")
                .unwrap_err()
                .contains("no port")
        );
        assert!(
            filled("{listen}", "", "")
                .unwrap_err()
                .contains("no endpoint")
        );
    }

    #[test]
    fn an_option_is_taken_over_in_every_spelling_and_in_order() {
        let of = |args: &str| filled("{opt:-c} {opt:--file}", args, "").unwrap();
        assert_eq!(
            of("-c a --file=b -x y -c/d -c=e -cf --files=g"),
            "-c a -c/d -c=e --file=b"
        );
        assert_eq!(of("x y"), "");
        assert_eq!(of("--file"), "");
        let known = Values {
            pid: 7,
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
        assert!(
            known
                .fill(&words("{candidate}"))
                .unwrap_err()
                .contains("no config")
        );
    }
}
