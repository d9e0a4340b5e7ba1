//! Facts that prove a config: where an instance is asked, what is read of the answer, and what it
//! must be.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

mod access;
mod candidate;
mod raw;
mod unmet;

pub use self::access::Access;
use self::candidate::fill;
pub use self::unmet::{Showing, shown};
pub(crate) use self::{
    access::{password_in, without_passwords},
    raw::{RawAssertion, RawAssertionError, names_a_user},
};

/// One entry of `[[group.confirm]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assertion {
    /// Where the answer comes from.
    pub source: Source,
    /// What is read of the answer.
    pub read: Extract,
    /// What it must be.
    pub expectation: Expectation,
}

/// Where an answer comes from.
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
}

/// One request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpRequest {
    /// `http://` or `https://`, with `{listen}` for the instance's own address.
    pub url: String,
    /// Sent as `Host`, and asked for as the certificate's name; else the URL's own.
    pub host: Option<String>,
    /// Certificates in PEM that are trusted instead of the system's.
    pub ca: Option<PathBuf>,
    /// Whether any certificate is taken.
    pub insecure: bool,
    /// The only status whose answer counts; else every success (2xx).
    #[serde(default)]
    pub status: Option<u16>,
    /// What it shows.
    #[serde(default)]
    pub access: Access,
}

impl HttpRequest {
    /// Whether it speaks TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.url.starts_with("https://")
    }
}

/// So many letters of a command are shown.
const SHOWN: usize = 60;

impl Source {
    /// Whether it is asked with a user, a password or a token, which an answer may repeat.
    #[must_use]
    pub fn shows_credentials(&self) -> bool {
        match self {
            Self::Http(ask) => ask.access.auth_file.is_some() || ask.access.bearer_file.is_some(),
            Self::Exec(_) | Self::Workers | Self::Listener => false,
        }
    }

    /// Whether the instance's own endpoint must be known to ask it.
    #[must_use]
    pub fn uses_listen(&self) -> bool {
        match self {
            Self::Http(ask) => ask.url.contains("{listen"),
            Self::Exec(argv) => argv.iter().any(|arg| arg.contains("{listen")),
            Self::Workers | Self::Listener => false,
        }
    }

    /// Its URL, where any certificate is taken.
    #[must_use]
    pub fn unchecked(&self) -> Option<&str> {
        match self {
            Self::Http(ask) if ask.insecure => Some(&ask.url),
            _ => None,
        }
    }

    /// Whether the kernel answers, which needs no connection.
    #[must_use]
    pub fn is_kernel(&self) -> bool {
        matches!(self, Self::Workers | Self::Listener)
    }

    /// As people read it; `endpoint` is the instance's own.
    #[must_use]
    pub fn describe(&self, endpoint: &str) -> String {
        match self {
            Self::Http(ask) => ask.url.replace("{listen}", address_of(endpoint)),
            Self::Exec(argv) => {
                let all = argv.join(" ").replace(['\n', '\r'], " ");
                // A query may be as long as a page.
                let end = all.char_indices().nth(SHOWN).map(|(at, _)| at);
                end.map_or_else(
                    || format!("`{all}`"),
                    |end| format!("`{} ..`", all[..end].trim_end()),
                )
            }
            Self::Workers => "its workers".into(),
            Self::Listener => "its listening socket".into(),
        }
    }
}

/// An endpoint's address without its scheme: `HOST:PORT`, or `unix:PATH`.
#[must_use]
pub fn address_of(endpoint: &str) -> &str {
    endpoint
        .split_once("://")
        .map_or(endpoint, |(_, rest)| rest)
        .trim_end_matches('/')
}

/// What is read of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Extract {
    /// All of it: the body, or what the kernel says.
    Body,
    /// What a command printed, without the last line end.
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
}

/// What a reading must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expectation {
    /// Exactly this text; `{candidate.KEY}` stands for a key of the new config, and
    /// `{candidate.sha256}` for its digest.
    Equals(String),
    /// This text somewhere in it.
    Contains(String),
    /// Another text than before the signal; on the way back, the text from before the way forth.
    Changed,
    /// A greater number than before the signal.
    Increased,
    /// A moment (Unix seconds, or RFC 3339) not before the signal, as finely as it is told; and
    /// later than before, so that one of whole seconds counts.
    AfterSignal,
    /// Nothing of what was there before the signal is left to serve, and something new is there.
    Replaced,
}

