//! Asks an instance's sources, each once in an attempt: facts of one source are read from one
//! answer.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    fact::{Assertion, Expectation, Extract, HttpRequest, Showing, Source, metric, why_no_moment},
    host::{
        exec::{
            self, Output, RunError, Subject,
            placeholders::{self, Values},
        },
        net::{
            body::{KeepLines, Large},
            credentials::Credentials,
            http::{self, Answer, RequestOptions},
        },
        probe::{
            limits::ProbeLimits,
            samples::distinct,
            workers::{listener, workers},
        },
    },
    step::PlannedInstance,
};

/// How long a command may take in one attempt at least.
const COMMAND: Duration = Duration::from_secs(5);

/// Where an assertion stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Confirm,
    Reject,
}

/// Whether the answer is none for what is read of it.
fn is_refused(answer: &Answer, read: &Extract) -> bool {
    match read {
        Extract::Status => false,
        Extract::Header(name) => !answer.has_header(name),
        _ => !answer.counts(),
    }
}

/// What one source answered.
#[derive(Debug)]
enum ProbeResult {
    Http(Answer),
    Command(Output),
    Kernel(String),
}

/// Why a source did not answer.
#[derive(Debug)]
pub(crate) struct ProbeError {
    /// For people.
    pub(crate) message: String,
    /// Whether it was asked at all: a command that cannot be run, or a kernel that does not tell,
    /// says nothing of the instance.
    pub(crate) reached: bool,
}

impl ProbeError {
    /// Nobody answered, or not in time, or not what could be read.
    pub(crate) fn of(why: String) -> Self {
        Self {
            message: why,
            reached: true,
        }
    }

    fn unreached(why: impl ToString) -> Self {
        Self {
            message: why.to_string(),
            reached: false,
        }
    }
}

/// What the sources of one attempt answered.
#[derive(Debug)]
pub(crate) struct ProbeResults<'a> {
    all: Vec<(&'a Source, Result<ProbeResult, ProbeError>)>,
    member: &'a PlannedInstance,
    /// Held as long as the bodies are.
    _large: Large,
}

impl<'a> ProbeResults<'a> {
    /// Asks `sources`, each distinct one once, all at the same time.
    pub(crate) async fn of(
        sources: impl Iterator<Item = &'a Source>,
        member: &'a PlannedInstance,
        lanes: &ProbeLimits,
    ) -> Self {
        Self::within(member.timeout, sources, member, lanes).await
    }

    /// The same where the instance has only `left` of its limit.
    pub(crate) async fn within(
        left: Duration,
        sources: impl Iterator<Item = &'a Source>,
        member: &'a PlannedInstance,
        lanes: &ProbeLimits,
    ) -> Self {
        let (large, limit) = (lanes.large(), http::within(left));
        let attempt = ProbeAttempt {
            member,
            lanes,
            limit,
            large: &large,
        };
        let asked =
            distinct(sources).map(|source| async move { (source, attempt.ask(source).await) });
        Self {
            all: futures_util::future::join_all(asked).await,
            member,
            _large: large,
        }
    }

    /// A source that did not answer, and why; rather one that could not be asked.
    pub(crate) fn first_error(&self) -> Option<(&Source, &ProbeError)> {
        self.all
            .iter()
            .filter_map(|(source, said)| Some((*source, said.as_ref().err()?)))
            .min_by_key(|(_, silence)| silence.reached)
    }

    /// What `fact` reads; none where the answer has no such thing.
    pub(crate) fn read(&self, fact: &Assertion) -> Option<String> {
        fact.reported_by(self.said(&fact.source)?.read(&fact.read))
    }

    /// The same for people.
    fn shown(&self, fact: &Assertion) -> Option<String> {
        let read = self.read(fact)?;
        Some(
            if let Some(ProbeResult::Http(answer)) = self.said(&fact.source) {
                answer.masked(&read)
            } else {
                read
            },
        )
    }

    /// What each of `facts` reads.
    pub(crate) fn readings(&self, facts: &[Assertion]) -> Vec<Option<String>> {
        facts.iter().map(|fact| self.read(fact)).collect()
    }

    /// Why `fact` does not hold, for people: what was read, and what was wanted.
    pub(crate) fn why_not(&self, fact: &Assertion, endpoint: &str) -> String {
        let source = fact.source.describe(endpoint);
        match self.said(&fact.source) {
            Some(ProbeResult::Command(output))
                if output.code != 0 && fact.read != Extract::Exit =>
            {
                format!("{source} ended with exit status {}", output.code)
            }
            Some(ProbeResult::Kernel(_)) => format!(
                "{source} {} not replaced",
                if fact.source == Source::Workers {
                    "are"
                } else {
                    "is"
                }
            ),
            Some(ProbeResult::Http(answer)) if is_refused(answer, &fact.read) => {
                format!("{source} {}", answer.status_line())
            }
            _ => format!(
                "{source} {}",
                fact.unmet(self.shown(fact).as_deref(), self.showing())
            ),
        }
    }

