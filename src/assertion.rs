//! Assertions that prove a config: the source of an answer, the part of it that is read, and the
//! value that this part must have.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use self::{
    candidate::{fill, fill_escaped},
    moment::parse_moment,
    workers::replaced,
};
use crate::refusal::Refusal;

mod access;
mod alternatives;
mod candidate;
mod directives;
mod log;
mod metric;
mod moment;
mod pattern;
mod raw;
mod unmet;
mod workers;

pub(crate) use self::{
    access::Access,
    alternatives::{each_entry, entries, entry_of},
    candidate::{NoKeyValue, Unresolved, value_in},
    directives::{expanded, values},
    log::{Log, config_key, without_config_keys},
    metric::metric,
    moment::why_no_moment,
    pattern::Pattern,
    unmet::{Showing, shown},
    workers::{KEPT, LISTENS, is_kept, listens, old_workers, worker_name},
};
pub(crate) use self::{
    access::{password_in, without_passwords},
    raw::{RawAssertion, names_a_user},
};

/// One entry of `[[group.confirm]]` or `[[group.reject]]`, or one alternative of such an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assertion {
    /// The source of the answer.
    pub source: Source,
    /// The part of the answer that is read.
    pub read: Extract,
    /// The value that this part must have.
    pub expectation: Expectation,
    /// The number of the entry that it is an alternative of; none if it is an entry of its own. The
    /// alternatives of an entry follow one another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub any: Option<u16>,
}

/// The source of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// The instance's endpoint, over HTTP or HTTPS.
    Http(HttpRequest),
    /// A command, run as the instance's user; its argv has placeholders.
    Exec(Vec<String>),
    /// The kernel: the instance's children, and which of them hold a listening socket.
    Workers,
    /// The kernel: the listening sockets that the instance itself holds.
    Listener,
    /// The kernel: the instance's children of this name.
    Children(String),
    /// The first line that a server sends on a new connection to this address, which has
    /// placeholders.
    Tcp(String),
    /// The lines that were written to this log since the signal.
    Log(Log),
}

/// One HTTP request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpRequest {
    /// `http://` or `https://`, with `{listen}` for the instance's own address.
    pub url: String,
    /// The value of the `Host` header and the name that the certificate must have. Default: the
    /// URL's host.
    pub host: Option<String>,
    /// Certificates in PEM that are trusted instead of the system's.
    pub ca: Option<PathBuf>,
    /// True if any certificate is accepted.
    pub insecure: bool,
    /// The only status whose answer counts. Default: every success (2xx).
    #[serde(default)]
    pub status: Option<u16>,
    /// The credentials that it sends.
    #[serde(default)]
    pub access: Access,
}

impl HttpRequest {
    /// Tells whether it uses TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.url.starts_with("https://")
    }
}

/// The longest part of a command that a message shows, in characters. A query may be as long as a
/// page.
const SHOWN: usize = 60;

/// Stands for the pid of the instance in what a line of a log must have.
const PID: &str = "{pid}";

impl Source {
    /// Tells whether the request sends a user, a password or a token, which an answer may repeat.
    #[must_use]
    pub fn shows_credentials(&self) -> bool {
        match self {
            Self::Http(request) => {
                request.access.auth_file.is_some() || request.access.bearer_file.is_some()
            }
            Self::Exec(_)
            | Self::Workers
            | Self::Listener
            | Self::Children(_)
            | Self::Tcp(_)
            | Self::Log(_) => false,
        }
    }

    /// Tells whether the instance's own endpoint must be known to probe it.
    #[must_use]
    pub fn uses_listen(&self) -> bool {
        match self {
            Self::Http(request) => request.url.contains("{listen"),
            Self::Exec(argv) => argv.iter().any(|arg| arg.contains("{listen")),
            Self::Tcp(address) | Self::Log(Log::File(address)) => address.contains("{listen"),
            Self::Workers | Self::Listener | Self::Children(_) | Self::Log(_) => false,
        }
    }

    /// Tells whether its answer is one of the instance's own HTTP endpoint.
    #[must_use]
    pub fn asks_own_endpoint(&self) -> bool {
        matches!(self, Self::Http(_)) && self.uses_listen()
    }

    /// Returns its URL if any certificate is accepted.
    #[must_use]
    pub fn unchecked(&self) -> Option<&str> {
        match self {
            Self::Http(request) if request.insecure => Some(&request.url),
            _ => None,
        }
    }

