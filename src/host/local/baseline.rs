//! The baseline of an instance: what its probes read before the signal.

use std::{sync::LazyLock, time::Instant};

use crate::{
    assertion::{Assertion, Expectation},
    fleet::{Fleet, Speaks},
    host::{
        net::sockets::Listeners,
        probe::{
            answer::{NoReport, ProbeError, ProbeReason},
            layers::{NoLayers, file_layer, key_layer},
            limits::{ProbeLimits, self_report},
            results::{ProbeResults, Role},
        },
        proc::inside::is_its_name,
    },
    refusal::Refusal,
    self_report::{SelfReport, X_INSTANCE},
    step::PlannedInstance,
};

/// The assertions of the kind `hello`.
static HELLO_ASSERTIONS: LazyLock<Vec<Assertion>> = LazyLock::new(|| {
    Fleet::of_kind("hello")
        .ok()
        .and_then(|mut fleet| fleet.groups.pop())
        .map(|group| group.confirm)
        .unwrap_or_default()
});

/// Why an instance has no baseline, and what helps.
#[derive(Debug)]
pub(crate) struct BaselineError {
    pub(crate) refusal: Refusal<BaselineReason>,
    /// True if the instance itself did not answer; false if this host could not probe it.
    pub(crate) reached: bool,
}

/// Why an instance has no baseline.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BaselineReason {
    #[error("{0}: {1}")]
    Source(String, Box<ProbeReason>),
    #[error(transparent)]
    NoReport(#[from] NoReport),
    #[error(transparent)]
    NoLayers(#[from] NoLayers),
    #[error("{endpoint} is answered by pid {pid}, not by it")]
    OtherProcess { endpoint: String, pid: i32 },
    #[error(
        "{0}: its answers do not name the process that gives them, so they would prove nothing \
         (does the probe use another `host` name? start it with `--proof any`)"
    )]
    Anonymous(String),
    /// The answer of a source, as it is described, does not have the reading.
    #[error("{source_name} {answer}")]
    Unreadable { source_name: String, answer: String },
    /// The description of a reading with which no later one can be compared.
    #[error("{0}")]
    Incomparable(String),
}

impl From<Refusal<BaselineReason>> for BaselineError {
    fn from(refusal: Refusal<BaselineReason>) -> Self {
        Self {
            refusal,
            reached: true,
        }
    }
}

impl From<BaselineReason> for BaselineError {
    fn from(why: BaselineReason) -> Self {
        Refusal::from(why).into()
    }
}

/// Reads the config that the instance reports, and the present readings of its assertions.
///
/// # Errors
/// Fails if a source does not answer, or its answer cannot be read.
pub(crate) async fn take_baseline(
    planned: &mut PlannedInstance,
    listeners: &Listeners,
    limits: &ProbeLimits,
) -> Result<(), BaselineError> {
    let Err(mut error) = probe_once(planned, limits).await else {
        return Ok(());
    };
    // The probe went to its only socket, which may speak another protocol.
    let group = &planned.group;
    let missing = listeners
        .missing(planned.instance.pid, &planned.args, group)
        .filter(|_| group.needs_endpoint());
    let Some(missing) = missing else {
        return Err(error);
    };
    let kind = group.kind.as_ref().map_or(String::new(), |kind| {
        format!(" (its requirements: `hello kinds {kind}`)")
    });
    let next = format!("it does not listen where its group's `listen` expects it: {missing}{kind}");
    error.refusal.hint = Some(match error.refusal.hint {
        Some(hint) => format!("{hint}; {next}"),
        None => next,
    });
    Err(error)
}

