//! The third verb: install, hang up, confirm. An undo is the same over flipped steps.

use std::time::Duration;

use futures_util::{StreamExt, stream};

use crate::{
    event::{Event, Halts, State, Stop, Trouble, Verdict},
    fact::Fact,
    fleet::Speaks,
    host::{
        LocalHost,
        answers::readings,
        confirm::{Says, Wanted, confirm},
        hangup::{NotHung, hang_up},
        http::Lanes,
        survey::from_install,
    },
    step::{Member, Shift, Step},
};

impl LocalHost {
    pub(super) async fn commit(&mut self, steps: &mut [Step], halts: &mut Halts, tell: &mut impl FnMut(Event)) -> Result<(), Stop> {
        self.install(steps, tell)?;
        let undo = steps.iter().any(|s| s.undo);
        let lanes = &self.lanes;
        let all = steps.iter().enumerate().flat_map(|(at, step)| step.members.iter().enumerate().map(move |(place, m)| (at, step, place, m)));
        let signalled = all.filter(|(.., m)| m.instance.state != State::Unchanged);
        let mut waits = stream::iter(
            signalled.map(|(at, step, place, member)| async move { (at, place, signal_and_see(member.clone(), &step.shifts, undo, lanes).await) }),
        )
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
            let i = &member.instance;
            let (group, endpoint, trouble) = (i.group.clone(), i.endpoint.clone(), i.trouble.clone());
            tell(Event::Instance { group, pid: i.pid, started: i.started, endpoint, state: i.state, trouble, took_us: i.took_us });
            ends.push((at, place, member));
        }
        drop(waits);
        if unfinished {
            let state = if undo { State::RevertFailed } else { State::TimedOut };
            // Perhaps signalled, and nobody has waited for the proof: they count as touched.
            for member in steps.iter_mut().flat_map(|s| &mut s.members).filter(|m| m.instance.state != State::Unchanged) {
                member.fail(state, Trouble { kind: state, text: "not waited for to the end: halted by the operator".into() });
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

async fn signal_and_see(mut member: Member, shifts: &[Shift], undo: bool, lanes: &Lanes) -> Member {
    match prove(&mut member, shifts, undo, lanes).await {
        Ok(Some(took)) => {
            member.instance.state = if undo { State::Reverted } else { State::Confirmed };
            member.instance.took_us = u64::try_from(took.as_micros()).ok();
            member.instance.after = shifts.first().map(|s| s.to.sha256.clone());
        }
        Ok(None) if !undo => member.instance.state = State::Unconfirmed,
        Ok(None) => member.fail(State::RevertFailed, Trouble { kind: State::Unconfirmed, text: "its group says that nothing can be seen of it".into() }),
        Err(trouble) => {
            let state = match (undo, trouble.kind) {
                (_, State::Died) => State::Died,
                (true, _) => State::RevertFailed,
                (false, kind) => kind,
            };
            member.fail(state, trouble);
        }
    }
    member
}

/// Signals one instance and waits for its proof; answers none where its group says that there is nothing to see.
async fn prove(member: &mut Member, shifts: &[Shift], undo: bool, lanes: &Lanes) -> Result<Option<Duration>, Trouble> {
    let trouble = |kind, text| Trouble { kind, text };
    let to = shifts.first().map(|s| &s.to);
    let filled = |facts: &[Fact]| -> Result<Vec<Fact>, Trouble> {
        let bytes = to.map_or(&[] as &[u8], |b| &b.bytes);
        facts.iter().map(|f| f.filled(bytes)).collect::<Result<_, _>>().map_err(|why| trouble(State::Refused, why))
    };
    let group = member.group.clone();
    let (facts, reject) = (filled(&group.confirm)?, filled(&group.reject)?);
    let i = &member.instance;
    if undo && facts.iter().any(Fact::compares) {
        // What changed on the way forth must change once more: an answer from before this signal proves nothing.
        member.baseline = readings(i, &facts, lanes).await.unwrap_or_default();
    }
    let hung = hang_up(member, member.timeout).await.map_err(|e| match e {
        NotHung::Gone(text) => trouble(State::Died, text),
        NotHung::Refused(text) => trouble(State::Refused, text),
    })?;
    let says = match (group.speaks, to) {
        (Speaks::Hello, Some(to)) => {
            Some(Says { sha256: to.sha256.clone(), refusable: !undo, anew: undo || i.before.as_ref() == Some(&to.sha256), seq: member.seq })
        }
        _ => None,
    };
    if facts.is_empty() && says.is_none() {
        return Ok(None);
    }
    // A refusal of the way forth is no refusal of the way back.
    let reject = if undo { Vec::new() } else { reject };
    let wanted = Wanted { says, facts, baseline: member.baseline.clone(), reject, rejected: member.rejected.clone(), samples: group.samples };
    confirm(&hung, i, &wanted, member.timeout, lanes).await.map(Some)
}