    /// That an assertion of `reject` holds, for people: what was read.
    pub(crate) fn kept_old(&self, fact: &Assertion, endpoint: &str) -> String {
        let read = self.shown(fact).filter(|_| self.showing() == Showing::Open);
        let read = read.map_or(String::new(), |read| {
            format!(" ({} reads {})", fact.read, crate::fact::shown(&read))
        });
        format!(
            "{} says that it kept the old config{read}",
            fact.source.describe(endpoint)
        )
    }

    /// Why `fact` could never hold, for people: an error page, or an answer that has no such metric
    /// or value in it. One of `reject` may wait for a value that only a fault brings.
    pub(crate) fn unreadable(&self, fact: &Assertion, role: Role) -> Option<String> {
        let needed = role == Role::Confirm || fact.needs_baseline();
        match (self.said(&fact.source)?, &fact.read) {
            (ProbeResult::Http(answer), read) if is_refused(answer, read) => Some(answer.refusal()),
            (ProbeResult::Command(output), _) if output.code != 0 => None,
            (
                said @ (ProbeResult::Http(_) | ProbeResult::Command(_)),
                Extract::Metric(name, labels),
            ) if needed => {
                // Other labels of it may come with the new config.
                let labels = if fact.needs_baseline() {
                    labels.clone()
                } else {
                    Vec::new()
                };
                let is_there = said.read(&Extract::Metric(name.clone(), labels)).is_some();
                (!is_there).then(|| {
                    format!(
                        "has no metric `{name}`{}",
                        if fact.needs_baseline() {
                            " with these labels"
                        } else {
                            ""
                        }
                    )
                })
            }
            (said, read)
                if fact.expectation == Expectation::AfterSignal
                    && let Some(text) = fact.reported_by(said.read(read)) =>
            {
                why_no_moment(&text).map(|why| format!("{why}, so it cannot be `after_signal`"))
            }
            (said, read @ Extract::Json(pointer)) if needed && said.read(read).is_none() => {
                Some(format!("has no value at `{pointer}`, or is no JSON"))
            }
            _ => None,
        }
    }

    /// Whether what was read may be repeated.
    fn showing(&self) -> Showing {
        let is_public = |path: &PathBuf| path.metadata().is_ok_and(|m| m.mode() & 0o004 != 0);
        match self.member.group.secret {
            Some(false) => Showing::Open,
            None if self.member.instance.targets.iter().all(is_public) => Showing::Open,
            _ => Showing::Secret,
        }
    }

    /// Why there is nothing that `fact` could compare with, for people.
    pub(crate) fn no_baseline(&self, fact: &Assertion, endpoint: &str) -> String {
        let source = fact.source.describe(endpoint);
        match (
            &fact.source,
            self.said(&fact.source)
                .and_then(|said| said.read(&fact.read)),
        ) {
            (Source::Workers, _) => "has no workers that a reload could replace".into(),
            (Source::Listener, _) => "has no listening socket that a reload could replace".into(),
            (_, Some(_)) => {
                format!("{source} reads as nothing, so a change of it could not be seen")
            }
            (_, None) => format!(
                "{}, so a change of it could not be seen",
                self.why_not(fact, endpoint)
            ),
        }
    }

    /// The answers of the instance's own endpoint.
    pub(crate) fn own_answers(&self) -> impl Iterator<Item = &Answer> {
        self.all.iter().filter_map(|(source, said)| match said {
            Ok(ProbeResult::Http(answer)) if source.uses_listen() => Some(answer),
            _ => None,
        })
    }

    fn said(&self, source: &Source) -> Option<&ProbeResult> {
        self.all
            .iter()
            .find(|(asked, _)| *asked == source)?
            .1
            .as_ref()
            .ok()
    }
}

/// What all sources of one attempt share.
#[derive(Clone, Copy)]
struct ProbeAttempt<'a> {
    member: &'a PlannedInstance,
    lanes: &'a ProbeLimits,
    limit: Duration,
    large: &'a Large,
}

