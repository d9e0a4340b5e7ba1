//! Assertions as `fleet.toml` has them.

use std::{ops::Range, path::PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;

pub(crate) use super::access::names_a_user;
use super::{
    Access, Assertion, Expectation, Extract, HttpRequest, Log, PID, Pattern, Source,
    candidate::template_fault, metric::sample_name,
};

const ONE_SOURCE: &str = "set exactly one of http, exec, log, tcp, children, workers = true, \
                          listener = true";
const WHAT_IS_REPLACED: &str = "replaced goes with workers, listener and children, and these with \
                                nothing else";

/// An [`Assertion`] as `fleet.toml` has it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Assertion")]
pub(crate) struct RawAssertion {
    /// Assertions of which one must hold, at least two; each has keys of its own.
    #[schemars(with = "Option<Vec<RawAssertion>>")]
    pub(super) any: Option<Spanned<Vec<Spanned<Self>>>>,
    /// Source: a GET request of this URL; `{listen}` is the address of the instance.
    #[schemars(with = "Option<String>")]
    http: Option<Spanned<String>>,
    /// Sent as `Host`, and the name that the certificate must have.
    host: Option<String>,
    /// PEM certificates that are trusted instead of those of the system.
    ca: Option<PathBuf>,
    /// True to accept any certificate.
    #[serde(default)]
    insecure: bool,
    /// The only status whose answer counts. Default: every 2xx.
    #[schemars(range(min = 200, max = 599))]
    status: Option<u16>,
    /// Holds `USER:PASSWORD`.
    auth_file: Option<PathBuf>,
    /// Holds a token.
    bearer_file: Option<PathBuf>,
    /// The PEM certificate that the client shows over https.
    client_cert: Option<PathBuf>,
    /// The private key of `client_cert`.
    client_key: Option<PathBuf>,
    /// Source: a command, run as the user of the instance, without a shell.
    exec: Option<Vec<String>>,
    /// Source: the worker processes, from the kernel; goes with `replaced`.
    #[serde(default)]
    workers: bool,
    /// Source: the listening sockets of the process, from the kernel; where it has none, those of
    /// its children. Goes with `replaced`.
    #[serde(default)]
    listener: bool,
    /// Source: the children of this name, from the kernel; goes with `replaced`.
    #[schemars(with = "Option<String>")]
    children: Option<Spanned<String>>,
    /// Source: the first line that a server sends, such as at `{listen}`.
    #[schemars(with = "Option<String>")]
    tcp: Option<Spanned<String>>,
    /// Source: the lines of this log since the signal: a path, `journal` or `syslog:IDENTIFIER`.
    #[schemars(with = "Option<String>")]
    log: Option<Spanned<String>>,
    /// What is read: `body`, `status`, `header:NAME`, `json:/POINTER`, `metric:NAME`, `stdout`,
    /// `exit`.
    #[schemars(with = "Option<String>")]
    read: Option<Spanned<String>>,
    /// A regular expression with one group, whose text in what is read is the reading.
    #[schemars(with = "Option<String>")]
    regex: Option<Spanned<String>>,
    /// The reading is exactly this; `{candidate.KEY}` is a key of the new config.
    #[schemars(with = "Option<String>")]
    equals: Option<Spanned<String>>,
    /// The reading contains this.
    #[schemars(with = "Option<String>")]
    contains: Option<Spanned<String>>,
    /// The reading has a part that this regular expression fits.
    #[schemars(with = "Option<String>")]
    matches: Option<Spanned<String>>,
    /// The reading is another than before the signal.
    #[serde(default)]
    changed: bool,
    /// The reading is a greater number than before the signal.
    #[serde(default)]
    increased: bool,
    /// The reading is a smaller number than before the signal.
    #[serde(default)]
    decreased: bool,
    /// The reading is a moment not before the signal.
    #[serde(default)]
    after_signal: bool,
    /// The workers, or the sockets, are others than before.
    #[serde(default)]
    replaced: bool,
}

impl RawAssertion {
    /// Tells whether it has keys of its own beside `any`.
    pub(super) fn names_anything(&self) -> bool {
        let texts = [
            &self.http,
            &self.children,
            &self.tcp,
            &self.log,
            &self.read,
            &self.regex,
            &self.equals,
            &self.contains,
            &self.matches,
        ];
        let paths = [
            &self.ca,
            &self.auth_file,
            &self.bearer_file,
            &self.client_cert,
            &self.client_key,
        ];
        let flags = [
            self.insecure,
            self.workers,
            self.listener,
            self.changed,
            self.increased,
            self.decreased,
            self.after_signal,
            self.replaced,
        ];
        texts.into_iter().any(Option::is_some)
            || paths.into_iter().any(Option::is_some)
            || flags.contains(&true)
            || self.host.is_some()
            || self.status.is_some()
            || self.exec.is_some()
    }

    /// Returns the span of its URL.
    pub(crate) fn url_span(&self) -> Option<Range<usize>> {
        self.http.as_ref().map(Spanned::span)
    }

    /// Takes the log that it names.
    fn log(&mut self) -> Result<Option<Log>, RawAssertionError> {
        let Some(text) = self.log.take() else {
            return Ok(None);
        };
        Log::parse(text.get_ref())
            .map(Some)
            .map_err(|why| RawAssertionError {
                at: Some(text.span()),
                ..why.to_string().into()
            })
    }

    fn source(&mut self, log: Option<Log>) -> Result<Source, String> {
        let tls = self.ca.is_some() || self.insecure;
        let access = Access {
            auth_file: self.auth_file.take(),
            bearer_file: self.bearer_file.take(),
            client_cert: self.client_cert.take(),
            client_key: self.client_key.take(),
        };
        let has_http_keys = !access.is_empty() || self.status.is_some();
        let (host, ca) = (&mut self.host, &mut self.ca);
        let http = self.http.take().map(|url| {
            let url = url.into_inner();
            let (host, ca) = (host.take(), ca.take());
            Source::Http(HttpRequest {
                url,
                host,
                ca,
                insecure: self.insecure,
                status: self.status,
                access,
            })
        });
        let other = [
            self.exec.take().map(Source::Exec),
            self.workers.then_some(Source::Workers),
            self.listener.then_some(Source::Listener),
            self.children
                .take()
                .map(|name| Source::Children(name.into_inner())),
            self.tcp
                .take()
                .map(|address| Source::Tcp(address.into_inner())),
            log.map(Source::Log),
        ];
        let mut sources = http.into_iter().chain(other.into_iter().flatten());
        let (Some(source), None) = (sources.next(), sources.next()) else {
            return Err(ONE_SOURCE.into());
        };
        match &source {
            // The message does not repeat the URL: messages are printed and stored.
            Source::Http(request) if names_a_user(&request.url) => {
                Err("a URL here names no user and no password; use `auth_file = PATH`".into())
            }
            Source::Http(request) => http_fault(request, tls).map_or(Ok(source), Err),
            Source::Exec(argv) if argv.is_empty() => Err("exec is empty".into()),
            Source::Children(name) if name.is_empty() => Err("children names no program".into()),
            Source::Tcp(address) if address.is_empty() || address.contains("://") => {
                Err("tcp is {listen}, HOST:PORT or unix:/PATH".into())
            }
            _ if tls || has_http_keys || self.host.is_some() => {
                Err("host, ca, insecure, status and credentials go with http".into())
            }
            _ => Ok(source),
        }
    }
}

impl RawAssertion {
    fn expectation(self) -> Result<Expectation, &'static str> {
        let expectations = [
            self.equals
                .map(|text| Expectation::Equals(text.into_inner())),
            self.contains
                .map(|text| Expectation::Contains(text.into_inner())),
            self.matches
                .map(|text| Expectation::Matches(text.into_inner().into())),
            self.changed.then_some(Expectation::Changed),
            self.increased.then_some(Expectation::Increased),
            self.decreased.then_some(Expectation::Decreased),
            self.after_signal.then_some(Expectation::AfterSignal),
            self.replaced.then_some(Expectation::Replaced),
        ];
        let mut set = expectations.into_iter().flatten();
        match (set.next(), set.next()) {
            (Some(expectation), None) => Ok(expectation),
            _ => Err(
                "set exactly one of equals, contains, matches, changed = true, increased = true, \
                 decreased = true, after_signal = true, replaced = true",
            ),
        }
    }
}

