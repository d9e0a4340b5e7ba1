//! Commits a prepared plan and, when one instance does not prove the new config, puts everything back and proves that.

use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::watch;

use crate::{
    event::{Event, State, TargetReport, Trouble, Verdict},
    fact::Fact,
    fleet::Speaks,
    host::{
        confirm::{Lanes, Says, Wanted, confirm, readings},
        hangup::{NotHung, hang_up},
        install::{InstallError, Target},
    },
    plan::{Blob, Member, Step},
};

/// How often the operator asked to stop: 1 means no new signal and go back, 2 means leave now.
pub type Halts = watch::Receiver<u8>;

/// A step with its locked, staged target.
#[derive(Debug)]
pub struct Ready {
    /// What is to be done.
    pub step: Step,
    /// Where.
    pub target: Target,
    /// Whether the target was exchanged by this run.
    pub installed: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Way {
    Forth,
    Back,
}

/// Runs every step; the returned verdict is what was seen, never what was hoped.
/// `tell` reports an event and says whether the journal took it.
pub async fn run(ready: &mut [Ready], run: &str, mut halts: Halts, tell: &mut impl FnMut(Event) -> bool) -> Verdict {
    let lanes = Lanes::default();
    let mut waves: Vec<usize> = ready.iter().flat_map(|r| &r.step.members).map(|m| m.instance.wave).collect();
    waves.sort_unstable();
    waves.dedup();
    let mut said = Ok(());
    for wave in waves {
        said = commit(ready, Way::Forth, Some(wave), &lanes, &mut halts, tell).await;
        if said.is_err() {
            break;
        }
    }
    if let Err(why) = said {
        let signalled = |r: &Ready| r.step.members.iter().any(touched);
        if !ready.iter().any(|r| r.installed || signalled(r)) {
            return if *halts.borrow() > 0 { Verdict::Failed } else { Verdict::Refused };
        }
        if ready.iter().any(|r| (r.installed || signalled(r)) && r.step.from.is_none()) || *halts.borrow() > 1 {
            return Verdict::Mixed;
        }
        tell(Event::UndoBegan { why });
        let _ = restage(ready, run);
        // What could not be put back shows in the states and in the digests below.
        let _ = commit(ready, Way::Back, None, &lanes, &mut halts, tell).await;
    }
    let verdict = Verdict::of(ready.iter().flat_map(|r| &r.step.members).map(|m| m.instance.state));
    // Read back once more: a file that somebody changed meanwhile proves nothing.
    let wanted = |r: &Ready| match verdict {
        Verdict::Converged => Some(r.step.to.sha256.clone()),
        _ => r.step.from.as_ref().map(|b| b.sha256.clone()),
    };
    if ready.iter().any(|r| r.target.digest() != wanted(r) && r.step.is_work()) { Verdict::Mixed } else { verdict }
}

fn touched(member: &Member) -> bool {
    !matches!(member.instance.state, State::Untouched | State::Unchanged | State::Refused)
}

/// Stages the old bytes again for the way back.
fn restage(ready: &mut [Ready], run: &str) -> Result<(), InstallError> {
    for r in ready.iter_mut().filter(|r| r.installed) {
        if let Some(from) = &r.step.from {
            r.target.stage(&from.bytes, &format!("{run}-undo"))?;
        }
    }
    Ok(())
}

async fn commit(
    ready: &mut [Ready],
    way: Way,
    wave: Option<usize>,
    lanes: &Lanes,
    halts: &mut Halts,
    tell: &mut impl FnMut(Event) -> bool,
) -> Result<(), String> {
    let back = way == Way::Back;
    let in_wave = |m: &Member| wave.is_none_or(|w| m.instance.wave == w);
    let hung_up = |m: &Member| if back { touched(m) } else { m.instance.state == State::Untouched && in_wave(m) };
    let targets = ready.iter().map(|r| report(r, way)).collect();
    let pids = ready.iter().flat_map(|r| &r.step.members).filter(|m| hung_up(m)).map(|m| (m.instance.pid, m.instance.started)).collect();
    if !tell(Event::Intent { undo: back, targets, pids }) && !back {
        return Err("the journal cannot be written".into());
    }
    if !back && *halts.borrow_and_update() > 0 {
        return Err("halted by the operator".into());
    }
    for r in ready.iter_mut().filter(|r| back || r.step.members.iter().any(in_wave)) {
        install(r, way, tell)?;
    }
    let mut first: Option<String> = None;
    let mut waits = FuturesUnordered::new();
    for (at, r) in ready.iter().enumerate() {
        let Some(wanted) = wish(&r.step, way) else { continue };
        for (place, member) in r.step.members.iter().enumerate().filter(|(_, m)| hung_up(m)) {
            waits.push(signal_and_see(member.clone(), wanted.clone(), way, lanes, at, place));
        }
    }
    let mut halted = back;
    let limit = if back { 1 } else { 0 };
    loop {
        let done = tokio::select! {
            done = waits.next() => done,
            changed = halts.changed(), if !halted => {
                halted = changed.is_err() || *halts.borrow() > limit;
                if changed.is_ok() && halted {
                    first.get_or_insert_with(|| "halted by the operator".into());
                    break;
                }
                continue;
            }
        };
        let Some((at, place, member)) = done else { break };
        if let Some(trouble) = member.instance.trouble.as_ref().filter(|_| !matches!(member.instance.state, State::Confirmed | State::Reverted)) {
            first.get_or_insert_with(|| format!("pid {}: {}", member.instance.pid, trouble.text));
        }
        tell(Event::Instance {
            pid: member.instance.pid,
            started: member.instance.started,
            endpoint: member.instance.endpoint.clone(),
            state: member.instance.state,
            trouble: member.instance.trouble.clone(),
            took_us: member.instance.took_us,
        });
        if let Some(slot) = ready.get_mut(at).and_then(|r| r.step.members.get_mut(place)) {
            *slot = member;
        }
    }
    drop(waits);
    // A halt leaves waits unfinished: those were perhaps signalled, and count as such.
    for member in ready.iter_mut().flat_map(|r| &mut r.step.members).filter(|m| !back && first.is_some() && in_wave(m) && m.instance.state == State::Untouched)
    {
        let text = "not waited for to the end".to_owned();
        member.instance.trouble.get_or_insert(Trouble { kind: State::TimedOut, text });
        member.instance.state = State::TimedOut;
    }
    first.map_or(Ok(()), Err)
}

fn report(r: &Ready, way: Way) -> TargetReport {
    let from = r.step.from.as_ref().map(|b| b.sha256.clone());
    let to = r.step.to.sha256.clone();
    let (from, to) = match (way, from) {
        (Way::Back, Some(old)) => (Some(to), old),
        (_, from) => (from, to),
    };
    TargetReport { host: "local", path: r.step.path.clone(), from, to, disk: r.target.digest() }
}

/// What an instance must prove on the way forth or back.
fn wish(step: &Step, way: Way) -> Option<Blob> {
    match way {
        Way::Forth => Some(step.to.clone()),
        Way::Back => step.from.clone(),
    }
}

fn install(r: &mut Ready, way: Way, tell: &mut impl FnMut(Event) -> bool) -> Result<(), String> {
    let (from, to) = match way {
        Way::Forth if r.installed || r.step.disk.sha256 == r.step.to.sha256 => return Ok(()),
        Way::Forth => (&r.step.disk, &r.step.to),
        Way::Back => match &r.step.from {
            Some(from) if r.installed => (&r.step.to, from),
            _ => return Ok(()),
        },
    };
    r.target.install(&from.sha256).map_err(|e| e.to_string())?;
    r.installed = true;
    if r.target.digest().as_ref() != Some(&to.sha256) {
        return Err(format!("`{}` does not hold what was installed", r.step.path.display()));
    }
    tell(Event::Installed { path: r.step.path.clone(), sha256: to.sha256.clone() });
    Ok(())
}

async fn signal_and_see(mut member: Member, wanted: Blob, way: Way, lanes: &Lanes, at: usize, place: usize) -> (usize, usize, Member) {
    let back = way == Way::Back;
    let limit: Duration = member.timeout;
    let outcome = prove(&mut member, &wanted, back, limit, lanes).await;
    let i = &mut member.instance;
    match outcome {
        Ok(took) => {
            i.state = if back { State::Reverted } else { State::Confirmed };
            i.took_us = u64::try_from(took.as_micros()).ok();
            i.after = Some(wanted.sha256);
        }
        Err(trouble) => {
            i.state = match (back, trouble.kind) {
                (_, State::Died) => State::Died,
                (true, _) => State::RevertFailed,
                (false, kind) => kind,
            };
            i.trouble.get_or_insert(trouble);
        }
    }
    (at, place, member)
}

/// Signals one instance and waits for its proof.
async fn prove(member: &mut Member, wanted: &Blob, back: bool, limit: Duration, lanes: &Lanes) -> Result<Duration, Trouble> {
    let trouble = |kind, text| Trouble { kind, text };
    let facts: Result<Vec<Fact>, String> = member.facts.iter().map(|f| f.filled(&wanted.bytes)).collect();
    let facts = facts.map_err(|why| trouble(State::Refused, why))?;
    let i = &member.instance;
    if back && facts.iter().any(Fact::compares) {
        // What changed on the way forth must change once more: an answer from before this signal proves nothing.
        member.baseline = readings(&i.endpoint, &facts, lanes).await.unwrap_or_default();
    }
    let hung = hang_up(i.pid, i.started, &i.exe, member.seq, limit).await.map_err(|e| match e {
        NotHung::Gone(text) => trouble(State::Died, text),
        NotHung::Refused(text) => trouble(State::Refused, text),
    })?;
    let anew = back || i.before.as_ref() == Some(&wanted.sha256);
    let says = (member.speaks == Speaks::Hello).then(|| Says { sha256: wanted.sha256.clone(), refusable: !back, anew });
    let wanted = Wanted { says, facts, baseline: member.baseline.clone(), samples: member.samples };
    confirm(&hung, &i.endpoint, &wanted, limit, lanes).await
}