async fn probe_once(
    planned: &mut PlannedInstance,
    limits: &ProbeLimits,
) -> Result<(), BaselineError> {
    let group = planned.group.clone();
    if group.speaks == Speaks::Hello {
        read_self_report(planned, limits).await?;
        // The self-report covers the assertions of the kind; those of a `fleet.toml` are read.
        if group.reject.is_empty()
            && (group.confirm.is_empty() || group.confirm == *HELLO_ASSERTIONS)
        {
            return Ok(());
        }
    }
    let _permit = limits.responsive.acquire().await;
    let assertions = group.confirm.iter().chain(&group.reject);
    let sources = assertions.map(|assertion| &assertion.source);
    let mut answers = ProbeResults::of(sources, planned, limits).await;
    check_answers(planned, &mut answers)?;
    let baseline = answers.readings(&group.confirm);
    let rejected = answers.readings(&group.reject);
    let needs_reading = |(assertion, reading): &(&Assertion, &Option<String>)| {
        assertion.needs_baseline()
            && assertion.expectation != Expectation::AfterSignal
            && reading.is_none()
    };
    if let Some((assertion, _)) = group.confirm.iter().zip(&baseline).find(needs_reading) {
        let text = answers.no_baseline(assertion, &planned.instance.endpoint);
        return Err(BaselineError {
            refusal: BaselineReason::Incomparable(text).into(),
            // The kernel's answer is complete: the instance is refused, not unresponsive.
            reached: !assertion.source.is_kernel(),
        });
    }
    planned.baseline_read_at = Some(Instant::now());
    planned.baseline = baseline;
    planned.rejected = rejected;
    Ok(())
}

/// Reads the self-report of a process that speaks the protocol of `hello serve`.
async fn read_self_report(
    planned: &mut PlannedInstance,
    limits: &ProbeLimits,
) -> Result<(), BaselineError> {
    let instance = &mut planned.instance;
    let report: SelfReport = self_report(&instance.endpoint, limits)
        .await
        .map_err(BaselineReason::from)?;
    let reporter = (report.instance.pid, report.instance.started);
    if !is_its_name(instance.pid, instance.started, reporter) {
        let why = BaselineReason::OtherProcess {
            endpoint: instance.endpoint.clone(),
            pid: report.instance.pid,
        };
        return Err(why.into());
    }
    let runs = match planned.group.key() {
        None => {
            planned.reads_key = report.effective.has_key();
            report.effective.of_file().to_owned()
        }
        Some(key) => {
            let refused = |refusal: Refusal<NoLayers>| BaselineError {
                refusal: Refusal {
                    why: refusal.why.into(),
                    hint: refusal.hint,
                },
                reached: false,
            };
            let layer = key_layer(&report, key).map_err(|why| refused(why.into()))?;
            planned.under = file_layer(&report, instance.pid).map_err(refused)?;
            layer.sha256.clone()
        }
    };
    instance.after = Some(runs.clone());
    instance.before = Some(runs);
    planned.attempt_seq = report.last_attempt.seq;
    planned.restart_only = report.restart_only.into();
    Ok(())
}

/// Checks that every source answered, that the instance itself did, and that each assertion can be
/// read from its answer.
fn check_answers(
    planned: &PlannedInstance,
    answers: &mut ProbeResults<'_>,
) -> Result<(), BaselineError> {
    let group = &planned.group;
    let endpoint = &planned.instance.endpoint;
    if let Some((source, ProbeError { refusal, reached })) = answers.take_error() {
        return Err(BaselineError {
            refusal: Refusal {
                why: BaselineReason::Source(source.describe(endpoint), Box::new(refusal.why)),
                hint: refusal.hint,
            },
            reached,
        });
    }
    let is_anonymous = || {
        answers
            .own_answers()
            .any(|answer| answer.header(X_INSTANCE).is_none())
    };
    if group.speaks == Speaks::Hello && is_anonymous() {
        return Err(BaselineReason::Anonymous(endpoint.clone()).into());
    }
    let confirm = group
        .confirm
        .iter()
        .map(|assertion| (assertion, Role::Confirm));
    let reject = group
        .reject
        .iter()
        .map(|assertion| (assertion, Role::Reject));
    let unreadable = confirm
        .chain(reject)
        .find_map(|(assertion, role)| Some((assertion, answers.unreadable(assertion, role)?)));
    match unreadable {
        Some((assertion, Refusal { why, hint })) => {
            let why = BaselineReason::Unreadable {
                source_name: assertion.source.describe(endpoint),
                answer: why,
            };
            Err(Refusal { why, hint }.into())
        }
        None => Ok(()),
    }
}
