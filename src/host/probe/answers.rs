//! Asks an instance's sources, each once in an attempt: facts of one source are read from one
//! answer.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    fact::{Ask, Fact, Read, Showing, Source, Wants, metric, no_moment},
    host::{
        exec::{
            self, NotRun, Output, Subject,
            placeholders::{self, Known},
        },
        net::{
            body::{Keep, Large},
            credentials::Credentials,
            http::{self, Answer, Terms},
        },
        probe::{
            lanes::Lanes,
            samples::distinct,
            workers::{listener, workers},
        },
    },
    step::Member,
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
fn is_refused(answer: &Answer, read: &Read) -> bool {
    match read {
        Read::Status => false,
        Read::Header(name) => !answer.has_header(name),
        _ => !answer.counts(),
    }
}

/// What one source answered.
#[derive(Debug)]
enum Said {
    Http(Answer),
    Command(Output),
    Kernel(String),
}

/// Why a source did not answer.
#[derive(Debug)]
pub(crate) struct Silence {
    /// For people.
    pub(crate) why: String,
    /// Whether it was asked at all: a command that cannot be run, or a kernel that does not tell,
    /// says nothing of the instance.
    pub(crate) asked: bool,
}

impl Silence {
    /// Nobody answered, or not in time, or not what could be read.
    pub(crate) fn of(why: String) -> Self {
        Self { why, asked: true }
    }

    fn unasked(why: impl ToString) -> Self {
        Self {
            why: why.to_string(),
            asked: false,
        }
    }
}

/// What the sources of one attempt answered.
#[derive(Debug)]
pub(crate) struct Answers<'a> {
    all: Vec<(&'a Source, Result<Said, Silence>)>,
    member: &'a Member,
    /// Held as long as the bodies are.
    _large: Large,
}

impl<'a> Answers<'a> {
    /// Asks `sources`, each distinct one once, all at the same time.
    pub(crate) async fn of(
        sources: impl Iterator<Item = &'a Source>,
        member: &'a Member,
        lanes: &Lanes,
    ) -> Self {
        Self::within(member.timeout, sources, member, lanes).await
    }

