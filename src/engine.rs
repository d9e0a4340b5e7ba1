//! Prepares everywhere; only if all are ready, commits wave by wave; when one instance does not prove the new config, puts everything back and proves that.

use crate::{
    event::{Event, Halts, State, Stop, Verdict},
    host::Host,
    plan::Plan,
    step::{Member, Step},
};

/// Runs a prepared plan; the verdict is what was seen, never what was hoped. `tell` reports an event and says whether the journal took it.
///
/// # Errors
/// The run ended before it had touched anything.
pub async fn run(plan: &mut Plan, host: &mut Host, halts: &mut Halts, tell: &mut impl FnMut(Event) -> bool) -> Result<Verdict, Stop> {
    let (mut why, mut begun) = (None, 0);
    for wave in &mut plan.waves {
        begun += 1;
        if let Err(stop) = commit(wave, host, halts, tell).await {
            why = Some(stop);
            break;
        }
    }
    let Some(stop) = why else { return Ok(seen(plan, host, false)) };
    let installed = plan.targets().iter().filter_map(|s| s.shift.as_ref()).any(|s| host.is_installed(&s.path));
    if !installed && !plan.steps().flat_map(|s| &s.members).any(Member::is_touched) {
        return Err(stop);
    }
    if *halts.borrow() > 1 {
        return Ok(Verdict::Mixed);
    }
    // Newest first. A target without a way back stays as it is, and its instances as they are.
    let flipped: Option<Vec<Step>> = plan.waves[..begun].iter().rev().flatten().map(Step::flip).collect();
    let Some(mut undo) = flipped else { return Ok(Verdict::Mixed) };
    tell(Event::UndoBegan { why: stop.reason });
    // What could not be put back shows in the states, and in the digests that are read below.
    let _ = commit(&mut undo, host, halts, tell).await;
    plan.settle(&undo);
    Ok(seen(plan, host, true))
}

/// One batch: the intent is on the disk first.
async fn commit(steps: &mut [Step], host: &mut Host, halts: &mut Halts, tell: &mut impl FnMut(Event) -> bool) -> Result<(), Stop> {
    let undo = steps.iter().any(|s| s.undo);
    let targets = steps.iter().filter_map(|s| s.report(None)).collect();
    let pids = steps.iter().flat_map(|s| &s.members).filter(|m| m.instance.state != State::Unchanged).map(|m| (m.instance.pid, m.instance.started)).collect();
    let kept = tell(Event::Intent { undo, targets, pids });
    if !undo && !kept {
        return Err(Stop::new(Verdict::Failed, "the journal cannot be written"));
    }
    if !undo && *halts.borrow() > 0 {
        return Err(Stop::new(Verdict::Failed, "halted by the operator"));
    }
    let mut lost = false;
    host.commit(steps, halts, &mut |event| lost |= !tell(event)).await?;
    if let Some(bad) = steps.iter().flat_map(|s| &s.members).find(|m| !m.is_good()) {
        let why = bad.instance.trouble.as_ref().map_or("not proven", |t| &t.text);
        return Err(Stop::new(Verdict::Refused, format!("pid {}: {why}", bad.instance.pid)));
    }
    if lost && !undo {
        return Err(Stop::new(Verdict::Failed, "the journal cannot be written"));
    }
    Ok(())
}

/// The verdict of what is there: the states, and every target read back once more, because a file that somebody changed meanwhile proves nothing.
fn seen(plan: &Plan, host: &Host, undone: bool) -> Verdict {
    let verdict = Verdict::of(plan.instances().map(|i| i.state));
    let stands = plan.targets().into_iter().filter(|s| s.is_work()).filter_map(|s| s.shift.as_ref()).all(|shift| {
        let wanted = if undone { shift.from.as_ref() } else { Some(&shift.to) };
        wanted.is_some_and(|w| host.reads(&shift.path).as_ref() == Some(&w.sha256))
    });
    // An undo that was left in the middle has not converged, whatever the instances were last seen on.
    if stands && !(undone && verdict == Verdict::Converged) { verdict } else { Verdict::Mixed }
}
