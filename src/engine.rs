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
    let Some(stop) = why else { return Ok(seen(plan, host, halts, tell, false).await) };
    let installed = plan.targets().iter().any(|s| host.is_installed(&s.path));
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
    Ok(seen(plan, host, halts, tell, true).await)
}

/// One batch: the intent is on the disk first.
async fn commit(steps: &mut [Step], host: &mut Host, halts: &mut Halts, tell: &mut impl FnMut(Event) -> bool) -> Result<(), Stop> {
    let undo = steps.iter().any(|s| s.undo);
    let targets = steps.iter().flat_map(|s| &s.shifts).map(|s| s.report(None)).collect();
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

/// The verdict of what is there: who came meanwhile, the states, and every target read back once more, because a file that somebody changed meanwhile proves nothing.
async fn seen(plan: &mut Plan, host: &mut Host, halts: &mut Halts, tell: &mut impl FnMut(Event) -> bool, undone: bool) -> Verdict {
    // Who is unproven when the run ends is named; nothing of it was touched that could be put back.
    let back: Vec<Step> = if undone { plan.steps().filter_map(Step::flip).collect() } else { Vec::new() };
    let stands: Vec<&Step> = if undone { back.iter().collect() } else { plan.steps().collect() };
    let mut told = |event| {
        tell(event);
    };
    let newcomers = host.newcomers(&stands, undone, halts, &mut told).await;
    plan.newcomers = newcomers;
    let plan = &*plan;
    let verdict = Verdict::of(plan.instances().map(|i| i.state));
    let stands = plan.steps().filter(|s| s.is_work()).flat_map(|s| &s.shifts).all(|shift| {
        let wanted = if undone { shift.from.as_ref() } else { Some(&shift.to) };
        wanted.is_some_and(|w| host.reads(&shift.path).as_ref() == Some(&w.sha256))
    });
    // An undo that was left in the middle has not converged, whatever the instances were last seen on.
    if stands && !(undone && verdict == Verdict::Converged) { verdict } else { Verdict::Mixed }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::{path::PathBuf, sync::Arc};

    use super::*;
    use crate::{
        event::Instance,
        fleet::Fleet,
        host::script::ScriptHost,
        step::{Blob, Shift},
    };

    const FORTH: [State; 6] = [State::Confirmed, State::Unconfirmed, State::Refused, State::Rejected, State::TimedOut, State::Died];
    const BACK: [State; 3] = [State::Reverted, State::RevertFailed, State::Died];

    fn member(pid: i32) -> Member {
        let group = Arc::new(Fleet::of_kind("hello").unwrap().groups.remove(0));
        let instance = Instance { targets: vec!["/c".into()], ..Instance::new("hello", pid, 1) };
        Member { seq: 1, ..Member::new(instance, group, Vec::new()) }
    }

    /// Waves that share one file; two instances in each.
    fn plan(waves: i32, back: bool) -> (Plan, ScriptHost) {
        let (from, to) = (Blob::new(b"old".to_vec()), Blob::new(b"new".to_vec()));
        let mut host = ScriptHost::default();
        host.files.insert("/c".into(), from.sha256.clone());
        let shift = Shift { path: "/c".into(), from: back.then_some(from), to, secret: false };
        let step = |wave| vec![Step { shifts: vec![shift.clone()], members: vec![member(2 * wave), member(2 * wave + 1)], undo: false }];
        (Plan { waves: (0..waves).map(step).collect(), newcomers: Vec::new(), restart: None }, host)
    }

    fn go(plan: &mut Plan, script: ScriptHost, halts: u8, journal: impl Fn(&Event) -> bool) -> (Result<Verdict, Verdict>, ScriptHost) {
        let mut host = Host::Script(script);
        let (tell, mut listen) = tokio::sync::watch::channel(halts);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let said = runtime.block_on(run(plan, &mut host, &mut listen, &mut |event| journal(&event)));
        drop(tell);
        let Host::Script(script) = host else { unreachable!("it was a script") };
        (said.map_err(|stop| stop.verdict), script)
    }

    #[test]
    fn every_trouble_in_every_wave_ends_in_its_verdict_and_nothing_is_left_between() {
        for waves in 1..=3 {
            for bad in 0..2 * waves {
                for (forth, back) in FORTH.into_iter().flat_map(|f| BACK.map(|b| (f, b))) {
                    let (mut plan, mut script) = plan(waves, true);
                    script.ends.insert(bad, (forth, back));
                    let (said, script) = go(&mut plan, script, 0, |_| true);
                    let good = matches!(forth, State::Confirmed | State::Unconfirmed);
                    let states: Vec<State> = plan.instances().map(|i| i.state).collect();
                    let context = format!("{waves} waves, pid {bad}: {forth:?}, then {back:?}: {states:?}");
                    let wanted = match (forth, back) {
                        _ if good => Verdict::Converged,
                        // It was never signalled, so it is not signalled back.
                        (State::Refused, _) | (_, State::Reverted) => Verdict::Reverted,
                        _ => Verdict::Mixed,
                    };
                    assert_eq!(said, Ok(wanted), "{context}");
                    let disk = Blob::new(if good { b"new".to_vec() } else { b"old".to_vec() }).sha256;
                    assert_eq!(script.files[&PathBuf::from("/c")], disk, "{context}");
                    let later = script.signals.iter().any(|(pid, undo)| !undo && *pid / 2 > bad / 2);
                    assert_eq!(later, good && bad / 2 < waves - 1, "no wave after a failure: {context}");
                    for (pid, _) in script.signals.iter().filter(|(_, undo)| !undo) {
                        assert_eq!(script.signals.contains(&(*pid, true)), !good, "whoever was signalled is signalled back: {context}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_was_never_touched_is_no_reverted_run() {
        let (mut one, mut script) = plan(2, true);
        script.stuck.insert("/c".into(), (true, false));
        let (said, script) = go(&mut one, script, 0, |_| true);
        assert_eq!((said, script.signals.len()), (Err(Verdict::Failed), 0));
        let (mut one, script) = plan(2, true);
        let (said, script) = go(&mut one, script, 1, |_| true);
        assert_eq!((said, script.signals.len()), (Err(Verdict::Failed), 0), "halted before the first install");
        let (mut one, script) = plan(2, true);
        let (said, script) = go(&mut one, script, 0, |_| false);
        assert_eq!((said, script.signals.len()), (Err(Verdict::Failed), 0), "no signal without a journal");
    }

    #[test]
    fn without_a_way_back_or_with_a_file_that_stays_a_failure_is_mixed() {
        let (mut one, mut script) = plan(1, false);
        script.files.insert("/c".into(), Blob::new(b"new".to_vec()).sha256);
        script.ends.insert(1, (State::TimedOut, State::Reverted));
        let (said, script) = go(&mut one, script, 0, |_| true);
        assert_eq!((said, script.signals.iter().any(|(_, undo)| *undo)), (Ok(Verdict::Mixed), false));
        let (mut one, mut script) = plan(1, true);
        script.ends.insert(1, (State::TimedOut, State::Reverted));
        script.stuck.insert("/c".into(), (false, true));
        assert_eq!(go(&mut one, script, 0, |_| true).0, Ok(Verdict::Mixed));
    }

    #[test]
    fn a_journal_that_is_lost_after_the_first_install_is_a_halt() {
        let (mut one, script) = plan(2, true);
        let (said, script) = go(&mut one, script, 0, |event| !matches!(event, Event::Installed { .. }));
        assert_eq!(said, Ok(Verdict::Reverted));
        assert!(!script.signals.iter().any(|(pid, _)| *pid > 1), "the second wave was never signalled");
    }
}
