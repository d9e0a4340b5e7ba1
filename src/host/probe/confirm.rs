//! Asks an instance what it serves until the wanted config is proven, it refused, it died, or the
//! deadline passed.

use std::{
    cell::Cell,
    collections::BTreeSet,
    time::{Duration, Instant},
};

use procfs::process::Process;
use tokio::sync::{Notify, SemaphorePermit};

use crate::{
    event::{Failure, FailureKind, Outcome},
    fact::{Assertion, Source, old_workers},
    fleet::{Listed, Speaks},
    host::{
        exec::placeholders::Values,
        net::{
            http::{QUICK, STATUS, get, no_answer, own},
            sockets::Listeners,
        },
        parallel::admission::Slot,
        probe::{
            limits::ProbeLimits,
            old_workers, port_sharing,
            results::ProbeResults,
            samples::Samples,
            workers::{apart, draining, lasting},
        },
        proc::{
            inside,
            pidfd::{SignalledProcess, end_of, has_ended},
            tree::{Child, children},
        },
    },
    self_report::{AttemptResult, SelfReport, X_CONFIG_SHA256, X_INSTANCE, is_instance},
    step::PlannedInstance,
};

/// An endpoint that does not prove anything is looked for again, but not at every attempt.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// What an instance must prove; the readings from before the signal are its member's.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    /// For one that speaks our protocol: what it must say of itself.
    pub(crate) self_report: Option<SelfReportExpectation>,
    /// Must all hold; filled in already.
    pub(crate) confirm: Vec<Assertion>,
    /// One that holds now and did not before ends the wait: it refused.
    pub(crate) reject: Vec<Assertion>,
    /// How often in a row.
    pub(crate) samples: u32,
    /// Its children before the signal, where a new one may take its place.
    pub(crate) children_before: Option<BTreeSet<i32>>,
    /// When it has been seen.
    pub(crate) until: WaitUntil,
}

impl Expected {
    /// Returns all that is asked. An instance that speaks our protocol is asked on its `serving`
    /// path, if nothing else is.
    fn sources<'a>(&'a self, serving: &'a Source) -> impl Iterator<Item = &'a Source> {
        let serving = (self.self_report.is_some() && self.confirm.is_empty()).then_some(serving);
        self.confirm
            .iter()
            .chain(&self.reject)
            .map(|f| &f.source)
            .chain(serving)
    }
}

/// When the wait for a proof is over.
#[derive(Debug, Clone)]
pub(crate) enum WaitUntil {
    /// Once everything holds.
    Shown,
    /// At the deadline, and everything must hold then: all of it may have held before the signal.
    Deadline,
    /// Once everything holds, and the instance was `seen` on the other config before that.
    Other {
        /// The reading that the other config gives to each assertion, where that is known.
        others: Vec<Option<OtherConfig>>,
        /// Whether one was read, now or before the signal.
        seen: Cell<bool>,
    },
}

/// A reading that only the other config gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OtherConfig {
    /// This text.
    Text(String),
    /// Any text but this one.
    Not(String),
}

impl OtherConfig {
    /// Whether the reading `now` is the other config's.
    pub(crate) fn is(&self, now: &str) -> bool {
        match self {
            // A program that answers nothing while it loads shows no config.
            _ if now.trim().is_empty() => false,
            Self::Text(text) => now == text,
            Self::Not(text) => now != text,
        }
    }
}

/// Why the way back is not proven by the old config alone.
const STILL_OPEN: &str =
    "serves the old config, and nothing shows that its reload of the new one is over";

/// What an instance that speaks our protocol must say.
#[derive(Debug, Clone)]
pub(crate) struct SelfReportExpectation {
    /// Digest that must be told on the serving path.
    pub(crate) sha256: String,
    /// Whether a refusal of `sha256` ends the wait.
    pub(crate) rejection_is_final: bool,
    /// The last attempt must be later than the one before the signal and have read `sha256`:
    /// an answer that could be from before the signal proves nothing.
    pub(crate) require_new_attempt: bool,
    /// The instance's attempt number before the signal; not known of a sick one.
    pub(crate) seq: u64,
}

