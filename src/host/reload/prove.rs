//! Signals one instance and waits for its proof: what must be seen, and what that shows.

use std::time::{Duration, Instant};

use crate::{
    event::{Failure, Outcome, Proof},
    fact::{Assertion, Expectation, Source},
    fleet::Speaks,
    host::{
        net::sockets::sockets_of,
        probe::{
            confirm::{
                Expected, OtherConfig, SelfReportExpectation, WaitUntil, confirm,
                follow_moved_endpoint, outlives_signal,
            },
            limits::ProbeLimits,
            lost_listeners, old_workers, readings,
            results::ProbeResults,
            workers::{SETTLED, kept},
        },
        proc::{guard, tree::children},
        reload::{context::ProofContext, second_end, signal::signal},
    },
    step::{PlannedInstance, PriorReadings, TargetChange},
};

/// Longest that the signal of an instance which is asked at once waits for the turn of its
/// question. Silent instances hold the turns for longer, and must not hold up the signals of
/// others.
const SOON: Duration = Duration::from_millis(250);

/// Why the wanted content proves nothing of an instance that an earlier run has signalled.
const EARLIER_OPEN: &str = "it shows this config as it did before its signal, and nothing shows \
                            that the reload of an earlier run is over";

/// The end of a wait that no fault has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proven {
    /// It runs the wanted config; by which proof, and how long after its signal.
    Config(Proof, Duration),
    /// It lived until its deadline, no fault was seen, and nothing proves which config it runs.
    Life,
}

/// Whether an earlier reload of the instance may still be under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Earlier {
    /// None is known, or its end was seen.
    Over,
    /// Its end was not seen: a later answer may come from it.
    Open,
}

