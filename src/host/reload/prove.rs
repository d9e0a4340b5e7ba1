//! Signals one instance and waits for its proof.

use std::{collections::BTreeSet, time::Duration};

use tokio::sync::SemaphorePermit;

use crate::{
    assertion::Assertion,
    event::{Direction, Failure, Outcome, Proof},
    fleet::Speaks,
    host::{
        net::sockets::sockets_of,
        probe::{
            answer::KernelError,
            confirm::{confirm, outlives_signal},
            expected::{Expected, WaitUntil},
            limits::{LISTENERS_MAX_AGE, ProbeLimits},
            lost_listeners, old_workers, readings,
        },
        proc::{pidfd::SignalledProcess, tree::children},
        reload::{
            baseline::{lacking_baseline, sample_baseline, settle_baseline},
            context::ProofContext,
            evidence::Evidence,
            expectation::{drop_unprovable, expectation, resolve_assertions, specialize},
            second_end,
            signal::signal,
        },
    },
    step::{PlannedInstance, PriorReadings},
};

/// The longest wait for the permit of the first attempt before the signal is sent. Unresponsive
/// instances hold permits for longer, and must not delay the signals of others.
const PERMIT_WAIT: Duration = Duration::from_millis(250);

/// Why the expected content proves nothing of an instance that an earlier run has signalled.
const EARLIER_OPEN: &str = "it shows this config as it did before its signal, and nothing shows \
                            that the reload of an earlier run is over";

/// The end of the message where the descendants of an instance cannot be read before its signal.
const WHICH_WORKERS: &str = "which workers run the old config, so it was not signalled";

/// The end of the message where the sockets of an instance cannot be read before its signal.
const WHERE_IT_LISTENS: &str = "whether it listens, so it was not signalled";

/// Why an instance that was unresponsive before the run cannot be proven.
const BLIND: &str = "its assertions compare with an answer from before the signal, and it gave \
                     none, so nothing proves its reload";

/// The end of a wait without a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proven {
    /// The instance runs the expected config; by which proof, and how long after its signal.
    Config(Proof, Duration),
    /// The instance lived until its deadline, and nothing proves which config it runs.
    Life,
}

/// Signals one instance and waits until it is proven on the expected config, or its deadline
/// passes.
///
/// # Errors
/// Fails if the instance died, refused, does not take the signal, or does not prove a config that
/// it could prove.
pub(crate) async fn prove(
    member: &mut PlannedInstance,
    context: ProofContext<'_>,
    limits: &ProbeLimits,
) -> Result<Proven, Failure> {
    let ProofContext {
        direction, slot, ..
    } = context;
    let sent_before = member.signalled;
    let preparation = prepare(member, context, limits).await?;
    let (signalled, permit) = send(member, &preparation, context, limits).await?;
    let is_blind = preparation.is_blind;
    let Some((expected, evidence)) = preparation.expected else {
        slot.give_back();
        outlives_signal(&signalled, member.timeout).await?;
        return prove_life(member, None, direction, limits);
    };
    if direction.is_back() {
        member.shown_back.clone_from(&expected.confirm);
    }
    let Evidence {
        proof,
        until,
        needs_second_end,
    } = evidence;
    let expected = Expected { until, ..expected };
    let took = match confirm(&signalled, member, &expected, limits, slot, permit).await {
        Ok(took) => took,
        // It shows the expected content as it did before, and no end of an earlier reload was seen.
        Err(failure) if failure.kind.outcome() == Outcome::Unconfirmed && !direction.is_back() => {
            return prove_life(member, Some(EARLIER_OPEN.into()), direction, limits);
        }
        Err(failure) => return Err(explain_blind(failure, is_blind)),
    };
    if needs_second_end {
        slot.give_back();
        let expected = Expected {
            until: WaitUntil::Shown,
            ..expected
        };
        Box::pin(second_end::await_second_end(
            signalled,
            member,
            &expected,
            sent_before,
            (limits, slot, context.hides_output(member)),
        ))
        .await?;
    } else if proof == Proof::None {
        let why = why_unproven(member, &expected);
        return prove_life(member, why, direction, limits);
    }
    Ok(Proven::Config(proof, took))
}