/// Returns a sentence about what is wrong with a request; `tls` is whether it sets `ca` or
/// `insecure`.
fn http_fault(request: &HttpRequest, tls: bool) -> Option<String> {
    if !request.is_https() && !request.url.starts_with("http://") {
        return Some("a URL here does not begin with http:// or https://".into());
    }
    if tls && !request.is_https() {
        return Some("ca and insecure are for https".into());
    }
    if let Some(status) = request
        .status
        .filter(|status| !(200..=599).contains(status))
    {
        return Some(format!(
            "status = {status} is not the status of an answer, from 200 to 599"
        ));
    }
    request.access.fault(request.is_https())
}

/// An assertion that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawAssertionError {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
    /// Its position; none if the whole assertion is meant.
    pub(crate) at: Option<Range<usize>>,
}

impl From<&str> for RawAssertionError {
    fn from(message: &str) -> Self {
        Self::from(message.to_owned())
    }
}

impl From<String> for RawAssertionError {
    fn from(message: String) -> Self {
        Self {
            message,
            hint: None,
            at: None,
        }
    }
}

impl TryFrom<RawAssertion> for Assertion {
    type Error = RawAssertionError;

    fn try_from(mut raw: RawAssertion) -> Result<Self, RawAssertionError> {
        let url = raw.http.as_ref().map(Spanned::span);
        let log = raw.log()?;
        let source = raw.source(log).map_err(|message| RawAssertionError {
            at: url,
            ..message.into()
        })?;
        let is_read = raw.read.is_some() || raw.regex.is_some();
        let read = raw.extract(&source)?;
        raw.check_texts(&source)?;
        let expectation = raw.expectation()?;
        let is_command = matches!(source, Source::Exec(_));
        let whole = match &read {
            Extract::Group(part, _) => part,
            read => read,
        };
        match (whole, &expectation) {
            (Extract::Status | Extract::Header(_), _) if !matches!(source, Source::Http(_)) => {
                Err("status and header are read over http".into())
            }
            (Extract::Stdout | Extract::Exit, _) if !is_command => {
                Err("stdout and exit are read of exec".into())
            }
            _ if source.is_kernel() != (expectation == Expectation::Replaced) => {
                Err(WHAT_IS_REPLACED.into())
            }
            _ if source.is_read_once() && is_read => {
                Err("read and regex go with http, exec and tcp".into())
            }
            (_, expectation) if source.is_log() && !is_text(expectation) => {
                Err("a log is read by its lines: set contains, matches or equals".into())
            }
            _ => Ok(Self {
                source,
                read,
                expectation,
                any: None,
            }),
        }
    }
}

