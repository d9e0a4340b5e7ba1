//! The third verb: install, hang up, confirm. An undo is the same over flipped steps.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{
    event::{Event, HALTED, Halts, Instance, Proof, State, Stop, Trouble, Verdict},
    fact::{Fact, Source, Wants},
    fleet::Speaks,
    host::{
        LocalHost,
        answers::Answers,
        confirm::{Says, Wanted, confirm, moved},
        guard,
        hangup::{NotHung, hang_up},
        http::Lanes,
        install::sync_names,
        revive::{self, revive},
        sockets::sockets_of,
        successor::{self, Fresh, Since},
        survey::from_install,
        turns::all_of,
        workers::{SETTLED, children, kept},
    },
    step::{Member, Readings, Shift, Step},
};

/// So long the signal of one that is asked at once waits for its question's turn: those who are silent have the turns for longer, and must not hold up
/// the signals of others.
const SOON: Duration = Duration::from_millis(250);

impl LocalHost {
    pub(super) async fn commit(&mut self, steps: &mut [Step], halts: &mut Halts, tell: &mut impl FnMut(Event)) -> Result<(), Stop> {
        let undo = steps.iter().any(|s| s.undo);
        let stuck = self.install(steps, tell)?;
        // Whoever would read a file that could not be put back is left as it is, and named; everybody else goes back.
        for step in steps.iter_mut() {
            let Some(stop) = step.shifts.iter().find_map(|s| stuck.get(&s.path)) else { continue };
            for member in &mut step.members {
                let text = format!("its config could not be put back: {}", stop.reason);
                let state = if member.instance.state == State::Died { State::Died } else { State::RevertFailed };
                member.fail(state, Trouble { kind: state.into(), text });
                tell(Event::of(&member.instance));
            }
        }
        let is_free = |step: &Step| !step.shifts.iter().any(|s| stuck.contains_key(&s.path));
        let (lanes, since, surveyed) = (&self.lanes, &self.since, &self.surveyed);
        let free = steps.iter_mut().enumerate().filter(|(_, step)| is_free(step));
        let all = free.flat_map(|(at, step)| {
            let shifts = step.shifts.as_slice();
            step.members.iter_mut().enumerate().map(move |(place, m)| (at, place, shifts, m))
        });
        let signalled = all.filter(|(.., m)| m.instance.state != State::Unchanged);
        let wait = |(at, place, shifts, member), turn| async move {
            let member: &mut Member = member;
            let fresh = Fresh { shifts, since, surveyed, undo, turn: &turn };
            // Whoever is not waited for to the end stays what it was.
            *member = *signal_and_see(Box::new(member.clone()), fresh, lanes).await;
            (at, place, Event::of(&member.instance))
        };
        let mut ended = BTreeSet::new();
        // The halt of the operator: no new signal, and nobody is waited for any more.
        let finished = all_of(signalled, wait, self.at_once.saturating_sub(self.held.now / 2).max(16), halts, u8::from(undo), |(at, place, event)| {
            tell(event);
            ended.insert((at, place));
        })
        .await;
        if !finished {
            let state = if undo { State::RevertFailed } else { State::TimedOut };
            // Perhaps signalled, and nobody has waited for the proof: they count as touched.
            for (at, step) in steps.iter_mut().enumerate().filter(|(_, step)| is_free(step)) {
                let open = step.members.iter_mut().enumerate().filter(|(place, m)| !ended.contains(&(at, *place)) && m.instance.state != State::Unchanged);
                open.for_each(|(_, member)| member.fail(state, Trouble { kind: state.into(), text: HALTED.into() }));
            }
        }
        stuck.into_values().next().map_or(Ok(()), Err)
    }