/// Signals the prepared instance. Returns the permit of its first attempt, if that follows at once.
async fn send<'a>(
    member: &mut PlannedInstance,
    preparation: &Preparation,
    context: ProofContext<'_>,
    limits: &'a ProbeLimits,
) -> Result<(SignalledProcess, Option<SemaphorePermit<'a>>), Failure> {
    let mut permit = if preparation.probes_at_once {
        first_permit(limits).await
    } else {
        None
    };
    let may_be_unseen = preparation
        .expected
        .as_ref()
        .is_none_or(|(_, evidence)| evidence.may_be_unseen());
    if may_be_unseen && member.group.speaks == Speaks::None {
        member.listened = match lost_listeners::listens(member, limits, LISTENERS_MAX_AGE) {
            Ok(listens) => listens,
            // Nothing of a rollback is claimed that was not seen.
            Err(_) if context.direction.is_back() => false,
            Err(why) => return Err(why.cannot_tell(WHERE_IT_LISTENS)),
        };
    }
    // Where a log cannot be read, its mark says so; a rollback signals all the same.
    let _ = limits.logs.learn(member, context.changes);
    context.begin_signal(member);
    // An instance that must be waited for holds neither a permit nor a slot.
    let release = || {
        drop(permit.take());
        context.slot.give_back();
    };
    let secret = context.hides_output(member);
    let signalled = signal(member, (&limits.logs, secret), release).await?;
    if permit.is_none() {
        tokio::task::yield_now().await;
    }
    Ok((signalled, permit))
}

/// The state of an instance that is ready for its signal.
struct Preparation {
    /// The expectation, and its evidence; `None` if nothing can be seen.
    expected: Option<(Expected, Evidence)>,
    /// True if every assertion lacks the baseline that it compares with, so that none can prove the
    /// reload.
    is_blind: bool,
    /// True if the first attempt follows the signal at once.
    probes_at_once: bool,
}

/// Reads the baseline and decides what must be shown after the signal.
async fn prepare(
    member: &mut PlannedInstance,
    context: ProofContext<'_>,
    limits: &ProbeLimits,
) -> Result<Preparation, Failure> {
    let ProofContext {
        changes,
        direction,
        slot,
        ..
    } = context;
    let mut assertions = resolve_assertions(&member.group.confirm, member, changes)?;
    let first = member.baseline.clone();
    member.instance.proof = None;
    let earlier = settle_baseline(member, &assertions, &first, context, limits).await;
    if !direction.is_back()
        && !member.unresponsive
        && let Some(failure) = lacking_baseline(member, &assertions)
    {
        return Err(failure);
    }
    let children_before = record_processes(member, direction)?;
    specialize(
        &mut assertions,
        &member.prior_readings,
        &first,
        changes,
        direction,
    );
    if !direction.is_back() && !member.unresponsive {
        Box::pin(sample_baseline(member, &assertions, limits)).await;
    }
    let is_blind = drop_unprovable(&mut assertions, member, changes);
    // The readings of an earlier run are from before the new config. Those of this survey may not
    // be.
    if !direction.is_back()
        && !member.signal_may_be_pending
        && !matches!(member.prior_readings, PriorReadings::Before(_))
    {
        readings::keep_survey(&assertions, &first, &mut member.baseline);
    }
    if let Some(wait) = readings::next_second(&assertions, &member.baseline) {
        slot.give_back();
        tokio::time::sleep(wait).await;
    }
    let probes_at_once = probes_at_once(member, &assertions);
    let expected = expectation(member, changes, assertions, direction)?.map(|expected| {
        let evidence = Evidence::of(member, &expected, &first, (changes, direction), earlier);
        let expected = Expected {
            children_before,
            ..expected
        };
        (expected, evidence)
    });
    Ok(Preparation {
        expected,
        is_blind,
        probes_at_once,
    })
}