/// Tells whether an expectation is about a text alone.
fn is_text(expectation: &Expectation) -> bool {
    matches!(
        expectation,
        Expectation::Equals(_) | Expectation::Contains(_) | Expectation::Matches(_)
    )
}

impl RawAssertion {
    /// Returns the part of an answer that it reads.
    fn extract(&self, source: &Source) -> Result<Extract, RawAssertionError> {
        let at = |text: &Spanned<String>, message: String| RawAssertionError {
            at: Some(text.span()),
            ..message.into()
        };
        let default = if matches!(source, Source::Exec(_)) {
            "stdout"
        } else {
            "body"
        };
        let read = match &self.read {
            Some(text) => extract(text.get_ref()).map_err(|message| at(text, message))?,
            None => extract(default)?,
        };
        let Some(text) = &self.regex else {
            return Ok(read);
        };
        let pattern = Pattern::from(text.get_ref().clone());
        match pattern.group_fault() {
            Some(message) => Err(at(text, message)),
            None => Ok(Extract::Group(Box::new(read), pattern)),
        }
    }

    /// Checks the placeholders of its texts, and its regular expression.
    fn check_texts(&self, source: &Source) -> Result<(), RawAssertionError> {
        let texts = [&self.equals, &self.contains, &self.matches];
        for text in texts.into_iter().flatten() {
            let template = if source.is_log() {
                text.get_ref().replace(PID, "")
            } else {
                text.get_ref().clone()
            };
            if let Some((message, hint)) = template_fault(&template) {
                return Err(RawAssertionError {
                    message,
                    hint: Some(hint),
                    at: Some(text.span()),
                });
            }
        }
        let Some(text) = &self.matches else {
            return Ok(());
        };
        match Pattern::from(text.get_ref().clone()).fault() {
            Some(message) => Err(RawAssertionError {
                at: Some(text.span()),
                ..message.into()
            }),
            None => Ok(()),
        }
    }
}

/// Parses the value of `read`.
fn extract(text: &str) -> Result<Extract, String> {
    Ok(match text {
        "body" => Extract::Body,
        "status" => Extract::Status,
        "stdout" => Extract::Stdout,
        "exit" => Extract::Exit,
        other => match other.split_once(':') {
            Some(("header", name)) => Extract::Header(name.to_lowercase()),
            Some(("json", pointer)) => Extract::Json(pointer.to_owned()),
            Some(("metric", sample)) => {
                let (name, labels) = sample_name(sample).ok_or_else(|| {
                    format!("read = {other:?} is not metric:NAME{{label=\"value\"}}")
                })?;
                Extract::Metric(name, labels)
            }
            _ => {
                return Err(format!(
                    "read = {other:?} is none of body, status, header:NAME, json:/POINTER, \
                     metric:NAME{{label=\"value\"}}, stdout, exit"
                ));
            }
        },
    })
}