impl Assertion {
    /// The fact with every `{candidate.KEY}` filled in from `candidate`.
    ///
    /// # Errors
    /// When the candidate is not one file (none), is neither TOML, JSON nor YAML, or has no such
    /// key.
    pub fn resolved(&self, candidate: Option<&[u8]>) -> Result<Self, String> {
        let wants = match &self.expectation {
            Expectation::Equals(text) => Expectation::Equals(fill(text, candidate)?),
            Expectation::Contains(text) => Expectation::Contains(fill(text, candidate)?),
            other => other.clone(),
        };
        Ok(Self {
            expectation: wants,
            ..self.clone()
        })
    }

    /// Whether `now` is what is wanted, `before` being the reading from before the signal.
    #[must_use]
    pub fn holds(&self, now: &str, before: Option<&str>, signalled: jiff::Timestamp) -> bool {
        let number = |text: &str| text.trim().parse::<f64>().ok();
        match &self.expectation {
            Expectation::Equals(text) => now == text,
            Expectation::Contains(text) => now.contains(text),
            Expectation::Changed => before.is_some_and(|b| b != now),
            Expectation::AfterSignal => parse_moment(now).is_some_and(|(stamp, units)| {
                // The kernel's coarse clock, which many programs read, is behind by up to a tick.
                // Being later than before is the stronger proof.
                let behind = if before.is_some() { 0.01 } else { 0.0 };
                let sent = signalled.as_duration().as_secs_f64() - behind;
                // Told in whole units, a moment is cut off: the signal's is cut off likewise.
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
        }
    }

    /// Whether the assertion holds of `now` alone: it is compared neither with a reading from
    /// before nor with the moment of a signal.
    #[must_use]
    pub fn holds_alone(&self, now: &str) -> bool {
        self.holds(now, None, jiff::Timestamp::UNIX_EPOCH)
    }

    /// What `reading` tells this assertion: nothing, where it is empty and the assertion asks for a
    /// difference. A program that prints nothing when it fails would tell one.
    #[must_use]
    pub fn reported_by(&self, reading: Option<String>) -> Option<String> {
        reading.filter(|text| !self.needs_baseline() || !text.trim().is_empty())
    }

    /// Whether the reading may not change by itself, without a signal: a clock or a counter of
    /// requests would prove every reload.
    #[must_use]
    pub fn must_be_steady(&self) -> bool {
        self.needs_baseline() && !self.source.is_kernel()
    }

    /// The stamp that `reading` is for an `after_signal`, in seconds since 1970, if it tells whole
    /// seconds.
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

    /// Whether the fact compares with a reading from before the signal.
    #[must_use]
    pub fn needs_baseline(&self) -> bool {
        matches!(
            self.expectation,
            Expectation::Changed
                | Expectation::Increased
                | Expectation::AfterSignal
                | Expectation::Replaced
        )
    }
}

/// Whether of two readings of the kernel (one name a line, ` listens` behind one that may still be
/// asked) the later has something new, which listens if something old did, and nothing old that
/// listens, but what is ` kept`. Where nothing old listened, nothing old may be left: any child
/// that the process starts for another purpose is new as well.
fn replaced(before: &str, now: &str) -> bool {
    let listens = |line: &str| line.ends_with(" listens");
    let is_old = |line: &str| {
        before
            .lines()
            .any(|old| worker_name(old) == worker_name(line))
    };
    let is_kept = |line: &str| {
        before
            .lines()
            .any(|old| worker_name(old) == worker_name(line) && old.contains(KEPT))
    };
    let listened = before.lines().any(listens);
    let serves = |line: &str| !is_old(line) && (listens(line) || !listened);
    let remains = |line: &str| is_old(line) && !is_kept(line) && (listens(line) || !listened);
    // Without anything old there is nothing that could be replaced.
    !before.is_empty() && now.lines().any(serves) && !now.lines().any(remains)
}

/// Of whom a line of a reading of the kernel speaks.
#[must_use]
pub fn worker_name(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

/// Behind the name of who need not be replaced: it was there before the new config was, and runs
/// the old one.
pub const KEPT: &str = " kept";

/// Of a reading of the kernel, those of `before` that still listen though something new does.
#[must_use]
pub fn old_workers(before: &str, now: &str) -> Vec<String> {
    let listening = || now.lines().filter(|line| line.ends_with(" listens"));
    let old = |line: &&str| {
        before
            .lines()
            .any(|old| worker_name(old) == worker_name(line) && !old.contains(KEPT))
    };
    let old_workers: Vec<String> = listening()
        .filter(old)
        .map(|line| worker_name(line).to_owned())
        .collect();
    if old_workers.len() == listening().count() {
        Vec::new()
    } else {
        old_workers
    }
}

/// Seconds since 1970, and in how many parts of one they are told: 1 where they are whole, 1000
/// with three digits behind the point.
fn parse_moment(text: &str) -> Option<(f64, f64)> {
    let text = text.trim();
    let seconds = match text.parse::<f64>() {
        Ok(seconds) => seconds,
        Err(_) => text
            .parse::<jiff::Timestamp>()
            .ok()?
            .as_duration()
            .as_secs_f64(),
    };
    let behind = text.split_once('.').map_or(0, |(_, rest)| {
        rest.chars().take_while(char::is_ascii_digit).count()
    });
    // `1.7e9` is a whole number for all its digits behind the point.
    let exponent = text
        .split_once(['e', 'E'])
        .and_then(|(_, rest)| rest.parse().ok())
        .unwrap_or(0);
    let digits = i32::try_from(behind)
        .unwrap_or(i32::MAX)
        .saturating_sub(exponent)
        .clamp(0, 6);
    Some((seconds, 10_f64.powi(digits)))
}

/// How far ahead of this clock a stamp may be that a program of this host gives, in seconds.
const CLOCKS_DIFFER: f64 = 60.0;

/// Why `reading` can never be a moment after a signal: it is none, or lies in the future already.
#[must_use]
pub fn why_no_moment(reading: &str) -> Option<&'static str> {
    let now = jiff::Timestamp::now().as_duration().as_secs_f64();
    match parse_moment(reading) {
        // A word for a reload that never was: the first one brings a moment.
        None if !reading.contains(|c: char| c.is_ascii_digit()) => None,
        None => Some("does not read as a number of seconds or an ISO 8601 date"),
        Some((stamp, _)) if stamp > now + CLOCKS_DIFFER => Some("reads as a moment in the future"),
        Some(_) => None,
    }
}

/// `NAME` or `NAME{label="value",..}`, with what is left behind it dropped.
fn sample_name(text: &str) -> Option<(String, Vec<(String, String)>)> {
    let end = text
        .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | ':')))
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    let mut labels = Vec::new();
    let Some(mut rest) = rest.strip_prefix('{') else {
        return (!name.is_empty()).then(|| (name.to_owned(), labels));
    };
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if rest.starts_with('}') {
            return (!name.is_empty()).then(|| (name.to_owned(), labels));
        }
        let (label, tail) = rest.split_once("=\"")?;
        let (mut value, mut chars) = (String::new(), tail.char_indices());
        loop {
            match chars.next()? {
                (at, '"') => {
                    rest = &tail[at + 1..];
                    break;
                }
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        }
        labels.push((label.trim().to_owned(), value));
    }
}

/// The value of the first sample of `name` that has all of `labels`, in a body of Prometheus' text
/// format.
#[must_use]
pub fn metric(body: &str, name: &str, labels: &[(String, String)]) -> Option<String> {
    body.lines()
        .filter(|line| line.starts_with(name))
        .find_map(|line| {
            let (found, has) = sample_name(line)?;
            if found != name || !labels.iter().all(|l| has.contains(l)) {
                return None;
            }
            // A brace inside a label's value is followed by a quote; the one that ends the labels
            // is followed by the value.
            let values = if line[name.len()..].starts_with('{') {
                &line[line.rfind('}')? + 1..]
            } else {
                &line[name.len()..]
            };
            values.split_whitespace().next().map(str::to_owned)
        })
}

#[cfg(test)]
mod tests;