impl ProbeAttempt<'_> {
    async fn ask(self, source: &Source) -> Result<ProbeResult, ProbeError> {
        let Self {
            member,
            lanes,
            limit,
            ..
        } = self;
        let i = &member.instance;
        let config = i.targets.first().map(PathBuf::as_path);
        let known = |exe| Values {
            pid: member.identity.inside,
            exe,
            args: &member.args,
            endpoint: &i.endpoint,
            config,
            candidate: config,
        };
        match source {
            Source::Http(ask) => {
                self.request(source, ask, &known(Path::new("/proc/self/exe")))
                    .await
            }
            Source::Exec(argv) => {
                let argv = known(&placeholders::exe(&member.identity))
                    .fill(argv)
                    .map_err(ProbeError::unreached)?;
                // It may have executed itself again for its new config.
                let subject = Subject {
                    identity: &member.identity,
                    renewed: Some(&i.exe),
                };
                exec::judge(&argv, subject, limit.max(COMMAND))
                    .await
                    .map(ProbeResult::Command)
                    .map_err(|e| match e {
                        RunError::Limit(..) => ProbeError::of(e.to_string()),
                        _ => ProbeError::unreached(e),
                    })
            }
            // A look of a moment ago could miss a socket that was opened since.
            Source::Workers => workers(i.pid, workers_before(member), || {
                lanes.listeners(Duration::ZERO)
            })
            .map(ProbeResult::Kernel)
            .map_err(ProbeError::unreached),
            Source::Listener => listener(i.pid, || lanes.listeners(Duration::ZERO))
                .map(ProbeResult::Kernel)
                .map_err(ProbeError::unreached),
        }
    }

    async fn request(
        self,
        source: &Source,
        ask: &HttpRequest,
        known: &Values<'_>,
    ) -> Result<ProbeResult, ProbeError> {
        let credentials = Credentials::of(ask).map_err(ProbeError::unreached)?;
        let keep = keep(source, self.member);
        let terms = RequestOptions {
            credentials: &credentials,
            time: self.limit,
            keep: &keep,
            large: self.large,
        };
        http::answer(ask, known, &terms)
            .await
            .map(ProbeResult::Http)
            .map_err(ProbeError::of)
    }
}

/// What the assertions of an instance read of the body that `source` answers.
fn keep(source: &Source, member: &PlannedInstance) -> KeepLines {
    let mut names = Vec::new();
    for fact in member
        .group
        .confirm
        .iter()
        .chain(&member.group.reject)
        .filter(|fact| fact.source == *source)
    {
        match &fact.read {
            Extract::Metric(name, _) => names.push(name.clone()),
            Extract::Status | Extract::Header(_) => {}
            Extract::Body | Extract::Json(_) | Extract::Stdout | Extract::Exit => {
                return KeepLines::All;
            }
        }
    }
    KeepLines::Samples(names)
}

/// The reading of its workers from before the signal; none while that is taken.
fn workers_before(member: &PlannedInstance) -> Option<&str> {
    let mut facts = member.group.confirm.iter().zip(&member.baseline);
    facts
        .find(|(fact, _)| fact.source == Source::Workers)
        .and_then(|(_, before)| before.as_deref())
}

impl ProbeResult {
    fn read(&self, what: &Extract) -> Option<String> {
        let body: &[u8] = match self {
            Self::Http(answer) if is_refused(answer, what) => return None,
            Self::Http(answer) => &answer.body,
            Self::Kernel(text) => text.as_bytes(),
            Self::Command(output) if *what == Extract::Exit => {
                return Some(output.code.to_string());
            }
            // What a command prints when it fails is no answer.
            Self::Command(output) if output.code != 0 => return None,
            Self::Command(output) => &output.stdout,
        };
        let text = || String::from_utf8_lossy(body).into_owned();
        match (what, self) {
            (Extract::Body, _) => Some(text()),
            (Extract::Stdout, _) => {
                let text = text();
                let line = text.strip_suffix('\n').unwrap_or(&text);
                Some(line.strip_suffix('\r').unwrap_or(line).to_owned())
            }
            (Extract::Metric(name, labels), _) => metric(&text(), name, labels),
            (Extract::Json(pointer), _) => {
                let value: serde_json::Value = serde_json::from_slice(body).ok()?;
                let value = value.pointer(pointer)?;
                Some(
                    value
                        .as_str()
                        .map_or_else(|| value.to_string(), str::to_owned),
                )
            }
            (Extract::Status, Self::Http(answer)) => Some(answer.status.to_string()),
            (Extract::Header(name), Self::Http(answer)) => answer.header(name).map(str::to_owned),
            (Extract::Status | Extract::Header(_) | Extract::Exit, _) => None,
        }
    }
}
