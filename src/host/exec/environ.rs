//! The environment that a process was started with, as `/proc/PID/environ` tells it, and what of it
//! a command is given.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
};

use crate::{config::digest, host::proc::kernel::Proc};

/// An environment of this size was cut.
const CUT: usize = 4 << 20;

/// Shorter values are not masked: they stand in every text.
const SHORTEST: usize = 4;

/// A line of a longer value is masked by itself from this length on.
const LINE: usize = 8;

/// Stands in for a value.
const MASK: &[u8] = b"***";

/// For this process alone: its supervisor would take the word of a command for its own, or the
/// command would take the sockets of its instance for its own.
const DROPPED: &[&str] = &[
    "NOTIFY_SOCKET",
    "MAINPID",
    "FDSTORE",
    "NGINX",
    "GUNICORN_FD",
    "GUNICORN_PID",
    "UNICORN_FD",
    "FPM_SOCKETS",
    "UPSTART_FDS",
    "SERVER_STARTER_PORT",
    "SERVER_STARTER_GENERATION",
    "UWSGI_RELOADS",
    "UWSGI_ORIGINAL_PROC_NAME",
];

/// The same of every name that begins so.
const DROPPED_FAMILIES: &[&str] = &[
    "WATCHDOG_",
    "LISTEN_",
    "HAPROXY_MWORKER",
    "EINHORN_FD",
    "PUMA_INHERIT_",
];

/// Names whose values differ from one start of a process to the next and mean nothing to its
/// config.
const OF_ONE_START: &[&str] = &[
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "SYSTEMD_EXEC_PID",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    "SHLVL",
    "OLDPWD",
    "_",
];

/// Values that are no secret and stand in many a message.
const PLAIN: &[&str] = &[
    "PATH",
    "HOME",
    "PWD",
    "OLDPWD",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "TERM",
    "COLORTERM",
    "USER",
    "LOGNAME",
    "SHLVL",
    "TZ",
    "HOSTNAME",
    "TMPDIR",
    "MAIL",
    "_",
    "LS_COLORS",
    "DEBIAN_FRONTEND",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "SYSTEMD_EXEC_PID",
    "RUNTIME_DIRECTORY",
    "STATE_DIRECTORY",
    "CACHE_DIRECTORY",
    "LOGS_DIRECTORY",
    "CONFIGURATION_DIRECTORY",
    "PYTHONDONTWRITEBYTECODE",
    "VIRTUAL_ENV",
];

/// Names and values, in their order.
pub(super) type Variables = Vec<(OsString, OsString)>;

/// The variables in the bytes of `/proc/PID/environ`; none where it is no environment throughout: a
/// title was written over it, and a part of it may look like a variable.
pub(super) fn parse(raw: &[u8]) -> Option<Variables> {
    if raw.is_empty() {
        return Some(Variables::new());
    }
    if raw.len() >= CUT {
        return None;
    }
    raw.strip_suffix(b"\0")?
        .split(|b| *b == 0)
        .map(pair)
        .collect()
}

fn pair(entry: &[u8]) -> Option<(OsString, OsString)> {
    let at = entry.iter().position(|b| *b == b'=')?;
    let (name, value) = (&entry[..at], &entry[at + 1..]);
    // Besides what POSIX allows: functions of bash, and names of containers and build systems.
    let is_name = |b: &u8| b.is_ascii_alphanumeric() || b"_%()-.".contains(b);
    let good = !name.is_empty() && name.iter().all(is_name) && !name[0].is_ascii_digit();
    good.then(|| {
        (
            OsString::from_vec(name.to_vec()),
            OsString::from_vec(value.to_vec()),
        )
    })
}

/// Without what is for the instance alone, and with a `PATH`.
pub(super) fn passed_on(mut all: Variables, path: &str) -> Variables {
    let is = |name: &OsStr| {
        let name = name.to_string_lossy();
        DROPPED.contains(&&*name)
            || DROPPED_FAMILIES
                .iter()
                .any(|family| name.starts_with(family))
    };
    all.retain(|(name, _)| !is(name));
    if all.iter().all(|(name, _)| name != "PATH") {
        all.push(("PATH".into(), path.into()));
    }
    all
}

/// The variables of the process `pid`, as far as this user may see its environment and it is one.
fn variables_of(pid: i32) -> Option<Variables> {
    let raw = Proc::open(pid).and_then(|process| process.read("environ"));
    parse(&raw.ok()?)
}

/// The environment of the process `pid`, as far as this user may see it and it is one.
pub(crate) fn of(pid: i32) -> Option<Environment> {
    variables_of(pid).map(Environment::of)
}

/// The value of the variable `name` of the process `pid`, where it has one; none where its
/// environment is not known.
pub(crate) fn variable(pid: i32, name: &str) -> Option<Option<OsString>> {
    let found = variables_of(pid)?
        .into_iter()
        .find(|(known, _)| known == name);
    Some(found.map(|(_, value)| value))
}

