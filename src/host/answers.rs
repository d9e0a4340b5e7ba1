//! Asks an instance's sources, each once in an attempt: facts of one source are read from one answer.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    fact::{Fact, Read, Source, metric},
    host::{
        exec::{self, NotRun, Output, Subject},
        http::{Answer, Lanes, get},
        placeholders::{self, Known},
        workers::{listener, workers},
    },
    step::Member,
};

/// Longest that a command may take in one attempt.
const COMMAND: Duration = Duration::from_secs(5);

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
    /// Whether it was asked at all: a command that cannot be run, or a kernel that does not tell, says nothing of the instance.
    pub(crate) asked: bool,
}

impl Silence {
    /// Nobody answered, or not in time, or not what could be read.
    pub(super) fn of(why: String) -> Self {
        Self { why, asked: true }
    }

    fn unasked(why: impl ToString) -> Self {
        Self { why: why.to_string(), asked: false }
    }
}

/// What the sources of one attempt answered.
#[derive(Debug)]
pub(super) struct Answers<'a>(Vec<(&'a Source, Result<Said, Silence>)>);

impl<'a> Answers<'a> {
    /// Like [`Self::of`], in the other order in every second one of several samples. An endpoint that hands
    /// its questions to two processes in turn would else hand the same question always to the same one.
    pub(super) async fn sample(nth: u32, sources: impl Iterator<Item = &'a Source>, member: &Member, lanes: &Lanes) -> Self {
        let mut sources: Vec<&Source> = sources.collect();
        if nth % 2 == 1 {
            sources.reverse();
        }
        Self::of(sources.into_iter(), member, lanes).await
    }

    /// Asks `sources`, each distinct one once, all at the same time.
    pub(super) async fn of(sources: impl Iterator<Item = &'a Source>, member: &Member, lanes: &Lanes) -> Self {
        let mut distinct: Vec<&Source> = Vec::new();
        for source in sources {
            if !distinct.contains(&source) {
                distinct.push(source);
            }
        }
        let asked = distinct.into_iter().map(|source| async move { (source, ask(source, member, lanes).await) });
        Self(futures_util::future::join_all(asked).await)
    }

    /// A source that did not answer, and why; rather one that could not be asked.
    pub(super) fn silent(&self) -> Option<(&Source, &Silence)> {
        self.0.iter().filter_map(|(source, said)| Some((*source, said.as_ref().err()?))).min_by_key(|(_, silence)| silence.asked)
    }

    /// What `fact` reads; none where the answer has no such thing.
    pub(super) fn read(&self, fact: &Fact) -> Option<String> {
        fact.told_by(self.said(&fact.source)?.read(&fact.read))
    }

    /// What each of `facts` reads.
    pub(super) fn readings(&self, facts: &[Fact]) -> Vec<Option<String>> {
        facts.iter().map(|fact| self.read(fact)).collect()
    }

    /// Why `fact` does not hold, for people. What was read is not repeated: it may be a secret.
    pub(super) fn why_not(&self, fact: &Fact, endpoint: &str) -> String {
        let source = fact.source.describe(endpoint);
        match self.said(&fact.source) {
            Some(Said::Command(output)) if output.code != 0 && fact.read != Read::Exit => format!("{source} ended with exit status {}", output.code),
            Some(Said::Kernel(_)) => format!("{source} {} not replaced", if fact.source == Source::Workers { "are" } else { "is" }),
            _ => format!("{source} does not say what it should"),
        }
    }

    /// Why there is nothing that `fact` could compare with, for people.
    pub(super) fn no_baseline(&self, fact: &Fact, endpoint: &str) -> String {
        let source = fact.source.describe(endpoint);
        match (&fact.source, self.said(&fact.source).and_then(|said| said.read(&fact.read))) {
            (Source::Workers, _) => "has no workers that a reload could replace".into(),
            (Source::Listener, _) => "has no listening socket that a reload could replace".into(),
            (_, Some(_)) => format!("{source} reads as nothing, so a change of it could not be seen"),
            (_, None) => format!("{}, so a change of it could not be seen", self.why_not(fact, endpoint)),
        }
    }

    /// The answers of the instance's own endpoint.
    pub(super) fn own(&self) -> impl Iterator<Item = &Answer> {
        self.0.iter().filter_map(|(source, said)| match said {
            Ok(Said::Http(answer)) if source.uses_listen() => Some(answer),
            _ => None,
        })
    }

    fn said(&self, source: &Source) -> Option<&Said> {
        self.0.iter().find(|(asked, _)| *asked == source)?.1.as_ref().ok()
    }
}

async fn ask(source: &Source, member: &Member, lanes: &Lanes) -> Result<Said, Silence> {
    let i = &member.instance;
    let config = i.targets.first().map(PathBuf::as_path);
    let known = |exe| Known { pid: member.identity.inside, exe, args: &member.args, endpoint: &i.endpoint, config, candidate: config };
    match source {
        Source::Http(ask) => get(ask, &known(Path::new("/proc/self/exe"))).await.map(Said::Http).map_err(Silence::of),
        Source::Exec(argv) => {
            let argv = known(&placeholders::exe(&member.identity)).fill(argv).map_err(Silence::unasked)?;
            // It may have executed itself again for its new config.
            let subject = Subject { identity: &member.identity, renewed: Some(&i.exe) };
            exec::judge(&argv, subject, COMMAND).await.map(Said::Command).map_err(|e| match e {
                NotRun::Limit(..) => Silence::of(e.to_string()),
                _ => Silence::unasked(e),
            })
        }
        // A look of a moment ago could miss a socket that was opened since.
        Source::Workers => workers(i.pid, workers_before(member), || lanes.listeners(Duration::ZERO)).map(Said::Kernel).map_err(Silence::unasked),
        Source::Listener => listener(i.pid, || lanes.listeners(Duration::ZERO)).map(Said::Kernel).map_err(Silence::unasked),
    }
}

/// The reading of its workers from before the signal; none while that is taken.
fn workers_before(member: &Member) -> Option<&str> {
    let mut facts = member.group.confirm.iter().zip(&member.baseline);
    facts.find(|(fact, _)| fact.source == Source::Workers).and_then(|(_, before)| before.as_deref())
}

impl Said {
    fn read(&self, what: &Read) -> Option<String> {
        let body: &[u8] = match self {
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
                Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            }
            (Read::Status, Self::Http(answer)) => Some(answer.status.to_string()),
            (Read::Header(name), Self::Http(answer)) => answer.header(name).map(str::to_owned),
            (Read::Status | Read::Header(_) | Read::Exit, _) => None,
        }
    }
}