/// Waits `limit` from the signal on; an instance of which nothing can be seen must live that long.
///
/// # Errors
/// The trouble: it died.
pub(crate) async fn outlives_signal(
    hung: &SignalledProcess,
    limit: Duration,
) -> Result<(), Failure> {
    let _ = tokio::time::timeout_at((hung.at + limit).into(), end_of(&hung.pidfd)).await;
    // The watch may have failed; the process is asked itself.
    if has_ended(&hung.pidfd) {
        Err(Failure {
            kind: Outcome::Died.into(),
            text: "the process ended".into(),
        })
    } else {
        Ok(())
    }
}

/// Polls until `wanted` is proven: at once, then after 1, 2, 4 .. 100 ms. Answers the time since
/// the signal; where its endpoint is by then, and which old workers will end later, stands in
/// `member`. Whoever has the turn of its first question already brings it as `lane`.
///
/// # Errors
/// The trouble: it died, it refused, or an attempt that ended past the deadline proved nothing.
pub(crate) async fn confirm(
    hung: &SignalledProcess,
    member: &mut PlannedInstance,
    wanted: &Expected,
    lanes: &ProbeLimits,
    turn: &Slot,
    mut lane: Option<SemaphorePermit<'_>>,
) -> Result<Duration, Failure> {
    let trouble = |kind: Outcome, text: String| Failure {
        kind: kind.into(),
        text,
    };
    let (limit, waits) = (member.timeout, Notify::new());
    // Most of those that are asked at once have proven it with that, and it has a limit of its own.
    if lane.is_none() {
        waits.notify_one();
    }
    let polls = async {
        let (mut pause, mut silent, mut looked) =
            (Duration::from_millis(1), member.unresponsive, hung.at);
        let mut steady = Samples::of(wanted.samples);
        loop {
            // An attempt that began before the deadline may end past it; only then is the wait
            // over.
            let late = hung.at.elapsed() >= limit;
            let said = {
                let _slow = if silent && lane.is_none() {
                    lanes.unresponsive.acquire().await.ok()
                } else {
                    None
                };
                let permit = match lane.take() {
                    None if !silent => lanes.responsive.acquire().await.ok(),
                    brought => brought,
                };
                // On the heap only while it is asked: most of a large fleet wait for their turn.
                let attempt = Box::pin(sampled(hung, member, wanted, (&mut steady, late), lanes));
                lanes
                    .carried(permit, attempt)
                    .await
                    .unwrap_or_else(|| Err(AttemptError::Silent(no_answer(QUICK))))
            };
            if let Some(kids) = &wanted.children_before {
                let id = |pid: &i32| {
                    Some((
                        *pid,
                        Process::new(*pid).and_then(|p| p.stat()).ok()?.starttime,
                    ))
                };
                let now = children(hung.pid).unwrap_or_default();
                let new: Vec<(i32, u64)> = now
                    .difference(kids)
                    .filter_map(id)
                    .filter(|id| !member.new_children.contains(id))
                    .collect();
                member.new_children.extend(new);
            }
            let mut kind = FailureKind::Ended(Outcome::TimedOut);
            let why = match said {
                Ok(draining) => {
                    // What was answered after its end was answered by somebody else.
                    if has_ended(&hung.pidfd) {
                        return Err(trouble(Outcome::Died, "the process ended".into()));
                    }
                    let took = hung.at.elapsed();
                    match other_speaker(member, wanted, lanes) {
                        None if wanted.until.waits(late) => {
                            // It holds, and must go on to do so.
                            turn.give_back();
                            waits.notify_one();
                            tokio::time::sleep(jittered(pause)).await;
                            pause = (pause * 2).min(Duration::from_millis(100));
                            continue;
                        }
                        None if matches!(&wanted.until, WaitUntil::Other { seen, .. } if !seen.get()) =>
                        {
                            return Err(trouble(Outcome::Unconfirmed, STILL_OPEN.into()));
                        }
                        None => {
                            member.instance.draining = lasting(draining).await;
                            return Ok(took);
                        }
                        Some(other) => {
                            kind = other.kind;
                            other.text
                        }
                    }
                }
                // Whatever it said or did not, one that has ended has ended.
                Err(_) if has_ended(&hung.pidfd) => {
                    return Err(trouble(Outcome::Died, "the process ended".into()));
                }
                Err(AttemptError::Refused(why)) => return Err(trouble(Outcome::Rejected, why)),
                Err(AttemptError::NotYet(why)) => why,
                Err(AttemptError::OldWorkerListening(why)) => {
                    kind = FailureKind::ForeignListener;
                    why
                }
                Err(AttemptError::Silent(why)) => {
                    silent = true;
                    why
                }
            };
            turn.give_back();
            waits.notify_one();
            if late {
                let others = if kind == FailureKind::ForeignListener {
                    Vec::new()
                } else {
                    foreign_listeners(member, lanes)
                };
                if !others.is_empty() {
                    let text = format!("{why} after {limit:?}; {}", sharing_text(&others));
                    return Err(Failure {
                        kind: FailureKind::ForeignListener,
                        text,
                    });
                }
                return Err(Failure {
                    kind,
                    text: format!("{why} after {limit:?}"),
                });
            }
            if looked.elapsed() >= LOOK_AGAIN {
                looked = Instant::now();
                if follow_moved_endpoint(member, lanes) {
                    // Its other address was the other config's.
                    if let WaitUntil::Other { seen, .. } = &wanted.until {
                        seen.set(true);
                    }
                    continue;
                }
            }
            tokio::time::sleep(jittered(pause)).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
    };
    let end = async {
        waits.notified().await;
        end_of(&hung.pidfd).await;
    };
    tokio::select! {
        biased;
        () = end => Err(trouble(Outcome::Died, "the process ended".into())),
        said = polls => said,
    }
}

impl WaitUntil {
    /// Whether what holds now is not enough yet; `late` is whether the deadline has passed.
    fn waits(&self, late: bool) -> bool {
        match self {
            Self::Shown => false,
            Self::Deadline => !late,
            Self::Other { seen, .. } => !seen.get() && !late,
        }
    }
}

/// Whether the endpoint that has answered is still the instance's. Who speaks our protocol has said
/// so itself; what the fleet gives is taken as it is.
fn endpoint_still_owned(member: &PlannedInstance, lanes: &ProbeLimits) -> bool {
    let (i, group) = (&member.instance, &member.group);
    // A socket that was opened a moment ago is in a new look only.
    let holds = |old| {
        lanes
            .listeners(old)
            .is_ok_and(|listeners| listeners.holds(i.pid, &i.endpoint, group))
    };
    group.speaks == Speaks::Hello
        || !finds_endpoint(member)
        || holds(LOOK_AGAIN)
        || holds(Duration::ZERO)
}

/// Why the answers may be another process's, or an old worker's. Where nothing is proven, an old
/// worker is no fault.
fn other_speaker(
    member: &PlannedInstance,
    wanted: &Expected,
    lanes: &ProbeLimits,
) -> Option<Failure> {
    if !endpoint_still_owned(member, lanes) {
        return Some(Failure {
            kind: Outcome::TimedOut.into(),
            text: "its endpoint is another process's by now".into(),
        });
    }
    let all = foreign_listeners(member, lanes);
    if !all.is_empty() {
        return Some(Failure {
            kind: FailureKind::ForeignListener,
            text: sharing_text(&all),
        });
    }
    if matches!(wanted.until, WaitUntil::Deadline) {
        return None;
    }
    match old_workers::listening(member, lanes) {
        Ok(old) => old.map(|pid| Failure {
            kind: FailureKind::ForeignListener,
            text: format!("pid {pid}, an old worker, still listens"),
        }),
        Err(why) => Some(Failure {
            kind: Outcome::TimedOut.into(),
            text: format!("whether an old worker still listens is not known: {why}"),
        }),
    }
}

/// That foreign listeners share its address.
pub(crate) fn sharing_text(strangers: &[String]) -> String {
    format!(
        "{} listens there too, and is not in the run",
        strangers.join(", ")
    )
}

/// Who else listens where the instance does. What the fleet gives as an endpoint may be anywhere.
pub(crate) fn foreign_listeners(member: &PlannedInstance, lanes: &ProbeLimits) -> Vec<String> {
    lanes
        .listeners(LOOK_AGAIN)
        .map(|listeners| foreign_listeners_in(member, &listeners, lanes))
        .unwrap_or_default()
}

/// The same, of these listeners.
pub(crate) fn foreign_listeners_in(
    member: &PlannedInstance,
    listeners: &Listeners,
    lanes: &ProbeLimits,
) -> Vec<String> {
    let i = &member.instance;
    // Where the fleet names an address, that need not be one of its own sockets.
    if i.endpoint.starts_with("unix:") || endpoint_is_given(member) {
        return Vec::new();
    }
    port_sharing::foreign_listeners(i.pid, &i.endpoint, listeners, lanes)
}

/// Looks where the instance listens by now; answers whether that is another place, which is asked
/// from then on.
pub(crate) fn follow_moved_endpoint(member: &mut PlannedInstance, lanes: &ProbeLimits) -> bool {
    if !finds_endpoint(member) {
        return false;
    }
    let found = lanes
        .listeners(LOOK_AGAIN)
        .and_then(|listeners| listeners.endpoint(member.instance.pid, &member.args, &member.group));
    // While it listens nowhere, or on the old and the new, nothing is known.
    let Some(new) = found.ok().filter(|new| *new != member.instance.endpoint) else {
        return false;
    };
    let i = &mut member.instance;
    let old = std::mem::replace(&mut i.endpoint, new);
    let from = i.moved_from.take().unwrap_or(old);
    // Back where it was at the survey, it has not moved; nor has one that was nowhere.
    i.moved_from = (from != i.endpoint && !from.is_empty()).then_some(from);
    true
}

/// Whether the instance's endpoint is looked for: it is asked there, and the fleet does not say
/// where that is.
fn finds_endpoint(member: &PlannedInstance) -> bool {
    member.group.needs_endpoint() && !endpoint_is_given(member)
}

/// Whether the fleet says where the instance is asked.
fn endpoint_is_given(member: &PlannedInstance) -> bool {
    let given = |listed: &Listed| listed.pid == member.instance.pid && listed.endpoint.is_some();
    member.group.instances.iter().any(given)
}

enum AttemptError {
    NotYet(String),
    /// An old worker still takes connections.
    OldWorkerListening(String),
    Silent(String),
    Refused(String),
}

impl AttemptError {
    /// An answer of another config after one of the wanted one: two may answer.
    fn tells(&self, steady: &mut Samples) {
        if matches!(self, Self::NotYet(_)) {
            steady.does_not_hold();
        }
    }
}

/// Asks every source once, and where everything holds, each in a row of samples; answers the old
/// workers that will end later. `late` is whether the deadline has passed.
async fn sampled(
    hung: &SignalledProcess,
    member: &PlannedInstance,
    wanted: &Expected,
    (steady, late): (&mut Samples, bool),
    lanes: &ProbeLimits,
) -> Result<Vec<Child>, AttemptError> {
    let mut drains = attempt(hung, member, wanted, None, lanes)
        .await
        .inspect_err(|said| said.tells(steady))?;
    steady.holds();
    if wanted.until.waits(late) {
        return Ok(drains);
    }
    let serving = Source::Http(own("/"));
    for source in steady.questions(wanted.sources(&serving)) {
        let said = attempt(hung, member, wanted, Some(source), lanes)
            .await
            .inspect_err(|said| said.tells(steady))?;
        if *source == Source::Workers {
            drains = said;
        }
    }
    Ok(drains)
}

/// Asks once, of all sources or of `only` one; answers the old workers that will end later.
async fn attempt(
    hung: &SignalledProcess,
    member: &PlannedInstance,
    wanted: &Expected,
    only: Option<&Source>,
    lanes: &ProbeLimits,
) -> Result<Vec<Child>, AttemptError> {
    let i = &member.instance;
    if i.endpoint.is_empty() && member.group.needs_endpoint() {
        return Err(AttemptError::Silent(
            "it listens nowhere where it could be asked".into(),
        ));
    }
    let (is_asked, serving) = (
        |source: &Source| only.is_none_or(|only| only == source),
        Source::Http(own("/")),
    );
    let left = member.timeout.saturating_sub(hung.at.elapsed());
    let answers = ProbeResults::within(
        left,
        wanted.sources(&serving).filter(|source| is_asked(source)),
        member,
        lanes,
    )
    .await;
    let before = |readings: &[Option<String>], at: usize| readings.get(at).cloned().flatten();
    for (at, fact) in wanted
        .reject
        .iter()
        .enumerate()
        .filter(|(_, fact)| is_asked(&fact.source))
    {
        let (now, was) = (answers.read(fact), before(&member.rejected, at));
        let holds = |now: &Option<String>| {
            now.as_deref()
                .is_some_and(|now| fact.holds(now, was.as_deref(), hung.when))
        };
        if holds(&now) && (fact.needs_baseline() || !holds(&was)) {
            return Err(AttemptError::Refused(answers.kept_old(fact, &i.endpoint)));
        }
    }
    if let Some((_, silence)) = answers.first_error() {
        return Err(AttemptError::Silent(silence.message.clone()));
    }
    let (mut not_yet, mut drains, mut lingers) = (None, Vec::new(), None);
    for (at, fact) in wanted
        .confirm
        .iter()
        .enumerate()
        .filter(|(_, fact)| is_asked(&fact.source))
    {
        let (now, was) = (answers.read(fact), before(&member.baseline, at));
        if let (WaitUntil::Other { others, seen }, Some(now)) = (&wanted.until, &now)
            && others
                .get(at)
                .is_some_and(|other| other.as_ref().is_some_and(|other| other.is(now)))
        {
            seen.set(true);
        }
        if !now
            .as_deref()
            .is_some_and(|now| fact.holds(now, was.as_deref(), hung.when))
        {
            not_yet.get_or_insert_with(|| answers.why_not(fact, &i.endpoint));
        }
        if let (Source::Workers, Some(was), Some(now)) = (&fact.source, was, now) {
            drains = draining(&was, &now);
            let apart = || {
                apart(&was, &now, &*lanes.listeners(Duration::ZERO).ok()?)
                    .map(|pid| pid.to_string())
            };
            let old = old_workers(&was, &now)
                .first()
                .and_then(|id| id.split(':').next().map(str::to_owned))
                .or_else(apart);
            lingers = old.map(|pid| format!("pid {pid}, an old worker, still listens"));
        }
    }
    if let Some(why) = lingers {
        return Err(AttemptError::OldWorkerListening(why));
    }
    let Some(says) = &wanted.self_report else {
        return not_yet.map_or(Ok(drains), |why| Err(AttemptError::NotYet(why)));
    };
    let is_it = |name: &str| {
        inside::parsed(name)
            .is_some_and(|claimed| inside::is_its_name(hung.pid, hung.started, claimed))
    };
    for answer in answers.own_answers() {
        if !answer.header(X_INSTANCE).is_some_and(is_it) {
            let named = answer.header(X_INSTANCE).filter(|named| is_instance(named));
            return Err(AttemptError::NotYet(format!(
                "it is answered by {}",
                named.unwrap_or("a process that does not say which one it is")
            )));
        }
        if answer.header(X_CONFIG_SHA256) != Some(&says.sha256) {
            not_yet.get_or_insert_with(|| "serves another config".into());
        }
    }
    if not_yet.is_none() && (!says.require_new_attempt || only.is_some()) {
        return Ok(drains);
    }
    let answer = get(&own(STATUS), &Values::at(&i.endpoint))
        .await
        .map_err(AttemptError::Silent)?;
    let told = SelfReport::read(&answer.body)
        .map_err(|e| AttemptError::NotYet(format!("{STATUS}: {e}")))?;
    if !inside::is_its_name(
        hung.pid,
        hung.started,
        (told.instance.pid, told.instance.started),
    ) {
        return Err(AttemptError::NotYet(format!(
            "it is answered by pid {}",
            told.instance.pid
        )));
    }
    let last = told.last_attempt;
    // Where nobody knows how often it had looked before its signal, it is the time of its last look
    // that tells.
    let later = if member.unresponsive {
        last.at >= hung.when
    } else {
        last.seq > says.seq
    };
    let looked = later && last.sha256.as_deref() == Some(&says.sha256);
    if not_yet.is_none() && looked {
        return Ok(drains);
    }
    let kept = matches!(
        last.result,
        AttemptResult::Rejected | AttemptResult::RestartRequired | AttemptResult::IoError
    );
    if says.rejection_is_final && later && kept && (looked || last.sha256.is_none()) {
        return Err(AttemptError::Refused(
            last.error
                .unwrap_or_else(|| "it says that it kept the old config".into()),
        ));
    }
    // What it serves is not what is wanted, or its last look was not at what is wanted.
    let still = format!(
        "still at generation {}, attempt {}",
        told.effective.generation, last.seq
    );
    Err(AttemptError::NotYet(
        not_yet
            .filter(|_| told.effective.sha256 == says.sha256)
            .unwrap_or(still),
    ))
}

/// Spreads the polls of many instances: between half the pause and all of it.
fn jittered(pause: Duration) -> Duration {
    let noise = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), Instant::now());
    pause / 2 + pause.mul_f64((noise % 1024) as f64 / 2048.0)
}
