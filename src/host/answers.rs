//! Asks an instance's sources, each once in an attempt: facts of one source are read from one answer.

use crate::{
    event::Instance,
    fact::{Fact, Read, Source, metric},
    host::http::{Answer, Lanes, address, get},
};

/// What the sources of one attempt answered.
#[derive(Debug)]
pub(super) struct Answers<'a>(Vec<(&'a Source, Answer)>);

impl<'a> Answers<'a> {
    /// Asks `sources`, each distinct one once.
    ///
    /// # Errors
    /// A sentence: the first that does not answer.
    pub(super) async fn of(sources: impl Iterator<Item = &'a Source>, i: &Instance) -> Result<Self, String> {
        let mut asked: Vec<(&Source, Answer)> = Vec::new();
        for source in sources {
            if asked.iter().any(|(known, _)| *known == source) {
                continue;
            }
            let answer = match source {
                Source::Http(ask) => {
                    let (at, path) = address(&ask.url, &i.endpoint);
                    get(at, path).await?
                }
                Source::Exec(_) | Source::Workers | Source::Listener => return Err("cannot be asked".into()),
            };
            asked.push((source, answer));
        }
        Ok(Self(asked))
    }

    /// What `fact` reads; none where the answer has no such thing.
    pub(super) fn read(&self, fact: &Fact) -> Option<String> {
        self.0.iter().find(|(source, _)| **source == fact.source).and_then(|(_, answer)| answer.read(&fact.read))
    }

    /// The answers of the instance's own endpoint.
    pub(super) fn own(&self) -> impl Iterator<Item = &Answer> {
        self.0.iter().filter(|(source, _)| matches!(source, Source::Http(ask) if ask.url.contains("{listen}"))).map(|(_, answer)| answer)
    }
}

/// What each fact reads now; none where the answer has no such thing.
///
/// # Errors
/// A sentence when a source does not answer.
pub(super) async fn readings(i: &Instance, facts: &[Fact], lanes: &Lanes) -> Result<Vec<Option<String>>, String> {
    let _permit = lanes.fast.acquire().await;
    let answers = Answers::of(facts.iter().map(|f| &f.source), i).await?;
    Ok(facts.iter().map(|f| answers.read(f)).collect())
}

impl Answer {
    fn read(&self, what: &Read) -> Option<String> {
        match what {
            Read::Body => Some(String::from_utf8_lossy(&self.body).into_owned()),
            Read::Status => Some(self.status.to_string()),
            Read::Header(name) => self.header(name).map(str::to_owned),
            Read::Metric(name, labels) => metric(&String::from_utf8_lossy(&self.body), name, labels),
            Read::Json(pointer) => {
                let value: serde_json::Value = serde_json::from_slice(&self.body).ok()?;
                let value = value.pointer(pointer)?;
                Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            }
            Read::Stdout | Read::Exit => None,
        }
    }
}