    /// Makes every target what its step wants, and reads it back. On the way back, it goes on with every one that it can put back, and answers the
    /// others.
    fn install(&mut self, steps: &[Step], tell: &mut impl FnMut(Event)) -> Result<BTreeMap<PathBuf, Stop>, Stop> {
        let mut exchanged = BTreeMap::new();
        let mut stuck = self.exchange(steps, &mut exchanged);
        if exchanged.is_empty() {
            return stuck;
        }
        // One look at who is there by now and one sync serve them all.
        let since = Since::now();
        let synced = sync_names(exchanged.keys().filter_map(|path| self.targets.get(*path))).map_err(from_install);
        for (path, shift) in exchanged {
            self.since.insert(path.clone(), since.clone());
            match (&synced, &mut stuck) {
                (Ok(()), Ok(stuck)) if stuck.contains_key(path) => {}
                (Ok(()), _) => tell(Event::Installed { path: path.clone(), sha256: shift.to.sha256.clone() }),
                (Err(stop), Ok(stuck)) if steps.iter().any(|s| s.undo) => {
                    stuck.entry(path.clone()).or_insert_with(|| Stop::new(stop.verdict, stop.reason.clone()));
                }
                (Err(_), _) => {}
            }
        }
        match synced {
            Err(stop) if !steps.iter().any(|s| s.undo) => stuck.and(Err(stop)),
            _ => stuck,
        }
    }

    fn exchange<'a>(&mut self, steps: &'a [Step], exchanged: &mut BTreeMap<&'a PathBuf, &'a Shift>) -> Result<BTreeMap<PathBuf, Stop>, Stop> {
        let run = self.run.clone();
        let mut stuck = BTreeMap::new();
        for (step, shift) in steps.iter().flat_map(|step| step.shifts.iter().map(move |shift| (step, shift))) {
            let Some(from) = &shift.from else { continue };
            let Some(target) = self.targets.get_mut(&shift.path) else { continue };
            let is_held = self.held.now < self.held.most;
            target.hold(is_held);
            let said = target.install(&from.sha256, &shift.to, &run).map_err(from_install);
            if matches!(said, Ok(true)) {
                exchanged.insert(&shift.path, shift);
                if !target.is_directory() {
                    *(if is_held { &mut self.held.now } else { &mut self.held.not }) += 1;
                }
            }
            let said = match said {
                Ok(_) if target.digest().as_ref() != Some(&shift.to.sha256) => {
                    Err(Stop::new(Verdict::Refused, format!("`{}` does not hold what was installed", shift.path.display())))
                }
                said => said,
            };
            match said {
                Ok(_) => drop(stuck.remove(&shift.path)),
                Err(stop) if step.undo => drop(stuck.entry(shift.path.clone()).or_insert(stop)),
                Err(stop) => return Err(stop),
            }
        }
        Ok(stuck)
    }
}

/// What only few need is kept apart: of ten thousand that are waited for, each has all of this.
async fn signal_and_see(mut member: Box<Member>, fresh: Fresh<'_>, lanes: &Lanes) -> Box<Member> {
    let Fresh { shifts, undo, turn, .. } = fresh;
    if member.sick || member.instance.state == State::Died {
        turn.give_back();
    }
    let said = match member.instance.state {
        // Only the old config is there again.
        State::Died if undo && !member.group.revive.is_empty() => match Box::pin(revive(&member, fresh, lanes)).await {
            Ok(new) => return Box::new(new),
            Err(trouble) => {
                // Why it died stays first; why it is not there again is what the operator needs.
                if let Some(first) = &mut member.instance.trouble {
                    first.text = format!("{}; {}", first.text, trouble.text);
                }
                Err(trouble)
            }
        },
        _ => prove(&mut member, fresh, lanes).await,
    };
    match said {
        Ok(Some(took)) => {
            member.instance.state = if undo { State::Reverted } else { State::Confirmed };
            member.unsure = false;
            member.instance.took_us = u64::try_from(took.as_micros()).ok();
            member.instance.after = shifts.first().map(|s| s.to.sha256.clone());
        }
        Ok(None) if !undo => (member.instance.state, member.instance.proof) = (State::Unconfirmed, Some(Proof::None)),
        Ok(None) => member.fail(State::RevertFailed, Trouble { kind: State::Unconfirmed.into(), text: "its group says that nothing can be seen of it".into() }),
        Err(trouble) => return Box::new(Box::pin(failed(*member, trouble, fresh, lanes)).await),
    }
    member
}

/// One that proves nothing; or who has taken its place, if that is why.
pub(super) async fn failed(mut member: Member, trouble: Trouble, fresh: Fresh<'_>, lanes: &Lanes) -> Member {
    fresh.turn.give_back();
    let state = match (fresh.undo, trouble.kind.state()) {
        (_, State::Died) => State::Died,
        (true, _) => State::RevertFailed,
        (false, state) => state,
    };
    if state == State::Died
        && let Some(new) = succeeded(&member, fresh, lanes).await
    {
        return new;
    }
    if matches!((state, member.instance.state), (State::Died, _) | (_, State::Died)) {
        member.instance.start = Some(revive::command(&member));
    }
    member.instance.proof = None;
    member.fail(state, trouble);
    member
}