/// Records the sockets and the descendants of an instance right before its signal. Returns its
/// children, if a child or a holder of its socket may become its successor. An instance that speaks
/// our protocol has no successor.
///
/// # Errors
/// Fails forward if the descendants cannot be read. A rollback signals all the same, and proves
/// nothing then.
fn record_processes(
    member: &mut PlannedInstance,
    direction: Direction,
) -> Result<Option<BTreeSet<i32>>, Failure> {
    if member.group.speaks != Speaks::None {
        return Ok(None);
    }
    // A process whose sockets are not known here is not taken for its successor.
    member.sockets = sockets_of(member.instance.pid).unwrap_or_default();
    let children = children(member.instance.pid).map_err(KernelError::Children);
    let recorded = children.and_then(|children| {
        old_workers::record_old_workers(member, direction)?;
        Ok(children)
    });
    member.old_workers_unread = recorded.as_ref().err().map(ToString::to_string);
    match recorded {
        Err(why) if !direction.is_back() => Err(why.cannot_tell(WHICH_WORKERS)),
        recorded => Ok(recorded.ok()),
    }
}

/// Tells whether the first attempt follows the signal at once. `hello serve` reloads and answers on
/// one thread: if the request is queued already, one wake-up does both. Other programs rarely
/// finish a reload that fast, so they are signalled before they are probed. An assertion that
/// needs a baseline must not wait for a permit after its reading; nor must an instance that is
/// known to be unresponsive.
fn probes_at_once(member: &PlannedInstance, assertions: &[Assertion]) -> bool {
    let is_silent = member.unresponsive || member.instance.outcome == Outcome::TimedOut;
    member.group.speaks == Speaks::Hello
        && !is_silent
        && !assertions.iter().any(Assertion::needs_baseline)
}

/// Acquires the permit of an attempt that follows the signal at once, if there is one soon.
async fn first_permit(limits: &ProbeLimits) -> Option<SemaphorePermit<'_>> {
    tokio::time::timeout(PERMIT_WAIT, limits.responsive.acquire())
        .await
        .ok()
        .and_then(Result::ok)
}

/// Adds to the failure of a wait why the instance could not be proven.
fn explain_blind(failure: Failure, is_blind: bool) -> Failure {
    if is_blind && failure.kind.outcome() == Outcome::TimedOut {
        Failure {
            text: format!("{}; {BLIND}", failure.text),
            ..failure
        }
    } else {
        failure
    }
}

/// Returns why the assertions of an instance prove nothing though they hold.
fn why_unproven(member: &PlannedInstance, expected: &Expected) -> Option<String> {
    let source = expected
        .confirm
        .first()?
        .source
        .describe(&member.instance.endpoint);
    let had_reading = member.baseline.first().is_some_and(Option::is_some);
    let why = if had_reading {
        "read the same before its signal"
    } else {
        "had nothing to read before its signal, and may have held all the time"
    };
    Some(format!("{source} {why}"))
}

/// Ends a wait in which the instance lived and nothing was proven, for the reason `why`.
///
/// # Errors
/// Fails if the instance is stopped, or does not listen any more.
fn prove_life(
    member: &mut PlannedInstance,
    why: Option<String>,
    direction: Direction,
    limits: &ProbeLimits,
) -> Result<Proven, Failure> {
    if let Some(fault) = lost_listeners::fault(member, limits) {
        return Err(fault);
    }
    // A failure that is there already, as that it was unresponsive before the run, says more.
    if let Some(text) = why.filter(|_| !direction.is_back() && member.instance.failure.is_none()) {
        member.fail(
            Outcome::Unconfirmed,
            Failure {
                kind: Outcome::Unconfirmed.into(),
                text,
            },
        );
    }
    Ok(Proven::Life)
}