    /// The same where the instance has only `left` of its limit.
    pub(crate) async fn within(
        left: Duration,
        sources: impl Iterator<Item = &'a Source>,
        member: &'a Member,
        lanes: &Lanes,
    ) -> Self {
        let (large, limit) = (lanes.large(), http::within(left));
        let attempt = Attempt {
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
    pub(crate) fn silent(&self) -> Option<(&Source, &Silence)> {
        self.all
            .iter()
            .filter_map(|(source, said)| Some((*source, said.as_ref().err()?)))
            .min_by_key(|(_, silence)| silence.asked)
    }

    /// What `fact` reads; none where the answer has no such thing.
    pub(crate) fn read(&self, fact: &Fact) -> Option<String> {
        fact.told_by(self.said(&fact.source)?.read(&fact.read))
    }

    /// The same for people.
    fn shown(&self, fact: &Fact) -> Option<String> {
        let read = self.read(fact)?;
        Some(if let Some(Said::Http(answer)) = self.said(&fact.source) {
            answer.masked(&read)
        } else {
            read
        })
    }

    /// What each of `facts` reads.
    pub(crate) fn readings(&self, facts: &[Fact]) -> Vec<Option<String>> {
        facts.iter().map(|fact| self.read(fact)).collect()
    }

    /// Why `fact` does not hold, for people: what was read, and what was wanted.
    pub(crate) fn why_not(&self, fact: &Fact, endpoint: &str) -> String {
        let source = fact.source.describe(endpoint);
        match self.said(&fact.source) {
            Some(Said::Command(output)) if output.code != 0 && fact.read != Read::Exit => {
                format!("{source} ended with exit status {}", output.code)
            }
            Some(Said::Kernel(_)) => format!(
                "{source} {} not replaced",
                if fact.source == Source::Workers {
                    "are"
                } else {
                    "is"
                }
            ),
            Some(Said::Http(answer)) if is_refused(answer, &fact.read) => {
                format!("{source} {}", answer.status_line())
            }
            _ => format!(
                "{source} {}",
                fact.unmet(self.shown(fact).as_deref(), self.showing())
            ),
        }
    }

    /// That an assertion of `reject` holds, for people: what was read.
    pub(crate) fn kept_old(&self, fact: &Fact, endpoint: &str) -> String {
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
    pub(crate) fn unreadable(&self, fact: &Fact, role: Role) -> Option<String> {
        let needed = role == Role::Confirm || fact.compares();
        match (self.said(&fact.source)?, &fact.read) {
            (Said::Http(answer), read) if is_refused(answer, read) => Some(answer.refusal()),
            (Said::Command(output), _) if output.code != 0 => None,
            (said @ (Said::Http(_) | Said::Command(_)), Read::Metric(name, labels)) if needed => {
                // Other labels of it may come with the new config.
                let labels = if fact.compares() {
                    labels.clone()
                } else {
                    Vec::new()
                };
                let is_there = said.read(&Read::Metric(name.clone(), labels)).is_some();
                (!is_there).then(|| {
                    format!(
                        "has no metric `{name}`{}",
                        if fact.compares() {
                            " with these labels"
                        } else {
                            ""
                        }
                    )
                })
            }
            (said, read)
                if fact.wants == Wants::AfterSignal
                    && let Some(text) = fact.told_by(said.read(read)) =>
            {
                no_moment(&text).map(|why| format!("{why}, so it cannot be `after_signal`"))
            }
            (said, read @ Read::Json(pointer)) if needed && said.read(read).is_none() => {
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
    pub(crate) fn no_baseline(&self, fact: &Fact, endpoint: &str) -> String {
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
    pub(crate) fn own(&self) -> impl Iterator<Item = &Answer> {
        self.all.iter().filter_map(|(source, said)| match said {
            Ok(Said::Http(answer)) if source.uses_listen() => Some(answer),
            _ => None,
        })
    }

    fn said(&self, source: &Source) -> Option<&Said> {
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
struct Attempt<'a> {
    member: &'a Member,
    lanes: &'a Lanes,
    limit: Duration,
    large: &'a Large,
}

impl Attempt<'_> {
    async fn ask(self, source: &Source) -> Result<Said, Silence> {
        let Self {
            member,
            lanes,
            limit,
            ..
        } = self;
        let i = &member.instance;
        let config = i.targets.first().map(PathBuf::as_path);
        let known = |exe| Known {
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
                    .map_err(Silence::unasked)?;
                // It may have executed itself again for its new config.
                let subject = Subject {
                    identity: &member.identity,
                    renewed: Some(&i.exe),
                };
                exec::judge(&argv, subject, limit.max(COMMAND))
                    .await
                    .map(Said::Command)
                    .map_err(|e| match e {
                        NotRun::Limit(..) => Silence::of(e.to_string()),
                        _ => Silence::unasked(e),
                    })
            }
            // A look of a moment ago could miss a socket that was opened since.
            Source::Workers => workers(i.pid, workers_before(member), || {
                lanes.listeners(Duration::ZERO)
            })
            .map(Said::Kernel)
            .map_err(Silence::unasked),
            Source::Listener => listener(i.pid, || lanes.listeners(Duration::ZERO))
                .map(Said::Kernel)
                .map_err(Silence::unasked),
        }
    }

    async fn request(self, source: &Source, ask: &Ask, known: &Known<'_>) -> Result<Said, Silence> {
        let credentials = Credentials::of(ask).map_err(Silence::unasked)?;
        let keep = keep(source, self.member);
        let terms = Terms {
            credentials: &credentials,
            time: self.limit,
            keep: &keep,
            large: self.large,
        };
        http::answer(ask, known, &terms)
            .await
            .map(Said::Http)
            .map_err(Silence::of)
    }
}

/// What the assertions of an instance read of the body that `source` answers.
fn keep(source: &Source, member: &Member) -> Keep {
    let mut names = Vec::new();
    for fact in member
        .group
        .confirm
        .iter()
        .chain(&member.group.reject)
        .filter(|fact| fact.source == *source)
    {
        match &fact.read {
            Read::Metric(name, _) => names.push(name.clone()),
            Read::Status | Read::Header(_) => {}
            Read::Body | Read::Json(_) | Read::Stdout | Read::Exit => return Keep::All,
        }
    }
    Keep::Samples(names)
}

/// The reading of its workers from before the signal; none while that is taken.
fn workers_before(member: &Member) -> Option<&str> {
    let mut facts = member.group.confirm.iter().zip(&member.baseline);
    facts
        .find(|(fact, _)| fact.source == Source::Workers)
        .and_then(|(_, before)| before.as_deref())
}

impl Said {
    fn read(&self, what: &Read) -> Option<String> {
        let body: &[u8] = match self {
            Self::Http(answer) if is_refused(answer, what) => return None,
            Self::Http(answer) => &answer.body,
            Self::Kernel(text) => text.as_bytes(),
            Self::Command(output) if *what == Read::Exit => return Some(output.code.to_string()),
            // What a command prints when it fails is no answer.
            Self::Command(output) if output.code != 0 => return None,
            Self::Command(output) => &output.stdout,
        };
        let text = || String::from_utf8_lossy(body).into_owned();
        match (what, self) {
            (Read::Body, _) => Some(text()),
            (Read::Stdout, _) => {
                let text = text();
                let line = text.strip_suffix('\n').unwrap_or(&text);
                Some(line.strip_suffix('\r').unwrap_or(line).to_owned())
            }
            (Read::Metric(name, labels), _) => metric(&text(), name, labels),
            (Read::Json(pointer), _) => {
                let value: serde_json::Value = serde_json::from_slice(body).ok()?;
                let value = value.pointer(pointer)?;
                Some(
                    value
                        .as_str()
                        .map_or_else(|| value.to_string(), str::to_owned),
                )
            }
            (Read::Status, Self::Http(answer)) => Some(answer.status.to_string()),
            (Read::Header(name), Self::Http(answer)) => answer.header(name).map(str::to_owned),
            (Read::Status | Read::Header(_) | Read::Exit, _) => None,
        }
    }
}
