//! The environment that a process was started with, from `/proc/PID/environ`, and the part of it
//! that a command gets.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
};

use crate::{config::digest, kernel::Proc};

/// The size in bytes from which an environment counts as cut off.
const CUT: usize = 4 << 20;

/// The shortest value in bytes that is masked. Shorter ones occur in every text.
const SHORTEST: usize = 4;

/// The shortest line or word of a value in bytes that is masked by itself.
const LINE: usize = 8;

/// The text that replaces a value.
const MASK: &[u8] = b"***";

/// Variables that a command must not get. With them it would report to the supervisor of its
/// instance, or use the sockets of the instance.
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

/// The first letters of more such names.
const DROPPED_FAMILIES: &[&str] = &[
    "WATCHDOG_",
    "LISTEN_",
    "HAPROXY_MWORKER",
    "EINHORN_FD",
    "PUMA_INHERIT_",
];

/// Variables whose values differ at every start of a process and do not affect its config.
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

/// Variables whose values are not secret and occur in many messages.
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

/// Names and values in their order.
pub(super) type Variables = Vec<(OsString, OsString)>;

/// Returns the variables in the bytes of `/proc/PID/environ`.
///
/// None if any part is not a variable: then the process wrote a title over it, of which a part may
/// look like a variable.
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
    let end = entry.iter().position(|b| *b == b'=')?;
    let name = &entry[..end];
    let value = &entry[end + 1..];
    // Bash functions, containers and build systems use more letters than POSIX allows.
    let is_name = |b: &u8| b.is_ascii_alphanumeric() || b"_%()-.".contains(b);
    let is_variable = !name.is_empty() && name.iter().all(is_name) && !name[0].is_ascii_digit();
    is_variable.then(|| {
        (
            OsString::from_vec(name.to_vec()),
            OsString::from_vec(value.to_vec()),
        )
    })
}

/// Returns the variables that a command gets: without those of the instance alone, and with a
/// `PATH`.
pub(super) fn passed_on(mut variables: Variables, path: &str) -> Variables {
    let is_dropped = |name: &OsStr| {
        let name = name.to_string_lossy();
        DROPPED.contains(&&*name)
            || DROPPED_FAMILIES
                .iter()
                .any(|family| name.starts_with(family))
    };
    variables.retain(|(name, _)| !is_dropped(name));
    if variables.iter().all(|(name, _)| name != "PATH") {
        variables.push(("PATH".into(), path.into()));
    }
    variables
}

/// Returns the variables of a process; none if its environment cannot be read or parsed.
fn variables_of(pid: i32) -> Option<Variables> {
    let raw = Proc::open(pid).and_then(|process| process.read("environ"));
    parse(&raw.ok()?)
}

/// Returns the values of a process's environment to mask; none if it cannot be read or parsed.
pub(crate) fn of(pid: i32) -> Option<Environment> {
    variables_of(pid).map(Environment::of)
}

/// Returns the variable `name` of a process, which may not exist; none if the environment is not
/// known.
pub(crate) fn variable(pid: i32, name: &str) -> Option<Option<OsString>> {
    let found = variables_of(pid)?
        .into_iter()
        .find(|(known, _)| known == name);
    Some(found.map(|(_, value)| value))
}

/// Returns the variables of a process that are UTF-8; empty if the environment is not known.
pub(crate) fn variables(pid: i32) -> Vec<(String, String)> {
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let variables = variables_of(pid).unwrap_or_default();
    variables.into_iter().filter_map(text).collect()
}

/// Returns the digest of the variables that a command gets of a process, without those that differ
/// at every start. Empty if the environment is not known.
pub(crate) fn identity(pid: i32) -> String {
    variables_of(pid).map_or_else(String::new, identity_of)
}

fn identity_of(variables: Variables) -> String {
    let mut variables = passed_on(variables, "");
    variables.retain(|(name, _)| !OF_ONE_START.iter().any(|ignored| name == *ignored));
    variables.sort();
    let lines = variables
        .iter()
        .flat_map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes(), b"\0"]);
    digest(&lines.collect::<Vec<_>>().concat())
}

/// Adds the parts of a value that may be secret by themselves to `secrets`: words, values assigned
/// in them, and the user, password and query of a URL. Paths and options are not secret.
fn add_secret_parts(value: &str, secrets: &mut Vec<Vec<u8>>) {
    let mut add = |part: &str, shortest: usize| {
        if part.len() >= shortest && !part.starts_with(['/', '-', '.']) {
            secrets.push(part.as_bytes().to_vec());
            secrets.extend(unescaped(part));
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

/// Returns a part of a URL without its escapes; none if it has none.
fn unescaped(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
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

/// The values of an environment that must not be printed, the longest first.
#[derive(Debug)]
pub(crate) struct Environment(Vec<Vec<u8>>);

impl Environment {
    fn of(variables: Variables) -> Self {
        let is_plain = |name: &OsStr| {
            PLAIN.iter().any(|plain| name == *plain)
                || name.as_bytes().starts_with(b"LC_")
                || name.as_bytes().starts_with(b"XDG_")
        };
        let mut values = Vec::new();
        for (_, value) in variables.into_iter().filter(|(name, _)| !is_plain(name)) {
            let value = value.into_vec();
            // A command may print a long value line by line, or a part of it.
            values.extend(
                value
                    .split(|b| *b == b'\n')
                    .filter(|line| line.len() >= LINE)
                    .map(<[u8]>::to_vec),
            );
            add_secret_parts(&String::from_utf8_lossy(&value), &mut values);
            values.push(value);
        }
        values.retain(|value| value.len() >= SHORTEST);
        values.sort_unstable_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        values.dedup();
        Self(values)
    }

    /// Removes values that are equal to one of these public texts, or to the part of one after its
    /// `=`: arguments, and paths of configs.
    pub(crate) fn without<'a>(mut self, shown: impl Iterator<Item = &'a [u8]> + Clone) -> Self {
        let assigned = |text: &'a [u8]| text.split(|b| *b == b'=').nth(1);
        let is_shown =
            |text: &'a [u8], value: &[u8]| text == value || assigned(text) == Some(value);
        self.0
            .retain(|value| !shown.clone().any(|text| is_shown(text, value)));
        self
    }

    /// Replaces every value in `text` by [`MASK`].
    pub(crate) fn mask(&self, text: &mut Vec<u8>) {
        let mut masked = Vec::with_capacity(text.len());
        let mut position = 0;
        while position < text.len() {
            let rest = &text[position..];
            match self.0.iter().find(|value| rest.starts_with(value)) {
                Some(value) => {
                    masked.extend_from_slice(MASK);
                    position += value.len();
                }
                None => {
                    masked.push(text[position]);
                    position += 1;
                }
            }
        }
        *text = masked;
    }
}

#[cfg(test)]
mod tests;
