//! Commits a prepared plan and, when one instance does not prove the new config, puts everything back and proves that.

use std::time::Duration;

use futures_util::{StreamExt, stream::FuturesUnordered};
use tokio::sync::watch;

use crate::{
    config,
    event::{Event, State, TargetReport, Trouble, Verdict},
    host::{
        confirm::{Lanes, Wanted, confirm},
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
    if let Err(why) = commit(ready, Way::Forth, &lanes, &mut halts, tell).await {
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
        let _ = commit(ready, Way::Back, &lanes, &mut halts, tell).await;
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

async fn commit(ready: &mut [Ready], way: Way, lanes: &Lanes, halts: &mut Halts, tell: &mut impl FnMut(Event) -> bool) -> Result<(), String> {
    let back = way == Way::Back;
    let hung_up = |m: &Member| if back { touched(m) } else { m.instance.state == State::Untouched };
    let targets = ready.iter().map(|r| report(r, way)).collect();
    let pids = ready.iter().flat_map(|r| &r.step.members).filter(|m| hung_up(m)).map(|m| (m.instance.pid, m.instance.started)).collect();
    if !tell(Event::Intent { undo: back, targets, pids }) && !back {
        return Err("the journal cannot be written".into());
    }
    if !back && *halts.borrow_and_update() > 0 {
        return Err("halted by the operator".into());
    }
    for r in ready.iter_mut() {
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
    for member in ready.iter_mut().flat_map(|r| &mut r.step.members).filter(|m| first.is_some() && m.instance.state == State::Untouched) {
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
        Way::Forth if r.step.disk.sha256 == r.step.to.sha256 => return Ok(()),
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
    let i = &mut member.instance;
    let outcome = match hang_up(i.pid, i.started, &i.exe, member.seq, limit).await {
        Err(NotHung::Gone(text)) => Err(Trouble { kind: State::Died, text }),
        Err(NotHung::Refused(text)) => Err(Trouble { kind: State::Refused, text }),
        Ok(hung) => {
            let message = config::parse(&wanted.bytes).ok().map(|c| c.message);
            // On the way back, and where nothing visible changes, an answer from before the signal proves nothing.
            let newer_than = (back || i.before == wanted.sha256).then_some(member.seq);
            let wish = Wanted { sha256: wanted.sha256.clone(), message, refusable: !back, newer_than };
            confirm(&hung, &i.endpoint, &wish, limit, lanes).await
        }
    };
    match outcome {
        Ok(took) => {
            i.state = if back { State::Reverted } else { State::Confirmed };
            i.took_us = u64::try_from(took.as_micros()).ok();
            i.after = wanted.sha256;
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
