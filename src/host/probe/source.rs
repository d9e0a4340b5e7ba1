//! The probe of one source of an instance.
//!
//! A new source is a variant of [`Source`], its keys in `assertion/raw.rs`, and its probe here.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::answer::{ProbeError, ProbeResult};
use crate::{
    assertion::{Extract, HttpRequest, Source},
    host::{
        exec::{
            self, RunError, Subject,
            placeholders::{self, Values},
        },
        net::{
            body::{KeepLines, Large},
            credentials::Credentials,
            http::{self, RequestOptions},
        },
        probe::{
            limits::ProbeLimits,
            workers::{listener, workers},
        },
    },
    step::PlannedInstance,
};

/// The shortest timeout of a command in one attempt, however little is left of the instance's own.
const MIN_COMMAND_TIMEOUT: Duration = Duration::from_secs(5);

/// The context that the probes of one attempt share.
#[derive(Clone, Copy)]
pub(super) struct Prober<'a> {
    pub(super) member: &'a PlannedInstance,
    pub(super) limits: &'a ProbeLimits,
    pub(super) timeout: Duration,
    pub(super) large: &'a Large,
}

impl Prober<'_> {
    /// Probes a source once.
    pub(super) async fn probe(self, source: &Source) -> Result<ProbeResult, ProbeError> {
        let pid = self.member.instance.pid;
        // An earlier read of the tables could miss a socket that was opened since.
        let listeners = || self.limits.listeners(Duration::ZERO);
        match source {
            Source::Http(request) => self.request(source, request).await,
            Source::Exec(argv) => self.run(argv).await,
            Source::Workers => workers(pid, workers_before(self.member), listeners)
                .map(ProbeResult::Kernel)
                .map_err(ProbeError::unreached),
            Source::Listener => listener(pid, listeners)
                .map(ProbeResult::Kernel)
                .map_err(ProbeError::unreached),
        }
    }

    async fn request(
        self,
        source: &Source,
        request: &HttpRequest,
    ) -> Result<ProbeResult, ProbeError> {
        let credentials = Credentials::of(request)?;
        let keep = kept_lines(source, self.member);
        let options = RequestOptions {
            credentials: &credentials,
            time: self.timeout,
            keep: &keep,
            large: self.large,
        };
        let values = self.values(Path::new("/proc/self/exe"));
        Ok(ProbeResult::Http(
            http::answer(request, &values, &options).await?,
        ))
    }

    async fn run(self, argv: &[String]) -> Result<ProbeResult, ProbeError> {
        let identity = &self.member.identity;
        let argv = self
            .values(&placeholders::exe(identity))
            .fill(argv)
            .map_err(ProbeError::unreached)?;
        let subject = Subject {
            identity,
            // The process may have executed itself again for its new config.
            renewed: Some(&self.member.instance.exe),
        };
        exec::judge(&argv, subject, self.timeout.max(MIN_COMMAND_TIMEOUT))
            .await
            .map(ProbeResult::Command)
            .map_err(|e| ProbeError {
                reached: matches!(e, RunError::Limit(..)),
                ..ProbeError::unreached(e)
            })
    }

    /// Returns the values of the placeholders; `exe` is the executable of the instance.
    fn values<'a>(&'a self, exe: &'a Path) -> Values<'a> {
        let instance = &self.member.instance;
        let config = instance.targets.first().map(PathBuf::as_path);
        Values {
            pid: self.member.identity.inside,
            process: self.member.instance.pid,
            exe,
            args: &self.member.args,
            endpoint: &instance.endpoint,
            config,
            candidate: config,
        }
    }
}

/// Returns the lines of the body of `source` that the assertions of an instance read.
fn kept_lines(source: &Source, member: &PlannedInstance) -> KeepLines {
    let mut names = Vec::new();
    for assertion in member
        .group
        .confirm
        .iter()
        .chain(&member.group.reject)
        .filter(|assertion| assertion.source == *source)
    {
        match &assertion.read {
            Extract::Metric(name, _) => names.push(name.clone()),
            Extract::Status | Extract::Header(_) => {}
            Extract::Body | Extract::Json(_) | Extract::Stdout | Extract::Exit => {
                return KeepLines::All;
            }
        }
    }
    KeepLines::Samples(names)
}

/// Returns the reading of the workers from before the signal, or `None` while that is being read.
fn workers_before(member: &PlannedInstance) -> Option<&str> {
    let mut baseline = member.group.confirm.iter().zip(&member.baseline);
    baseline
        .find(|(assertion, _)| assertion.source == Source::Workers)
        .and_then(|(_, before)| before.as_deref())
}