/// The variables of the process `pid` that are text; none where its environment is not known.
pub(crate) fn variables(pid: i32) -> Vec<(String, String)> {
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let all = variables_of(pid).unwrap_or_default();
    all.into_iter().filter_map(text).collect()
}

/// The digest of all that a command is given of the environment of the process `pid`; empty where
/// that is not known. What differs with every start is no part of it.
pub(crate) fn identity(pid: i32) -> String {
    variables_of(pid).map_or_else(String::new, identity_of)
}

fn identity_of(all: Variables) -> String {
    let mut all = passed_on(all, "");
    all.retain(|(name, _)| !OF_ONE_START.iter().any(|one| name == *one));
    all.sort();
    let lines = all
        .iter()
        .flat_map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes(), b"\0"]);
    digest(&lines.collect::<Vec<_>>().concat())
}

/// The parts of a value that may be a secret by themselves: words, what is assigned in them, and of
/// a URL its user, password and query. Paths and options are none.
fn parts(value: &str, all: &mut Vec<Vec<u8>>) {
    let mut add = |part: &str, shortest: usize| {
        if part.len() >= shortest && !part.starts_with(['/', '-', '.']) {
            all.push(part.as_bytes().to_vec());
            all.extend(unescaped(part));
        }
    };
    for word in value.split(|c: char| c.is_whitespace() || "\"'`,;".contains(c)) {
        if let Some((_, rest)) = word.split_once("://") {
            let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
            if let Some((user, _)) = authority.rsplit_once('@') {
                let (name, password) = user.split_once(':').unwrap_or((user, ""));
                add(name, LINE);
                add(password, SHORTEST);
            }
            query
                .split(['&', '#'])
                .filter_map(|pair| pair.split_once('='))
                .for_each(|(_, value)| add(value, SHORTEST));
            continue;
        }
        add(word, LINE);
        if let Some((name, assigned)) = word.split_once(['=', ':']) {
            let name = name.to_ascii_lowercase();
            let is_secret = ["pass", "pwd", "secret", "token", "key"]
                .iter()
                .any(|mark| name.contains(mark));
            add(assigned, if is_secret { SHORTEST } else { LINE });
        }
    }
}

/// A part of a URL without its escapes, where it has some.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut rest) = (Vec::new(), text.as_bytes());
    while let Some((first, behind)) = rest.split_first() {
        let byte = behind
            .get(..2)
            .filter(|_| *first == b'%')
            .and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        out.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &behind[2..] } else { behind };
    }
    (out != text.as_bytes()).then_some(out)
}

/// The values of an environment that must not be shown, the longest first.
#[derive(Debug)]
pub(crate) struct Environment(Vec<Vec<u8>>);

impl Environment {
    fn of(all: Variables) -> Self {
        let plain = |name: &OsStr| {
            PLAIN.iter().any(|plain| name == *plain)
                || name.as_bytes().starts_with(b"LC_")
                || name.as_bytes().starts_with(b"XDG_")
        };
        let mut values = Vec::new();
        for (_, value) in all.into_iter().filter(|(name, _)| !plain(name)) {
            let value = value.into_vec();
            // A command may print a long value line by line, or a part of it.
            values.extend(
                value
                    .split(|b| *b == b'\n')
                    .filter(|line| line.len() >= LINE)
                    .map(<[u8]>::to_vec),
            );
            parts(&String::from_utf8_lossy(&value), &mut values);
            values.push(value);
        }
        values.retain(|value| value.len() >= SHORTEST);
        values.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        values.dedup();
        Self(values)
    }

    /// Leaves out values that are one of these texts, which everybody may see: an argument, or what
    /// stands behind its `=`; the path of a config.
    pub(crate) fn without<'a>(mut self, shown: impl Iterator<Item = &'a [u8]> + Clone) -> Self {
        let assigned = |text: &'a [u8]| text.split(|b| *b == b'=').nth(1);
        let is = |text: &'a [u8], value: &[u8]| text == value || assigned(text) == Some(value);
        self.0
            .retain(|value| !shown.clone().any(|text| is(text, value)));
        self
    }

    /// Replaces every value in `text`.
    pub(crate) fn mask(&self, text: &mut Vec<u8>) {
        let (mut masked, mut at) = (Vec::with_capacity(text.len()), 0);
        while at < text.len() {
            match self.0.iter().find(|value| text[at..].starts_with(value)) {
                Some(value) => {
                    masked.extend_from_slice(MASK);
                    at += value.len();
                }
                None => {
                    masked.push(text[at]);
                    at += 1;
                }
            }
        }
        *text = masked;
    }
}

#[cfg(test)]
mod tests;