/// Who took its place, where somebody did: proven, or named with what it does not prove.
async fn succeeded(member: &Member, fresh: Fresh<'_>, lanes: &Lanes) -> Option<Member> {
    let found = successor::heir(member, fresh.surveyed, lanes).await?;
    let mut new = match successor::prove(&found, member, fresh, member.timeout, lanes).await {
        Ok(new) => new,
        // Nobody is there, as without it.
        Err(trouble) if trouble.kind.state() == State::Died => return None,
        Err(trouble) => {
            let mut new = Member { instance: Instance { wave: member.instance.wave, ..found.instance(&member.instance.group) }, seq: 0, ..member.clone() };
            new.fail(if fresh.undo { State::RevertFailed } else { State::TimedOut }, trouble);
            new
        }
    };
    new.instance.successor_of = Some(member.instance.pid);
    Some(new)
}

/// Signals one instance and waits for its proof; answers none where its group says that there is nothing to see.
async fn prove(member: &mut Member, fresh: Fresh<'_>, lanes: &Lanes) -> Result<Option<Duration>, Trouble> {
    let Fresh { shifts, undo, turn, .. } = fresh;
    let trouble = |kind: State, text| Trouble { kind: kind.into(), text };
    let mut facts = filled(&member.group.confirm, shifts)?;
    let first = member.baseline.clone();
    member.instance.proof = None;
    if facts.iter().any(Fact::compares) {
        // A reload that still runs must not be taken for the one that is about to be asked for.
        if undo || member.unsure {
            turn.give_back();
            Box::pin(quiet(member, &facts, lanes)).await;
        }
        Box::pin(read_anew(member, &facts, undo, lanes)).await;
        if let Readings::Before(kept) = &member.kept {
            // It may run the new config already: what it says just now is nothing that could change.
            let changes = member.baseline.iter_mut().zip(kept).zip(&facts).filter(|(_, fact)| fact.wants == Wants::Changed && !undo);
            changes.for_each(|((now, before), _)| now.clone_from(before));
        }
    }
    // Whoever is a child or holds a socket of it later may have taken its place. One that speaks our protocol never hands over.
    let kids = (member.group.speaks == Speaks::None).then(|| children(member.instance.pid));
    if kids.is_some() {
        member.sockets = sockets_of(member.instance.pid).unwrap_or_default();
    }
    adjust(&mut facts, &member.kept, &first, shifts, undo);
    let blind = blind(&mut facts, member, shifts);
    // Who reloads and answers on one thread does both while it is awake, and the question must be there by then. Of all others everybody is signalled
    // before anybody is asked: at once they are hardly ever done. What compares with a reading must not wait once more, nor must one known to be silent.
    let is_silent = member.sick || member.instance.state == State::TimedOut;
    let asked_at_once = member.group.speaks == Speaks::Hello && !is_silent && !facts.iter().any(Fact::compares);
    let wanted = wanted(member, shifts, facts, undo)?;
    let mut lane = if asked_at_once { tokio::time::timeout(SOON, lanes.fast.acquire()).await.ok().and_then(Result::ok) } else { None };
    let hung = hang_up(member, member.timeout, || {
        drop(lane.take());
        turn.give_back();
    });
    let hung = hung.await.map_err(|e| match e {
        NotHung::Gone(text) => trouble(State::Died, text),
        NotHung::Refused(text) => trouble(State::Refused, text),
    })?;
    member.signalled = Some(hung.when);
    if lane.is_none() {
        tokio::task::yield_now().await;
    }
    let Some(wanted) = wanted.map(|wanted| Wanted { kids, ..wanted }) else { return Ok(None) };
    let proof = if wanted.says.is_some() { Proof::Exact } else { strongest(&member.group.confirm, &wanted.facts, &member.baseline) };
    // One that proved nothing may still load the new config; until then it serves the old one, which is what is asked for again.
    let unsure = member.unsure || (undo && member.instance.state == State::TimedOut);
    let may_load = unsure && wanted.says.is_none() && !wanted.facts.iter().any(Fact::compares);
    let took = confirm(&hung, member, &wanted, lanes, turn, lane).await.map_err(|trouble| match trouble.kind.state() {
        State::TimedOut if blind => Trouble { text: format!("{}; {BLIND}", trouble.text), ..trouble },
        _ => trouble,
    })?;
    if may_load {
        turn.give_back();
        tokio::time::sleep_until((hung.at + member.timeout).into()).await;
        confirm(&hung, member, &wanted, lanes, turn, None).await?;
    }
    member.instance.proof = Some(proof);
    Ok(Some(took))
}

