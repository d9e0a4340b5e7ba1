//! The third verb: install, hang up, confirm. An undo is the same over flipped steps.

use std::time::Duration;

use futures_util::{StreamExt, stream};

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
        revive::{self, revive},
        sockets::sockets_of,
        successor::{self, Fresh, Since},
        survey::from_install,
        workers::{SETTLED, children, kept},
    },
    step::{Blob, Member, Shift, Step},
};

impl LocalHost {
    pub(super) async fn commit(&mut self, steps: &mut [Step], halts: &mut Halts, tell: &mut impl FnMut(Event)) -> Result<(), Stop> {
        self.install(steps, tell)?;
        let undo = steps.iter().any(|s| s.undo);
        let (lanes, since, surveyed) = (&self.lanes, &self.since, &self.surveyed);
        let all = steps.iter().enumerate().flat_map(|(at, step)| step.members.iter().enumerate().map(move |(place, m)| (at, step, place, m)));
        let signalled = all.filter(|(.., m)| m.instance.state != State::Unchanged);
        let mut waits = stream::iter(signalled.map(|(at, step, place, member)| async move {
            let fresh = Fresh { shifts: &step.shifts, since, surveyed, undo };
            (at, place, signal_and_see(member.clone(), fresh, lanes).await)
        }))
        // Each holds a pidfd.
        .buffer_unordered(self.at_once);
        let (mut ends, mut unfinished) = (Vec::new(), false);
        loop {
            let done = tokio::select! {
                biased;
                // The halt of the operator: no new signal, and nobody is waited for any more.
                () = halted(halts, u8::from(undo)) => {
                    unfinished = true;
                    break;
                }
                done = waits.next() => done,
            };
            let Some((at, place, member)) = done else { break };
            tell(Event::of(&member.instance));
            ends.push((at, place, member));
        }
        drop(waits);
        if unfinished {
            let state = if undo { State::RevertFailed } else { State::TimedOut };
            // Perhaps signalled, and nobody has waited for the proof: they count as touched.
            for member in steps.iter_mut().flat_map(|s| &mut s.members).filter(|m| m.instance.state != State::Unchanged) {
                member.fail(state, Trouble { kind: state.into(), text: HALTED.into() });
            }
        }
        for (at, place, member) in ends {
            if let Some(slot) = steps.get_mut(at).and_then(|s| s.members.get_mut(place)) {
                *slot = member;
            }
        }
        Ok(())
    }

    /// Makes every target what its step wants, and reads it back.
    fn install(&mut self, steps: &[Step], tell: &mut impl FnMut(Event)) -> Result<(), Stop> {
        let run = self.run.clone();
        let mut first = Ok(());
        for (step, shift) in steps.iter().flat_map(|step| step.shifts.iter().map(move |shift| (step, shift))) {
            let Some(from) = &shift.from else { continue };
            let Some(target) = self.targets.get_mut(&shift.path) else { continue };
            match target.install(&from.sha256, &shift.to, &run) {
                Ok(exchanged) => {
                    if exchanged {
                        self.since.insert(shift.path.clone(), Since::now());
                    }
                    if target.digest().as_ref() != Some(&shift.to.sha256) {
                        let why = format!("`{}` does not hold what was installed", shift.path.display());
                        first = first.and(Err(Stop::new(Verdict::Refused, why)));
                    } else if exchanged {
                        tell(Event::Installed { path: shift.path.clone(), sha256: shift.to.sha256.clone() });
                    }
                }
                // The way back goes on with every file that it can put back.
                Err(e) if step.undo => first = first.and(Err(from_install(e))),
                Err(e) => return Err(from_install(e)),
            }
        }
        first
    }
}