    /// Tells whether the kernel answers, which needs no connection.
    #[must_use]
    pub fn is_kernel(&self) -> bool {
        matches!(self, Self::Workers | Self::Listener | Self::Children(_))
    }

    /// Tells whether it is a log, of which only the lines since the signal are read.
    #[must_use]
    pub fn is_log(&self) -> bool {
        matches!(self, Self::Log(_))
    }

    /// Tells whether no other process can give its answer, so that one reading is enough.
    #[must_use]
    pub fn is_read_once(&self) -> bool {
        self.is_kernel() || self.is_log()
    }

    /// Describes the source in a message; `endpoint` is the instance's own.
    #[must_use]
    pub fn describe(&self, endpoint: &str) -> String {
        match self {
            Self::Http(request) => request.url.replace("{listen}", address_of(endpoint)),
            Self::Exec(argv) => {
                let command = argv.join(" ").replace(['\n', '\r'], " ");
                let end = command.char_indices().nth(SHOWN).map(|(index, _)| index);
                end.map_or_else(
                    || format!("`{command}`"),
                    |end| format!("`{} ..`", command[..end].trim_end()),
                )
            }
            Self::Workers => "its workers".into(),
            Self::Listener => "its listening socket".into(),
            Self::Children(name) => format!("its children `{name}`"),
            Self::Tcp(address) => format!(
                "the first line of {}",
                address.replace("{listen}", address_of(endpoint))
            ),
            Self::Log(log) => log.describe(),
        }
    }
}

/// Returns an endpoint's address without its scheme: `HOST:PORT`, or `unix:PATH`.
#[must_use]
pub(crate) fn address_of(endpoint: &str) -> &str {
    endpoint
        .split_once("://")
        .map_or(endpoint, |(_, rest)| rest)
        .trim_end_matches('/')
}

/// The part of an answer that is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Extract {
    /// The body, or the whole reading of the kernel.
    Body,
    /// The output of a command, without the last line end.
    Stdout,
    /// A command's exit code.
    Exit,
    /// The status code.
    Status,
    /// A header's value.
    Header(String),
    /// A value of a JSON body, by pointer (RFC 6901).
    Json(String),
    /// The first sample of this name with these labels in a body of Prometheus' text format.
    Metric(String, Vec<(String, String)>),
    /// The text of the one group of a regular expression, in such a part.
    Group(Box<Self>, Pattern),
}

/// The value that a reading must have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expectation {
    /// Exactly this text. `{candidate.KEY}` stands for a key of the new config, and
    /// `{candidate.sha256}` for its digest.
    Equals(String),
    /// A text that contains this one.
    Contains(String),
    /// A text that this regular expression fits a part of.
    Matches(Pattern),
    /// Another text than before the signal; on a rollback, the text from before the run.
    Changed,
    /// A greater number than before the signal.
    Increased,
    /// A smaller number than before the signal.
    Decreased,
    /// A moment (Unix seconds, or RFC 3339) not before the signal, in the precision of the text.
    /// It must also be later than before the signal, because whole seconds are imprecise.
    AfterSignal,
    /// No worker or socket from before the signal is left to serve, and a new one is there.
    Replaced,
}

impl Assertion {
    /// Returns the assertion with every `{candidate.KEY}` replaced by the value in `candidate`.
    ///
    /// # Errors
    /// Fails if the candidate is not one file (none), is neither TOML, JSON nor YAML, or has no
    /// such key.
    pub(crate) fn resolved(&self, candidate: Option<&[u8]>) -> Result<Self, Refusal<Unresolved>> {
        let expectation = match &self.expectation {
            Expectation::Equals(text) => Expectation::Equals(fill(text, candidate)?),
            Expectation::Contains(text) => Expectation::Contains(fill(text, candidate)?),
            Expectation::Matches(pattern) => {
                let text = fill_escaped(pattern.text(), candidate)?;
                Expectation::Matches(text.into())
            }
            other => other.clone(),
        };
        Ok(Self {
            expectation,
            ..self.clone()
        })
    }

    /// Returns the assertion with `{pid}` replaced in what a line of a log must have.
    pub(crate) fn of_process(mut self, pid: i32) -> Self {
        if self.source.is_log() {
            let filled = |text: &str| text.replace(PID, &pid.to_string());
            self.expectation = match &self.expectation {
                Expectation::Equals(text) => Expectation::Equals(filled(text)),
                Expectation::Contains(text) => Expectation::Contains(filled(text)),
                Expectation::Matches(pattern) => {
                    Expectation::Matches(filled(pattern.text()).into())
                }
                other => other.clone(),
            };
        }
        self
    }