/// Signals one instance and waits until it has shown the wanted config, or its deadline passes.
///
/// # Errors
/// The trouble: it died, it refused, it does not take the signal, or it proves nothing though it
/// could.
pub(crate) async fn prove(
    member: &mut PlannedInstance,
    fresh: ProofContext<'_>,
    lanes: &ProbeLimits,
) -> Result<Proven, Failure> {
    let ProofContext {
        changes: shifts,
        undo,
        slot: turn,
        ..
    } = fresh;
    let mut facts = resolve_assertions(&member.group.confirm, shifts)?;
    let first = member.baseline.clone();
    member.instance.proof = None;
    // Once it was seen on the new config, the reload of that is over.
    let unseen = match member.instance.outcome {
        Outcome::Unconfirmed => undo,
        Outcome::TimedOut => undo && member.proven_at.is_none(),
        _ => false,
    };
    let mut earlier = if member.signal_may_be_pending || unseen {
        Earlier::Open
    } else {
        Earlier::Over
    };
    let compares = facts.iter().any(Assertion::needs_baseline);
    if compares && (undo || member.signal_may_be_pending) {
        turn.give_back();
        // A reload that still runs must not be taken for the one that is about to be asked for.
        if Box::pin(wait_until_idle(member, &facts, lanes)).await {
            earlier = Earlier::Over;
        }
    }
    let sent = member.signalled;
    if !facts.is_empty() && (compares || undo || member.signal_may_be_pending) {
        Box::pin(reread_baseline(member, &facts, undo, lanes)).await;
        if let PriorReadings::Before(kept) = &member.prior_readings {
            // It may run the new config already: its answer of now is nothing that could change.
            let changes = member
                .baseline
                .iter_mut()
                .zip(kept)
                .zip(&facts)
                .filter(|(_, fact)| fact.expectation == Expectation::Changed && !undo);
            changes.for_each(|((now, before), _)| now.clone_from(before));
        }
        if undo
            && !member.signal_may_be_pending
            && second_end::has_ended_since(&facts, &first, &member.baseline, sent)
        {
            earlier = Earlier::Over;
        }
    }
    // A child, or a holder of its socket, may have taken its place later. One that speaks our
    // protocol never hands over.
    let kids = (member.group.speaks == Speaks::None)
        .then(|| children(member.instance.pid).ok())
        .flatten();
    if kids.is_some() {
        member.sockets = sockets_of(member.instance.pid).unwrap_or_default();
        old_workers::record_old_workers(member, undo);
    }
    specialize(&mut facts, &member.prior_readings, &first, shifts, undo);
    if !undo && !member.unresponsive {
        Box::pin(shown_before(member, &facts, lanes)).await;
    }
    let blind = drop_unprovable(&mut facts, member, shifts);
    // Where an earlier run has left its readings, those are from before the new config, and this
    // survey's may not be.
    if !undo
        && !member.signal_may_be_pending
        && !matches!(member.prior_readings, PriorReadings::Before(_))
    {
        readings::keep_survey(&facts, &first, &mut member.baseline);
    }
    if let Some(wait) = readings::next_second(&facts, &member.baseline) {
        turn.give_back();
        tokio::time::sleep(wait).await;
    }
    // A server that reloads and answers on one thread does both while it is awake, and the question
    // must be there by then. All others are signalled before any of them is asked: at once they are
    // hardly ever done. Assertions that compare with a reading must not wait once more, nor must an
    // instance that is known to be silent.
    let is_silent = member.unresponsive || member.instance.outcome == Outcome::TimedOut;
    let asked_at_once = member.group.speaks == Speaks::Hello
        && !is_silent
        && !facts.iter().any(Assertion::needs_baseline);
    let wanted = expectation(member, shifts, facts, undo)?;
    let plan = wanted
        .as_ref()
        .map(|wanted| Evidence::of(member, (wanted, &first), shifts, undo, earlier));
    let mut lane = if asked_at_once {
        tokio::time::timeout(SOON, lanes.responsive.acquire())
            .await
            .ok()
            .and_then(Result::ok)
    } else {
        None
    };
    let may_be_unseen = plan.as_ref().is_none_or(Evidence::may_be_unseen);
    if may_be_unseen && member.group.speaks == Speaks::None {
        member.listened = lost_listeners::listens(member, lanes);
    }
    fresh.begun(member);
    let hung = signal(member, || {
        drop(lane.take());
        turn.give_back();
    });
    let hung = hung.await?;
    if lane.is_none() {
        tokio::task::yield_now().await;
    }
    let Some((
        wanted,
        Evidence {
            proof,
            until,
            again,
        },
    )) = wanted.zip(plan)
    else {
        turn.give_back();
        outlives_signal(&hung, member.timeout).await?;
        return prove_life(member, None, undo, lanes);
    };
    if undo {
        member.shown_back.clone_from(&wanted.confirm);
    }
    let wanted = Expected {
        children_before: kids,
        until,
        ..wanted
    };
    let took = match confirm(&hung, member, &wanted, lanes, turn, lane).await {
        Ok(took) => took,
        // It shows what is wanted, as it did before, and the end of an earlier reload was not seen.
        Err(trouble) if trouble.kind.outcome() == Outcome::Unconfirmed && !undo => {
            return prove_life(member, Some(EARLIER_OPEN.into()), undo, lanes);
        }
        Err(trouble) if trouble.kind.outcome() == Outcome::TimedOut && blind => {
            return Err(Failure {
                text: format!("{}; {BLIND}", trouble.text),
                ..trouble
            });
        }
        Err(trouble) => return Err(trouble),
    };
    if again {
        turn.give_back();
        let wanted = Expected {
            until: WaitUntil::Shown,
            ..wanted
        };
        Box::pin(second_end::await_second_end(
            hung,
            member,
            &wanted,
            sent,
            (lanes, turn),
        ))
        .await?;
    } else if proof == Proof::None {
        let held = wanted
            .confirm
            .first()
            .map(|fact| fact.source.describe(&member.instance.endpoint));
        let had_reading = member.baseline.first().is_some_and(Option::is_some);
        let why = if had_reading {
            "read the same before its signal"
        } else {
            "had nothing to read before its signal, and may have held all the time"
        };
        return prove_life(
            member,
            held.map(|source| format!("{source} {why}")),
            undo,
            lanes,
        );
    }
    Ok(Proven::Config(proof, took))
}

