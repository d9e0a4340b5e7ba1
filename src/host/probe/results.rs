//! The answers of an instance's sources in one attempt. Each source is probed once, and all of its
//! assertions are read from that one answer.

use std::time::Duration;

use crate::{
    assertion::{Assertion, Extract, Source, metric},
    host::{
        net::{
            body::Large,
            http::{self, Answer},
        },
        probe::{
            answer::{ProbeError, ProbeResult},
            limits::ProbeLimits,
            samples::distinct,
            source::Prober,
        },
    },
    step::PlannedInstance,
};

mod messages;

/// The list of `fleet.toml` that an assertion is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Confirm,
    Reject,
}

/// The answers of all sources in one attempt.
#[derive(Debug)]
pub(crate) struct ProbeResults<'a> {
    results: Vec<(&'a Source, Result<ProbeResult, ProbeError>)>,
    member: &'a PlannedInstance,
    /// Held as long as the bodies are.
    _large: Large,
}

impl<'a> ProbeResults<'a> {
    /// Probes `sources`, each distinct one once, all at the same time.
    pub(crate) async fn of(
        sources: impl Iterator<Item = &'a Source>,
        member: &'a PlannedInstance,
        limits: &ProbeLimits,
    ) -> Self {
        Self::within(member.timeout, sources, member, limits).await
    }

    /// Probes `sources` as [`Self::of`] does, if the instance has only `left` of its timeout.
    pub(crate) async fn within(
        left: Duration,
        sources: impl Iterator<Item = &'a Source>,
        member: &'a PlannedInstance,
        limits: &ProbeLimits,
    ) -> Self {
        let large = limits.large();
        let prober = Prober {
            member,
            limits,
            timeout: http::within(left),
            large: &large,
        };
        let probes =
            distinct(sources).map(|source| async move { (source, prober.probe(source).await) });
        Self {
            results: futures_util::future::join_all(probes).await,
            member,
            _large: large,
        }
    }

    /// Takes out a source that did not answer, and why. A source that was not reached comes first.
    pub(crate) fn take_error(&mut self) -> Option<(&'a Source, ProbeError)> {
        let index = (0..self.results.len())
            .filter_map(|index| Some((self.reached(index)?, index)))
            .min()?
            .1;
        let (source, result) = self.results.swap_remove(index);
        Some((source, result.err()?))
    }

    /// Tells whether a source that did not answer was reached; none if it answered.
    fn reached(&self, index: usize) -> Option<bool> {
        let (_, result) = self.results.get(index)?;
        Some(result.as_ref().err()?.reached)
    }

    /// Returns the reading of `assertion`, or `None` if the answer does not have what it reads.
    pub(crate) fn read(&self, assertion: &Assertion) -> Option<String> {
        match self.result(&assertion.source)? {
            ProbeResult::Log(lines) => Some(lines.line(assertion)),
            result => assertion.reported_by(result.read(&assertion.read)),
        }
    }

    /// Returns the reading of each assertion.
    pub(crate) fn readings(&self, assertions: &[Assertion]) -> Vec<Option<String>> {
        assertions
            .iter()
            .map(|assertion| self.read(assertion))
            .collect()
    }

    /// Returns the answers of the instance's own endpoint.
    pub(crate) fn own_answers(&self) -> impl Iterator<Item = &Answer> {
        self.results
            .iter()
            .filter_map(|(source, result)| match result {
                Ok(ProbeResult::Http(answer)) if source.uses_listen() => Some(answer),
                _ => None,
            })
    }

    fn result(&self, source: &Source) -> Option<&ProbeResult> {
        let (_, result) = self.results.iter().find(|(probed, _)| *probed == source)?;
        result.as_ref().ok()
    }
}

impl ProbeResult {
    fn read(&self, extract: &Extract) -> Option<String> {
        if let Extract::Group(part, pattern) = extract {
            let text = self.read(part)?;
            return pattern.part_of(&text).map(str::to_owned);
        }
        let body: &[u8] = match self {
            Self::Http(answer) if is_refused(answer, extract) => return None,
            Self::Http(answer) => &answer.body,
            Self::Kernel(text) | Self::Line(text) => text.as_bytes(),
            // A log is read by lines.
            Self::Log(_) => return None,
            Self::Command(output) if *extract == Extract::Exit => {
                return Some(output.code.to_string());
            }
            // The output of a command that fails is no answer.
            Self::Command(output) if output.code != 0 => return None,
            Self::Command(output) => &output.stdout,
        };
        let text = || String::from_utf8_lossy(body).into_owned();
        match (extract, self) {
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
            (Extract::Status | Extract::Header(_) | Extract::Exit | Extract::Group(..), _) => None,
        }
    }
}

/// Tells whether nothing may be read of the answer, for example of an error page.
fn is_refused(answer: &Answer, extract: &Extract) -> bool {
    match extract {
        Extract::Status => false,
        Extract::Header(name) => !answer.has_header(name),
        Extract::Group(part, _) => is_refused(answer, part),
        _ => !answer.counts(),
    }
}
