//! The proof of a new process, which has no baseline.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use super::PAUSE;
use crate::{
    assertion::{Assertion, Expectation, Source, Unresolved, entry_of, listens, worker_name},
    event::{Failure, Instance, Outcome, Proof},
    fleet::Speaks,
    host::{
        discover::found::Found,
        net::{http::own, sockets::EndpointError},
        probe::{
            answer::{KernelError, NoReport, ProbeReason},
            endpoint::{foreign_listeners, sharing_text},
            layers::{NoLayers, file_layer, key_layer},
            limits::{ProbeLimits, self_report},
            results::ProbeResults,
            samples::Samples,
        },
        proc::{
            guard::{self, NotTaken},
            inside::is_its_name,
            pidfd::{SignalError, has_ended, hold},
        },
        reload::{context::ProofContext, evidence::other_text},
    },
    refusal::Refusal,
    self_report::SelfReport,
    step::PlannedInstance,
};

/// Why a new process does not prove the expected config. The text has no subject.
#[derive(Debug, thiserror::Error)]
enum NotProven {
    #[error("{}", sharing_text(.0))]
    ForeignListener(Vec<String>),
    #[error(transparent)]
    Listeners(#[from] KernelError),
    #[error(transparent)]
    Endpoint(#[from] Refusal<EndpointError>),
    #[error(transparent)]
    Unresolved(#[from] Refusal<Unresolved>),
    #[error(transparent)]
    Probe(Refusal<ProbeReason>),
    /// An assertion does not hold, as its reading is described.
    #[error("{0}")]
    Unmet(String),
    #[error(transparent)]
    NoReport(#[from] NoReport),
    #[error(transparent)]
    NoLayers(#[from] Refusal<NoLayers>),
    #[error("it is answered by pid {0}")]
    OtherProcess(i32),
    #[error("serves another config")]
    OtherConfig,
    #[error("started before its config was installed, and nothing proves that it has read it")]
    TooOld,
    #[error("`{}` holds other bytes now, and it may have read these", .0.display())]
    Replaced(PathBuf),
    #[error(transparent)]
    NotTaken(#[from] NotTaken),
}

/// Proves `found` as the successor of `member`, within `limit`. Returns it as an instance of the
/// run.
///
/// # Errors
/// Fails if the new process does not prove the expected config within `limit`.
pub(crate) async fn prove(
    found: &Found,
    member: &PlannedInstance,
    context: ProofContext<'_>,
    limit: Duration,
    limits: &ProbeLimits,
) -> Result<PlannedInstance, Failure> {
    let old = &member.instance;
    let mut new = member.clone();
    new.args = found.args.clone().into();
    new.identity = found.identity(&member.group);
    new.instance = Instance {
        wave: old.wave,
        validated: old.validated,
        before: old.before.clone(),
        ..found.instance(&member.group)
    };
    let began = Instant::now();
    let proof = proven(&mut new, context, limit, limits).await?;
    new.instance.proof = Some(proof);
    new.instance.outcome = if context.direction.is_back() {
        Outcome::Reverted
    } else {
        Outcome::Confirmed
    };
    new.instance.after = context.new_content().map(|to| to.sha256.clone());
    new.instance.took_us = u64::try_from(began.elapsed().as_micros()).ok();
    new.signalled = Some(context.proof_since());
    new.proven_at = Some(Instant::now());
    // The new process has answered, whether or not the old one did.
    new.unresponsive = false;
    Ok(new)
}

/// Waits until `new` proves the config of `context`. A process that has proven it before must still
/// prove it.
///
/// # Errors
/// Fails as [`prove`] does.
pub(crate) async fn proven(
    new: &mut PlannedInstance,
    context: ProofContext<'_>,
    limit: Duration,
    limits: &ProbeLimits,
) -> Result<Proof, Failure> {
    let pid = new.instance.pid;
    let failure = |kind: Outcome, text: String| Failure {
        kind: kind.into(),
        text,
    };
    let pidfd = hold(&new.instance).map_err(|e| match e {
        SignalError::Gone(_) => failure(Outcome::Died, "it ended too".to_owned()),
        // It may live, and run another config.
        SignalError::Refused(why) => failure(Outcome::TimedOut, why),
    })?;
    let began = Instant::now();
    let mut samples = Samples::of(new.group.samples);
    loop {
        let late = began.elapsed() >= limit;
        let result = sampled_proof(new, context, &mut samples, limits).await;
        if has_ended(&pidfd) {
            return Err(failure(Outcome::Died, "it ended too".to_owned()));
        }
        let result = result.and_then(|proof| match foreign_listeners(new, limits)? {
            foreign if foreign.is_empty() => Ok(proof),
            foreign => Err(NotProven::ForeignListener(foreign)),
        });
        match result {
            Ok(proof) => return Ok(proof),
            Err(why) if late => {
                return Err(failure(Outcome::TimedOut, format!("pid {pid}: {why}")));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Returns what a new process proves now, in every sample.
async fn sampled_proof(
    new: &mut PlannedInstance,
    context: ProofContext<'_>,
    samples: &mut Samples,
    limits: &ProbeLimits,
) -> Result<Proof, NotProven> {
    let (proof, held) = proof_now(new, context, None, limits)
        .await
        .inspect_err(|_| samples.does_not_hold())?;
    samples.holds();
    let group = new.group.clone();
    let serving = Source::Http(own("/"));
    let sources = group
        .confirm
        .iter()
        .map(|assertion| &assertion.source)
        .chain(group.confirm.is_empty().then_some(&serving));
    for source in samples.questions(sources) {
        proof_now(new, context, Some((source, &held)), limits)
            .await
            .inspect_err(|_| samples.does_not_hold())?;
    }
    Ok(proof)
}

/// Returns what a new process proves now, by the answers of all sources or of `only` one, and which
/// assertions hold. With `only` come those that held before.
async fn proof_now(
    new: &mut PlannedInstance,
    context: ProofContext<'_>,
    only: Option<(&Source, &[usize])>,
    limits: &ProbeLimits,
) -> Result<(Proof, Vec<usize>), NotProven> {
    let group = new.group.clone();
    // A confirmed process has read its config. Another install of the same bytes does not change
    // that.
    let confirmed_since = (new.instance.outcome == Outcome::Confirmed)
        .then_some(new.signalled)
        .flatten();
    if group.needs_endpoint() {
        new.instance.endpoint =
            limits
                .listeners(PAUSE)?
                .endpoint(new.instance.pid, &new.args, &group)?;
    }
    if let (Speaks::Hello, Some(_)) = (group.speaks, group.key()) {
        // Its assertions take values from the file below its key, too.
        let report = self_report(&new.instance.endpoint, limits).await?;
        new.under = file_layer(&report, new.instance.pid)?;
    }
    let config = context
        .new_content()
        .and_then(|content| new.whole_config(content));
    let assertions: Vec<Assertion> = group
        .confirm
        .iter()
        .map(|assertion| assertion.resolved(config.as_deref()))
        .collect::<Result<_, Refusal<Unresolved>>>()?;
    let since = confirmed_since.unwrap_or_else(|| context.proof_since());
    let held = check_assertions(new, &assertions, only, since, limits).await?;
    if group.speaks == Speaks::Hello {
        return check_self_report(new, context, limits)
            .await
            .map(|()| (Proof::Exact, held));
    }
    let shows_content = group
        .confirm
        .iter()
        .zip(&assertions)
        .any(|(written, resolved)| other_text(written, resolved, context.changes).is_some());
    if !shows_content && confirmed_since.is_none() {
        check_read_new_config(new, context)?;
    }
    guard::wait_for_handler(new.instance.pid, &group, Duration::ZERO).await?;
    let proof = if shows_content {
        Proof::Content
    } else {
        Proof::Reloaded
    };
    Ok((proof, held))
}

/// Returns the assertions that hold. Fails if an entry of all sources does not hold, or an
/// assertion of `only` one that held before. `since` is when the config was installed.
async fn check_assertions(
    new: &PlannedInstance,
    assertions: &[Assertion],
    only: Option<(&Source, &[usize])>,
    since: jiff::Timestamp,
    limits: &ProbeLimits,
) -> Result<Vec<usize>, NotProven> {
    let is_covered = |index: &usize| {
        let assertion = &assertions[*index];
        only.is_none_or(|(only, held)| {
            *only == assertion.source && (assertion.any.is_none() || held.contains(index))
        })
    };
    let covered: Vec<usize> = (0..assertions.len()).filter(is_covered).collect();
    let sources = covered.iter().map(|index| &assertions[*index].source);
    let mut results = ProbeResults::within(new.timeout, sources, new, limits).await;
    if let Some((_, error)) = results.take_error() {
        return Err(NotProven::Probe(error.refusal));
    }
    let holds = |assertion: &Assertion| match &assertion.expectation {
        // There is no baseline. The start time shows that the process is new.
        Expectation::Changed | Expectation::Increased | Expectation::Decreased => true,
        // It was not signalled, so no line is expected of it.
        _ if assertion.source.is_log() => true,
        Expectation::Replaced if matches!(assertion.source, Source::Children(_)) => {
            results.read(assertion).is_some_and(|now| !now.is_empty())
        }
        Expectation::Replaced => results
            .read(assertion)
            .is_some_and(|now| is_at_work(new, assertion, &now)),
        Expectation::Equals(_)
        | Expectation::Contains(_)
        | Expectation::Matches(_)
        | Expectation::AfterSignal => results
            .read(assertion)
            .is_some_and(|now| assertion.holds(&now, None, since)),
    };
    let held: Vec<usize> = covered
        .iter()
        .copied()
        .filter(|index| holds(&assertions[*index]))
        .collect();
    let is_met = |index: &usize| match only {
        None => entry_of(assertions, *index).any(|index| held.contains(&index)),
        Some(_) => held.contains(index),
    };
    match covered.iter().find(|index| !is_met(index)) {
        Some(index) => Err(NotProven::Unmet(
            results.why_not(&assertions[*index], &new.instance.endpoint),
        )),
        None => Ok(held),
    }
}

/// Tells whether workers or sockets of a new process are there in the reading `now`. They listen,
/// unless no worker of the old process did.
fn is_at_work(new: &PlannedInstance, assertion: &Assertion, now: &str) -> bool {
    let baseline = new
        .group
        .confirm
        .iter()
        .zip(&new.baseline)
        .find(|(own, _)| own.source == assertion.source)
        .and_then(|(_, reading)| reading.as_deref())
        .unwrap_or_default();
    let is_old = |line: &str| {
        baseline
            .lines()
            .any(|old| worker_name(old) == worker_name(line))
    };
    let never_listen = !baseline.is_empty() && !baseline.lines().any(listens);
    now.lines()
        .any(|line| listens(line) || never_listen && !is_old(line))
}

/// Fails if the self-report is another process's, or names another config.
async fn check_self_report(
    new: &mut PlannedInstance,
    context: ProofContext<'_>,
    limits: &ProbeLimits,
) -> Result<(), NotProven> {
    let instance = &new.instance;
    let report = self_report(&instance.endpoint, limits).await?;
    let name = (report.instance.pid, report.instance.started);
    if !is_its_name(instance.pid, instance.started, name) {
        return Err(NotProven::OtherProcess(report.instance.pid));
    }
    // The process counts its attempts from its own start.
    new.attempt_seq = report.last_attempt.seq;
    match context.new_content() {
        Some(to) if runs(&report, new)? != to.sha256 => Err(NotProven::OtherConfig),
        _ => Ok(()),
    }
}

/// Returns the digest of the target in the config that a process serves.
fn runs<'a>(report: &'a SelfReport, new: &PlannedInstance) -> Result<&'a str, NotProven> {
    match new.group.key() {
        None => Ok(report.effective.of_file()),
        Some(key) => Ok(&key_layer(report, key).map_err(Refusal::from)?.sha256),
    }
}

/// Fails if the process can have read another config than the one of the run.
fn check_read_new_config(
    new: &PlannedInstance,
    context: ProofContext<'_>,
) -> Result<(), NotProven> {
    let instance = &new.instance;
    if !context.came_later(instance.pid, instance.started) {
        return Err(NotProven::TooOld);
    }
    match context.replaced() {
        Some(path) => Err(NotProven::Replaced(path.to_owned())),
        None => Ok(()),
    }
}