/// The end of a wait in which the instance lived and nothing was proven, for this reason.
///
/// # Errors
/// The trouble: it is stopped, or listens nowhere any more.
fn prove_life(
    member: &mut PlannedInstance,
    why: Option<String>,
    undo: bool,
    lanes: &ProbeLimits,
) -> Result<Proven, Failure> {
    if let Some(fault) = lost_listeners::fault(member, lanes) {
        return Err(fault);
    }
    // That it was silent before the run says more.
    if let Some(text) = why.filter(|_| !undo && member.instance.failure.is_none()) {
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

/// How the proof of one instance is gathered.
struct Evidence {
    proof: Proof,
    until: WaitUntil,
    /// Whether what was seen can be the end of an earlier reload, so that another end must be seen.
    again: bool,
}

impl Evidence {
    fn of(
        member: &PlannedInstance,
        (wanted, first): (&Expected, &[Option<String>]),
        shifts: &[TargetChange],
        undo: bool,
        earlier: Earlier,
    ) -> Self {
        if wanted.self_report.is_some() {
            return Self {
                proof: Proof::Exact,
                until: WaitUntil::Shown,
                again: false,
            };
        }
        let (written, open) = (&member.group.confirm, earlier == Earlier::Open);
        // An assertion that held already counts only where the instance may run this config since
        // before its signal, where no earlier reload can end that, and where the other config would
        // not make it hold.
        let may_hold =
            !open && (undo || member.signal_may_be_pending || member.may_run_new || member.runs_it);
        let others: Vec<Option<OtherConfig>> = written
            .iter()
            .zip(&wanted.confirm)
            .map(|(written, fact)| other_text(written, fact, shifts))
            .collect();
        let differs = |at: usize| others[at].is_some();
        // While an earlier reload is under way, its end is a change as well.
        let counts = |fact: &Assertion| undo || !open || fact.expectation != Expectation::Changed;
        let proof = strongest_proof(&wanted.confirm, &member.baseline, differs, may_hold, counts);
        let compares = wanted.confirm.iter().any(Assertion::needs_baseline);
        // The wanted content proves nothing while an earlier reload may be under way. The other
        // content, seen before it, shows that this reload is over.
        if open
            && !compares
            && (undo || (proof == Proof::None && others.iter().any(Option::is_some)))
        {
            let seen = others.iter().zip(&member.baseline).any(|(other, before)| {
                other
                    .as_ref()
                    .zip(before.as_deref())
                    .is_some_and(|(o, b)| o.is(b))
            });
            let seen = seen || readings::show_the_other(&wanted.confirm, first, &member.baseline);
            return Self {
                proof: Proof::Content,
                until: WaitUntil::Other {
                    others,
                    seen: seen.into(),
                },
                again: false,
            };
        }
        let until = if proof == Proof::None {
            WaitUntil::Deadline
        } else {
            WaitUntil::Shown
        };
        Self {
            proof,
            until,
            again: open && proof != Proof::None,
        }
    }

    /// Tells whether the wait may end with nothing seen but that the instance lives.
    fn may_be_unseen(&self) -> bool {
        self.proof == Proof::None || matches!(self.until, WaitUntil::Other { .. })
    }
}

/// The reading that the config which `shifts` replace would give to an assertion; none where that
/// is not known, or is the same.
pub(crate) fn other_text(
    written: &Assertion,
    filled: &Assertion,
    shifts: &[TargetChange],
) -> Option<OtherConfig> {
    let Expectation::Equals(text) = &filled.expectation else {
        return None;
    };
    if written.expectation == Expectation::Changed {
        return Some(OtherConfig::Not(text.clone()));
    }
    let from = shifts.first()?.from.as_ref()?.file();
    match written.resolved(from).ok()?.expectation {
        Expectation::Equals(old) if old != *text => Some(OtherConfig::Text(old)),
        _ => None,
    }
}

/// The facts with what the config says that `shifts` install.
pub(crate) fn resolve_assertions(
    facts: &[Assertion],
    shifts: &[TargetChange],
) -> Result<Vec<Assertion>, Failure> {
    let to = shifts.first().and_then(|s| s.to.file());
    facts
        .iter()
        .map(|f| f.resolved(to))
        .collect::<Result<_, _>>()
        .map_err(|text| Failure {
            kind: Outcome::Refused.into(),
            text,
        })
}

/// Makes the facts that ask for a change ask for what can be seen; `first` is what they read before
/// the way forth.
fn specialize(
    facts: &mut [Assertion],
    kept: &PriorReadings,
    first: &[Option<String>],
    shifts: &[TargetChange],
    undo: bool,
) {
    let (first, back) = match kept {
        PriorReadings::None => (first, undo),
        PriorReadings::Before(kept) => (kept.as_slice(), undo),
        PriorReadings::After(kept) => (kept.as_slice(), !undo),
    };
    let same = !shifts.is_empty()
        && shifts.iter().all(|s| {
            s.from
                .as_ref()
                .is_some_and(|from| from.sha256 == s.to.sha256)
        });
    for (fact, first) in facts
        .iter_mut()
        .zip(first)
        .filter(|(fact, _)| fact.expectation == Expectation::Changed)
    {
        match first {
            // The same bytes once more change no answer: that there is one must do.
            _ if same => fact.expectation = Expectation::Contains(String::new()),
            // Whether the way forth changed it or not, on the way back it must be what it was.
            Some(first) if back => fact.expectation = Expectation::Equals(first.clone()),
            _ => {}
        }
    }
}

/// Why a silent one cannot be proven.
const BLIND: &str = "its facts compare with what it said before the signal, when it was silent, \
                     so that nothing proves its reload";

/// Of one that was silent, what compares with a reading that nobody has proves nothing: its source
/// must only answer again, and the other facts are the proof, or that it tells what it serves.
/// Answers whether there is nothing else; then nothing is proven.
fn drop_unprovable(
    facts: &mut [Assertion],
    member: &PlannedInstance,
    shifts: &[TargetChange],
) -> bool {
    let baseline = |at: usize| member.baseline.get(at).is_some_and(Option::is_some);
    let unread = |at: usize, fact: &Assertion| {
        member.unresponsive
            && fact.needs_baseline()
            && fact.expectation != Expectation::AfterSignal
            && !baseline(at)
    };
    let tells = member.group.speaks == Speaks::Hello && !shifts.is_empty();
    if !tells && facts.iter().enumerate().all(|(at, fact)| unread(at, fact)) {
        return !facts.is_empty();
    }
    for (at, fact) in facts.iter_mut().enumerate() {
        if unread(at, fact) {
            fact.expectation = Expectation::Contains(String::new());
        }
    }
    false
}

/// What proves that `member` runs what `shifts` install; none where its group says that there is
/// nothing to see.
fn expectation(
    member: &PlannedInstance,
    shifts: &[TargetChange],
    facts: Vec<Assertion>,
    undo: bool,
) -> Result<Option<Expected>, Failure> {
    let (i, group) = (&member.instance, &member.group);
    let says = match (group.speaks, shifts.first().map(|s| &s.to)) {
        (Speaks::Hello, Some(to)) => {
            // Of one that did not say what it runs, an answer could be from before the signal.
            let anew = undo
                || member.signal_may_be_pending
                || i.before.as_ref().is_none_or(|before| *before == to.sha256);
            Some(SelfReportExpectation {
                sha256: to.sha256.clone(),
                rejection_is_final: !undo,
                require_new_attempt: anew,
                seq: member.attempt_seq,
            })
        }
        _ => None,
    };
    // A refusal of the way forth is no refusal of the way back, and one of an earlier run's config
    // none of this one's.
    let reject = if undo || member.signal_may_be_pending {
        Vec::new()
    } else {
        resolve_assertions(&group.reject, shifts)?
    };
    if facts.is_empty() && says.is_none() {
        return Ok(None);
    }
    // The kernel is no connection that could have been answered by somebody else.
    let samples = if says.is_none() && facts.iter().all(|f| f.source.is_kernel()) {
        1
    } else {
        group.samples
    };
    Ok(Some(Expected {
        self_report: says,
        confirm: facts,
        reject,
        samples,
        children_before: None,
        until: WaitUntil::Shown,
    }))
}

/// The assertions that must still hold of an instance that has shown them, without a signal; `undo`
/// where it has gone back to what `shifts` install. None where nothing can be asked.
pub(crate) fn expected_after(
    member: &PlannedInstance,
    shifts: &[TargetChange],
    undo: bool,
) -> Result<Option<Expected>, Failure> {
    if undo {
        // Made for its way back: its readings of before the run are gone by now.
        return Ok(
            expectation(member, shifts, member.shown_back.clone(), undo)?.map(has_asked_proof_only),
        );
    }
    let mut facts = resolve_assertions(&member.group.confirm, shifts)?;
    if member.instance.outcome == Outcome::Unchanged {
        // It was never signalled, so nothing that compares with before its signal can hold. What
        // did not hold at the survey is no part of the reason for which it is left as it is.
        let now = |at: usize| member.baseline.get(at).and_then(Option::as_deref);
        let stays = |(at, fact): &(usize, Assertion)| {
            !fact.needs_baseline() && now(*at).is_none_or(|now| fact.holds_alone(now))
        };
        let stay = facts.into_iter().enumerate().filter(stays);
        facts = stay.map(|(_, fact)| fact).collect();
    }
    specialize(
        &mut facts,
        &member.prior_readings,
        &member.baseline,
        shifts,
        false,
    );
    drop_unprovable(&mut facts, member, shifts);
    let wanted = expectation(member, shifts, facts, false)?;
    Ok(if member.instance.outcome == Outcome::Unchanged {
        wanted.map(has_asked_proof_only)
    } else {
        wanted
    })
}

/// The same of an instance whose word is enough, however old its last reload is.
fn has_asked_proof_only(wanted: Expected) -> Expected {
    let says = wanted.self_report.map(|says| SelfReportExpectation {
        require_new_attempt: false,
        rejection_is_final: false,
        ..says
    });
    Expected {
        self_report: says,
        reject: Vec::new(),
        ..wanted
    }
}

/// Waits, at most half of what it has for its proof, until an earlier reload is over: the instance
/// takes the signal again, none is pending, and the kernel's reading of its workers is the same
/// twice. Answers whether that was seen; it never is where the kernel is not asked.
async fn wait_until_idle(
    member: &PlannedInstance,
    facts: &[Assertion],
    lanes: &ProbeLimits,
) -> bool {
    let (i, group) = (&member.instance, &member.group);
    let kernel = || facts.iter().map(|f| &f.source).filter(|s| s.is_kernel());
    let mut before = None;
    let settle = async {
        loop {
            let now = ProbeResults::of(kernel(), member, lanes)
                .await
                .readings(facts);
            let idle = guard::not_taking(i.pid, group).is_none()
                && !guard::is_pending(i.pid, group.signal);
            if idle && before.as_ref() == Some(&now) {
                break;
            }
            before = idle.then_some(now);
            tokio::time::sleep(SETTLED).await;
        }
    };
    if kernel().next().is_some() && guard::is_same(i.pid, i.started, &i.exe) {
        // One that stays stopped is signalled all the same.
        return tokio::time::timeout(member.timeout / 2, settle)
            .await
            .is_ok();
    }
    false
}

/// Reads what comparing facts compare with once more, as late as can be: what changed meanwhile was
/// not changed by the signal. On the way back nothing from before the way forth counts.
async fn reread_baseline(
    member: &mut PlannedInstance,
    facts: &[Assertion],
    undo: bool,
    lanes: &ProbeLimits,
) {
    let (before, unsure) = (
        std::mem::take(&mut member.baseline),
        member.signal_may_be_pending,
    );
    if undo || unsure || member.unresponsive {
        // The way forth may have moved it to where nobody has looked yet; a silent one may be
        // somewhere by now.
        follow_moved_endpoint(member, lanes);
    }
    let until = Instant::now() + member.timeout / 2;
    let mut silent = member.unresponsive;
    let now = loop {
        let now = {
            let _slow = if silent {
                lanes.unresponsive.acquire().await.ok()
            } else {
                None
            };
            let fast = if silent {
                None
            } else {
                lanes.responsive.acquire().await.ok()
            };
            let left = until.saturating_duration_since(Instant::now());
            let asked = Box::pin(ProbeResults::within(
                left,
                facts.iter().map(|f| &f.source),
                member,
                lanes,
            ));
            lanes.carried(fast, asked).await.map_or_else(
                || vec![None; facts.len()],
                |answers| answers.readings(facts),
            )
        };
        // Where nothing older counts, one that was only slow to answer could never prove what
        // compares.
        let lacks = facts.iter().zip(&now).any(|(fact, reading)| {
            fact.needs_baseline()
                && fact.expectation != Expectation::AfterSignal
                && reading.is_none()
        });
        let i = &member.instance;
        if !(undo || unsure)
            || member.unresponsive
            || !lacks
            || Instant::now() >= until
            || !guard::is_same(i.pid, i.started, &i.exe)
        {
            break now;
        }
        silent = true;
        tokio::time::sleep(SETTLED).await;
    };
    let older = |at: usize| {
        before
            .get(at)
            .cloned()
            .flatten()
            .filter(|_| !undo && !unsure)
    };
    let now =
        now.into_iter()
            .enumerate()
            .map(|(at, reading)| match (before.get(at), facts.get(at)) {
                // Who worked before the way forth runs the old config, and may stay.
                (Some(Some(first)), Some(fact)) if undo && fact.source == Source::Workers => {
                    reading.map(|now| kept(first, &now))
                }
                _ => reading,
            });
    member.baseline = now
        .enumerate()
        .map(|(at, reading)| reading.or_else(|| older(at)))
        .collect();
}

/// Reads once more what does not hold before the signal. Of two processes that answer in turn the
/// other one may have shown it all the time, and then it proves nothing.
async fn shown_before(member: &mut PlannedInstance, facts: &[Assertion], lanes: &ProbeLimits) {
    let samples = if member.group.samples > 1 {
        member.group.samples
    } else {
        0
    };
    let holds = |fact: &Assertion, read: &str| fact.holds_alone(read);
    for (at, fact) in facts.iter().enumerate().filter(|(_, fact)| {
        matches!(
            fact.expectation,
            Expectation::Equals(_) | Expectation::Contains(_)
        )
    }) {
        let is_open = |before: Option<&Option<String>>| {
            before
                .and_then(Option::as_deref)
                .is_some_and(|before| !holds(fact, before))
        };
        for _ in 0..samples {
            if !is_open(member.baseline.get(at)) {
                break;
            }
            let _permit = lanes.responsive.acquire().await;
            let now = ProbeResults::of(std::iter::once(&fact.source), member, lanes)
                .await
                .read(fact);
            if let (Some(before), Some(now)) = (
                member.baseline.get_mut(at),
                now.filter(|now| holds(fact, now)),
            ) {
                *before = Some(now);
            }
        }
    }
}

/// The strongest thing that assertions prove when all of them hold. One that held before the signal
/// could not have failed, and proves nothing, unless it `may_hold` and `differs` says of its place
/// that the other config would not make it hold. Without a reading from before, `differs` decides.
/// Only assertions that `counts` says yes to prove anything.
pub(crate) fn strongest_proof(
    filled: &[Assertion],
    baseline: &[Option<String>],
    differs: impl Fn(usize) -> bool,
    may_hold: bool,
    counts: impl Fn(&Assertion) -> bool,
) -> Proof {
    let of = |(at, filled): (usize, &Assertion)| match &filled.expectation {
        Expectation::Equals(_) | Expectation::Contains(_) => {
            let held = baseline
                .get(at)
                .and_then(Option::as_deref)
                .map(|before| filled.holds_alone(before));
            let proves = match held {
                Some(held) => !held || (may_hold && differs(at)),
                None => differs(at),
            };
            proves.then_some(Proof::Content)
        }
        Expectation::Changed => Some(Proof::Content),
        Expectation::Increased | Expectation::AfterSignal => Some(Proof::Reloaded),
        Expectation::Replaced => Some(Proof::Workers),
    };
    filled
        .iter()
        .enumerate()
        .filter(|(_, fact)| counts(fact))
        .filter_map(of)
        .min()
        .unwrap_or(Proof::None)
}