    /// Tells whether it accepts a line of a log that another process may have written.
    pub(crate) fn fits_any_process(&self) -> bool {
        let text = match &self.expectation {
            Expectation::Equals(text) | Expectation::Contains(text) => text,
            Expectation::Matches(pattern) => pattern.text(),
            _ => return false,
        };
        self.source.is_log() && !text.contains(PID)
    }

    /// Tells whether the reading `now` is as expected; `before` is the reading from before the
    /// signal.
    #[must_use]
    pub fn holds(&self, now: &str, before: Option<&str>, signalled: jiff::Timestamp) -> bool {
        let number = |text: &str| text.trim().parse::<f64>().ok();
        match &self.expectation {
            Expectation::Equals(text) => now == text,
            Expectation::Contains(text) => now.contains(text),
            Expectation::Matches(pattern) => pattern.fits(now),
            Expectation::Changed => before.is_some_and(|b| b != now),
            Expectation::AfterSignal => parse_moment(now).is_some_and(|(stamp, units)| {
                // Many programs read the kernel's coarse clock, which is behind by up to a tick
                // (10 ms). The comparison with the reading from before is the stronger proof.
                let behind = if before.is_some() { 0.01 } else { 0.0 };
                let sent = signalled.as_duration().as_secs_f64() - behind;
                // A text in whole units was rounded down, so the signal's moment is rounded
                // likewise.
                stamp >= (sent * units).floor() / units
                    && before
                        .and_then(parse_moment)
                        .is_none_or(|(before, _)| stamp > before)
            }),
            Expectation::Replaced => before.is_some_and(|before| replaced(before, now)),
            Expectation::Increased => before
                .and_then(number)
                .zip(number(now))
                .is_some_and(|(b, n)| n > b),
            Expectation::Decreased => before
                .and_then(number)
                .zip(number(now))
                .is_some_and(|(b, n)| n < b),
        }
    }

    /// Tells whether the reading `now` is as expected without a baseline and without a signal.
    #[must_use]
    pub fn holds_alone(&self, now: &str) -> bool {
        self.holds(now, None, jiff::Timestamp::UNIX_EPOCH)
    }

    /// Returns the reading that this assertion may use: none if it is empty and would be compared
    /// with another reading. A program that prints nothing when it fails would show a change.
    #[must_use]
    pub fn reported_by(&self, reading: Option<String>) -> Option<String> {
        reading.filter(|text| !self.needs_baseline() || !text.trim().is_empty())
    }

    /// Tells whether the reading must not change without a signal: a clock or a counter of requests
    /// would prove every reload.
    #[must_use]
    pub fn must_be_steady(&self) -> bool {
        self.needs_baseline() && !self.source.is_kernel()
    }

    /// Returns the moment of a reading for `after_signal`, in seconds since 1970, if the text has
    /// whole seconds.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a stamp beyond 64 bits of seconds is saturated, and far ahead"
    )]
    pub fn whole_second(&self, reading: &str) -> Option<i64> {
        let (stamp, units) =
            parse_moment(reading).filter(|_| self.expectation == Expectation::AfterSignal)?;
        (units <= 1.0).then_some(stamp as i64)
    }

    /// Tells whether it shows each end of a reload: every later reload makes it hold anew.
    #[must_use]
    pub fn shows_every_end(&self) -> bool {
        self.source.is_log()
            || matches!(
                self.expectation,
                Expectation::Increased | Expectation::Decreased | Expectation::AfterSignal
            )
    }

    /// Tells whether the present reading shows neither the config nor the last reload: it is
    /// compared with one from before a signal, or speaks only of what came after one.
    #[must_use]
    pub fn needs_signal(&self) -> bool {
        self.needs_baseline() || self.source.is_log()
    }

    /// Tells whether the reading is compared with one from before the signal.
    #[must_use]
    pub fn needs_baseline(&self) -> bool {
        matches!(
            self.expectation,
            Expectation::Changed
                | Expectation::Increased
                | Expectation::Decreased
                | Expectation::AfterSignal
                | Expectation::Replaced
        )
    }
}

#[cfg(test)]
mod tests;