/// The facts with what the config says that `shifts` install.
fn filled(facts: &[Fact], shifts: &[Shift]) -> Result<Vec<Fact>, Trouble> {
    let to = shifts.first().and_then(|s| s.to.file());
    facts.iter().map(|f| f.filled(to)).collect::<Result<_, _>>().map_err(|text| Trouble { kind: State::Refused.into(), text })
}

/// Makes the facts that ask for a change ask for what can be seen; `first` is what they read before the way forth.
fn adjust(facts: &mut [Fact], kept: &Readings, first: &[Option<String>], shifts: &[Shift], undo: bool) {
    let (first, back) = match kept {
        Readings::None => (first, undo),
        Readings::Before(kept) => (kept.as_slice(), undo),
        Readings::After(kept) => (kept.as_slice(), !undo),
    };
    let same = !shifts.is_empty() && shifts.iter().all(|s| s.from.as_ref().is_some_and(|from| from.sha256 == s.to.sha256));
    for (fact, first) in facts.iter_mut().zip(first).filter(|(fact, _)| fact.wants == Wants::Changed) {
        match first {
            // The same bytes once more change no answer: that there is one must do.
            _ if same => fact.wants = Wants::Contains(String::new()),
            // Whether the way forth changed it or not, on the way back it must be what it was.
            Some(first) if back => fact.wants = Wants::Equals(first.clone()),
            _ => {}
        }
    }
}

/// Why a silent one cannot be proven.
const BLIND: &str = "its facts compare with what it said before the signal, when it was silent, so that nothing proves its reload";

/// Of one that was silent, what compares with a reading that nobody has proves nothing: its source must only answer again, and the other facts are the
/// proof, or that it tells what it serves. Answers whether there is nothing else; then nothing is proven.
fn blind(facts: &mut [Fact], member: &Member, shifts: &[Shift]) -> bool {
    let baseline = |at: usize| member.baseline.get(at).is_some_and(Option::is_some);
    let unread = |at: usize, fact: &Fact| member.sick && fact.compares() && fact.wants != Wants::AfterSignal && !baseline(at);
    let tells = member.group.speaks == Speaks::Hello && !shifts.is_empty();
    if !tells && facts.iter().enumerate().all(|(at, fact)| unread(at, fact)) {
        return !facts.is_empty();
    }
    for (at, fact) in facts.iter_mut().enumerate() {
        if unread(at, fact) {
            fact.wants = Wants::Contains(String::new());
        }
    }
    false
}

/// What proves that `member` runs what `shifts` install; none where its group says that there is nothing to see.
fn wanted(member: &Member, shifts: &[Shift], facts: Vec<Fact>, undo: bool) -> Result<Option<Wanted>, Trouble> {
    let (i, group) = (&member.instance, &member.group);
    let says = match (group.speaks, shifts.first().map(|s| &s.to)) {
        (Speaks::Hello, Some(to)) => {
            // Of one that did not say what it runs, an answer could be from before the signal.
            let anew = undo || member.unsure || i.before.as_ref().is_none_or(|before| *before == to.sha256);
            Some(Says { sha256: to.sha256.clone(), refusable: !undo, anew, seq: member.seq })
        }
        _ => None,
    };
    // A refusal of the way forth is no refusal of the way back, and one of an earlier run's config none of this one's.
    let reject = if undo || member.unsure { Vec::new() } else { filled(&group.reject, shifts)? };
    if facts.is_empty() && says.is_none() {
        return Ok(None);
    }
    // The kernel is no connection that could have been answered by somebody else.
    let samples = if says.is_none() && facts.iter().all(|f| f.source.is_kernel()) { 1 } else { group.samples };
    Ok(Some(Wanted { says, facts, reject, samples, kids: None }))
}