async fn halted(halts: &mut Halts, patience: u8) {
    // The sender lives as long as the command; without one nobody can halt.
    if halts.wait_for(|n| *n > patience).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn signal_and_see(mut member: Member, fresh: Fresh<'_>, lanes: &Lanes) -> Member {
    let Fresh { shifts, undo, .. } = fresh;
    let said = match member.instance.state {
        // Only the old config is there again.
        State::Died if undo && !member.group.revive.is_empty() => match revive(&member, fresh, lanes).await {
            Ok(new) => return new,
            Err(trouble) => {
                // Why it died stays first; why it is not there again is what the operator needs.
                if let Some(first) = &mut member.instance.trouble {
                    first.text = format!("{}; {}", first.text, trouble.text);
                }
                Err(trouble)
            }
        },
        _ => prove(&mut member, shifts, undo, lanes).await,
    };
    match said {
        Ok(Some(took)) => {
            member.instance.state = if undo { State::Reverted } else { State::Confirmed };
            member.instance.took_us = u64::try_from(took.as_micros()).ok();
            member.instance.after = shifts.first().map(|s| s.to.sha256.clone());
        }
        Ok(None) if !undo => (member.instance.state, member.instance.proof) = (State::Unconfirmed, Some(Proof::None)),
        Ok(None) => member.fail(State::RevertFailed, Trouble { kind: State::Unconfirmed.into(), text: "its group says that nothing can be seen of it".into() }),
        Err(trouble) => {
            let state = match (undo, trouble.kind.state()) {
                (_, State::Died) => State::Died,
                (true, _) => State::RevertFailed,
                (false, state) => state,
            };
            if trouble.kind.state() == State::Died
                && let Some(new) = succeeded(&member, fresh, lanes).await
            {
                return new;
            }
            if matches!((state, member.instance.state), (State::Died, _) | (_, State::Died)) {
                member.instance.start = Some(revive::command(&member));
            }
            member.fail(state, trouble);
        }
    }
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
async fn prove(member: &mut Member, shifts: &[Shift], undo: bool, lanes: &Lanes) -> Result<Option<Duration>, Trouble> {
    let trouble = |kind: State, text| Trouble { kind: kind.into(), text };
    let to = shifts.first().map(|s| &s.to);
    let filled = |facts: &[Fact]| -> Result<Vec<Fact>, Trouble> {
        facts.iter().map(|f| f.filled(to.and_then(Blob::file))).collect::<Result<_, _>>().map_err(|why| trouble(State::Refused, why))
    };
    let group = member.group.clone();
    let (mut facts, reject) = (filled(&group.confirm)?, filled(&group.reject)?);
    let first = member.baseline.clone();
    member.instance.proof = None;
    if facts.iter().any(Fact::compares) {
        // A reload that still runs must not be taken for the one that is about to be asked for.
        if undo || member.unsure {
            quiet(member, &facts, lanes).await;
        }
        read_anew(member, &facts, undo, lanes).await;
    }
    let same = !shifts.is_empty() && shifts.iter().all(|s| s.from.as_ref().is_some_and(|from| from.sha256 == s.to.sha256));
    for (fact, first) in facts.iter_mut().zip(first).filter(|(fact, _)| fact.wants == Wants::Changed) {
        match first {
            // The same bytes once more change no answer: that there is one must do.
            _ if same => fact.wants = Wants::Contains(String::new()),
            // Whether the way forth changed it or not, on the way back it must be what it was.
            Some(first) if undo => fact.wants = Wants::Equals(first),
            _ => {}
        }
    }
    // Whoever is a child or holds a socket of it later may have taken its place. One that speaks our protocol never hands over.
    let kids = (group.speaks == Speaks::None).then(|| children(member.instance.pid));
    if kids.is_some() {
        member.sockets = sockets_of(member.instance.pid).unwrap_or_default();
    }
    let hung = hang_up(member, member.timeout).await.map_err(|e| match e {
        NotHung::Gone(text) => trouble(State::Died, text),
        NotHung::Refused(text) => trouble(State::Refused, text),
    })?;
    let i = &member.instance;
    let says = match (group.speaks, to) {
        (Speaks::Hello, Some(to)) => {
            Some(Says { sha256: to.sha256.clone(), refusable: !undo, anew: undo || member.unsure || i.before.as_ref() == Some(&to.sha256), seq: member.seq })
        }
        _ => None,
    };
    if facts.is_empty() && says.is_none() {
        return Ok(None);
    }
    // A refusal of the way forth, or of an earlier run's config, is no refusal of this one.
    let reject = if undo || member.unsure { Vec::new() } else { reject };
    // The kernel is no connection that could have been answered by somebody else.
    let samples = if says.is_none() && facts.iter().all(|f| f.source.is_kernel()) { 1 } else { group.samples };
    let proof = if says.is_some() { Proof::Exact } else { strongest(&group.confirm, &facts, &member.baseline) };
    // One that proved nothing may still load the new config; until then it serves the old one, which is what is asked for again.
    let may_load = ((undo && member.instance.state == State::TimedOut) || member.unsure) && says.is_none() && !facts.iter().any(Fact::compares);
    let wanted = Wanted { says, facts, reject, samples, kids };
    let took = confirm(&hung, member, &wanted, lanes).await?;
    if may_load {
        tokio::time::sleep_until((hung.at + member.timeout).into()).await;
        confirm(&hung, member, &wanted, lanes).await?;
    }
    member.instance.proof = Some(proof);
    Ok(Some(took))
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
    let _permit = lanes.fast.acquire().await;
    let (before, unsure) = (std::mem::take(&mut member.baseline), member.unsure);
    if undo || unsure {
        // The way forth may have moved it to where nobody has looked yet.
        moved(member, lanes);
    }
    let now = Answers::of(facts.iter().map(|f| &f.source), member, lanes).await.readings(facts);
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
            let new = written.wants != filled.wants && written.wants != Wants::Changed;
            (new || before.is_some_and(|b| !filled.holds(b, None, jiff::Timestamp::UNIX_EPOCH))).then_some(Proof::Content)
        }
        Wants::Changed => Some(Proof::Content),
        Wants::Increased | Wants::AfterSignal => Some(Proof::Reloaded),
        Wants::Replaced => Some(Proof::Workers),
    };
    written.iter().zip(filled).enumerate().filter_map(of).min().unwrap_or(Proof::None)
}
