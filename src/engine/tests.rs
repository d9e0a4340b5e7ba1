#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::{path::PathBuf, sync::Arc, time::Duration};

use super::*;
use crate::{
    event::Instance,
    fleet::Fleet,
    host::script::ScriptHost,
    plan::Wave,
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
    let step = |wave| Step { shifts: vec![shift.clone()], members: vec![member(2 * wave), member(2 * wave + 1)], undo: false };
    let wave = |at: i32| Wave { number: at as usize + 1, steps: vec![step(at)], bake: Duration::ZERO, gates: Vec::new() };
    (Plan { waves: (0..waves).map(wave).collect(), newcomers: Vec::new(), left_out: Vec::new(), restart: None }, host)
}

fn go(plan: &mut Plan, script: ScriptHost, halts: u8, journal: impl Fn(&Event) -> bool) -> (Result<Verdict, Verdict>, ScriptHost) {
    let mut host = Host::Script(script);
    let (tell, mut listen) = tokio::sync::watch::channel(halts);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let said = runtime.block_on(run(plan, &mut host, Conduct { run: "1", now: false, goes_on: false }, &mut listen, &mut |event| journal(&event)));
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
fn who_ran_the_new_config_already_goes_back_with_the_others() {
    // Adopted: the disk is the new config, and one of the first wave and one of the last were on it before the run.
    let (mut one, mut script) = plan(2, true);
    script.files.insert("/c".into(), Blob::new(b"new".to_vec()).sha256);
    for (wave, place) in [(0, 0), (1, 1)] {
        one.waves[wave].steps[0].members[place].instance.state = State::Unchanged;
    }
    script.ends.insert(1, (State::Rejected, State::Reverted));
    let (said, script) = go(&mut one, script, 0, |_| true);
    let states: Vec<State> = one.instances().map(|i| i.state).collect();
    assert_eq!((said, states), (Ok(Verdict::Reverted), vec![State::Reverted, State::Reverted, State::Untouched, State::Reverted]));
    assert_eq!(script.signals.iter().filter(|(_, undo)| *undo).map(|(pid, _)| *pid).collect::<Vec<_>>(), [3, 0, 1]);
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