/// What must still be so of one that has proven it.
pub(super) fn still(member: &Member, shifts: &[Shift]) -> Result<Option<Wanted>, Trouble> {
    let mut facts = filled(&member.group.confirm, shifts)?;
    adjust(&mut facts, &member.kept, &member.baseline, shifts, false);
    blind(&mut facts, member, shifts);
    wanted(member, shifts, facts, false)
}

/// Waits, at most half of what it has for its proof, until a reload of the way forth is over: it takes the signal again, none is pending,
/// and what the kernel says of its workers is the same twice. Whatever is not so by then shows when it is signalled.
async fn quiet(member: &Member, facts: &[Fact], lanes: &Lanes) {
    let (i, group) = (&member.instance, &member.group);
    let kernel = || facts.iter().map(|f| &f.source).filter(|s| s.is_kernel());
    let mut before = None;
    let settle = async {
        loop {
            let now = Answers::of(kernel(), member, lanes).await.readings(facts);
            let idle = guard::not_taking(i.pid, group.signal, group.reloads).is_none() && !guard::is_pending(i.pid, group.signal);
            if idle && before.as_ref() == Some(&now) {
                break;
            }
            before = idle.then_some(now);
            tokio::time::sleep(SETTLED).await;
        }
    };
    if kernel().next().is_some() && guard::is_same(i.pid, i.started, &i.exe) {
        // One that stays stopped is signalled all the same.
        let _ = tokio::time::timeout(member.timeout / 2, settle).await;
    }
}

/// Reads what comparing facts compare with once more, as late as can be: what changed meanwhile was not changed by the signal.
/// On the way back nothing from before the way forth counts.
async fn read_anew(member: &mut Member, facts: &[Fact], undo: bool, lanes: &Lanes) {
    let (before, unsure) = (std::mem::take(&mut member.baseline), member.unsure);
    if undo || unsure || member.sick {
        // The way forth may have moved it to where nobody has looked yet; a silent one may be somewhere by now.
        moved(member, lanes);
    }
    let until = Instant::now() + member.timeout / 2;
    let mut lane = if member.sick { &lanes.slow } else { &lanes.fast };
    let now = loop {
        let now = {
            let _permit = lane.acquire().await;
            Answers::of(facts.iter().map(|f| &f.source), member, lanes).await.readings(facts)
        };
        // Where nothing older counts, one that was only slow to answer could never prove what compares.
        let lacks = facts.iter().zip(&now).any(|(fact, reading)| fact.compares() && fact.wants != Wants::AfterSignal && reading.is_none());
        let i = &member.instance;
        if !(undo || unsure) || member.sick || !lacks || Instant::now() >= until || !guard::is_same(i.pid, i.started, &i.exe) {
            break now;
        }
        lane = &lanes.slow;
        tokio::time::sleep(SETTLED).await;
    };
    let older = |at: usize| before.get(at).cloned().flatten().filter(|_| !undo && !unsure);
    let now = now.into_iter().enumerate().map(|(at, reading)| match (before.get(at), facts.get(at)) {
        // Who worked before the way forth runs the old config, and may stay.
        (Some(Some(first)), Some(fact)) if undo && fact.source == Source::Workers => reading.map(|now| kept(first, &now)),
        _ => reading,
    });
    member.baseline = now.enumerate().map(|(at, reading)| reading.or_else(|| older(at))).collect();
}

/// The strongest thing that facts prove when all of them hold.
pub(super) fn strongest(written: &[Fact], filled: &[Fact], baseline: &[Option<String>]) -> Proof {
    let of = |(at, (written, filled)): (usize, (&Fact, &Fact))| match &filled.wants {
        Wants::Equals(_) | Wants::Contains(_) => {
            // What held before the signal already proves nothing, unless it is what the new config says.
            let before = baseline.get(at).and_then(Option::as_deref);
            let new = written.wants != filled.wants && !written.compares();
            (new || before.is_some_and(|b| !filled.holds(b, None, jiff::Timestamp::UNIX_EPOCH))).then_some(Proof::Content)
        }
        Wants::Changed => Some(Proof::Content),
        Wants::Increased | Wants::AfterSignal => Some(Proof::Reloaded),
        Wants::Replaced => Some(Proof::Workers),
    };
    written.iter().zip(filled).enumerate().filter_map(of).min().unwrap_or(Proof::None)
}
