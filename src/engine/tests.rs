#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::{
    cell::Cell,
    io,
    path::PathBuf,
    sync::{Arc, LazyLock},
};

use self::{
    case::{Case, ONE},
    ran::Ran,
};
use super::*;
use crate::{
    event::Instance,
    fleet::{Fleet, Group, Share},
    host::local::script::ScriptHost,
    runs::ProvenInstance,
    step::Content,
};

mod bake;
mod case;
mod interrupts;
mod ran;
mod recovery;
mod sweep;

static GROUP: LazyLock<Group> = LazyLock::new(|| Fleet::of_kind("hello").unwrap().groups.remove(0));
static OLD: LazyLock<Content> = LazyLock::new(|| Content::new(b"old".to_vec()));
static NEW: LazyLock<Content> = LazyLock::new(|| Content::new(b"new".to_vec()));

thread_local! {
    /// Its clock advances as soon as every task waits.
    static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
}

fn block_on<F: Future>(future: F) -> F::Output {
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// Runs the plan on the script, with a journal that keeps everything and without an interrupt.
fn run_script(
    plan: &mut Plan,
    script: ScriptHost,
    immediate: bool,
    recovering: bool,
) -> (Result<RunEnd, Verdict>, ScriptHost) {
    let mut host = Host::Script(script);
    let (_sender, mut interrupts) = tokio::sync::watch::channel(0);
    let options = EngineOptions {
        run: "1",
        immediate,
        recovering,
    };
    let ended = block_on(run(
        plan,
        &mut host,
        options,
        &mut interrupts,
        &mut Kept,
        &mut |_| {},
    ));
    let Host::Script(script) = host else {
        unreachable!("it was a script")
    };
    (ended.map_err(|abort| abort.verdict), script)
}

/// A journal that takes every event.
struct Kept;

impl EventStore for Kept {
    fn record(&mut self, _: &Event) -> io::Result<()> {
        Ok(())
    }

    async fn keep_proofs(&self, _: Vec<ProvenInstance>, _: &Interrupts) {}
}

/// A journal that takes an event only where the cell says so.
struct Unreliable<'a>(&'a Cell<bool>);

impl EventStore for Unreliable<'_> {
    fn record(&mut self, _: &Event) -> io::Result<()> {
        if self.0.get() {
            Ok(())
        } else {
            Err(io::ErrorKind::StorageFull.into())
        }
    }

    async fn keep_proofs(&self, _: Vec<ProvenInstance>, _: &Interrupts) {}
}

/// The outcomes of an instance that fails, before and after a rollback.
const BAD: [Outcome; 4] = [
    Outcome::Refused,
    Outcome::Rejected,
    Outcome::TimedOut,
    Outcome::Died,
];
const BACK: [Outcome; 3] = [Outcome::Reverted, Outcome::RevertFailed, Outcome::Died];
const THEN: [OnFailure; 3] = [OnFailure::Revert, OnFailure::Stop, OnFailure::Continue];

#[test]
fn an_untouched_run_is_not_reverted() {
    let two = Case { waves: 2, ..ONE };
    for then in THEN {
        let case = Case { then, ..two };
        let stuck = case
            .run(|script| {
                script.stuck.insert("/c".into(), (true, false));
            })
            .hold(|| "stuck".into());
        assert_eq!(stuck.verdict, Err(Verdict::Failed));
        let unwritten = case
            .run_with(|_| {}, |_, _| (0, false))
            .hold(|| "no journal".into());
        assert_eq!(unwritten.verdict, Err(Verdict::Failed));
    }
    // No file was to be installed, and no instance could be signalled.
    for then in THEN {
        let case = Case {
            then,
            has_old_bytes: false,
            budget: Share::Part(10_000),
            ..two
        };
        let refused = case
            .run(|script| {
                script.ends.extend(
                    case.pids()
                        .map(|pid| (pid, (Outcome::Refused, Outcome::Reverted))),
                )
            })
            .hold(|| "refused".into());
        assert_eq!(refused.verdict, Err(Verdict::Refused));
    }
}

#[test]
fn a_failure_that_cannot_be_rolled_back_is_mixed() {
    let timed_out = |script: &mut ScriptHost| {
        script
            .ends
            .insert(1, (Outcome::TimedOut, Outcome::Reverted));
    };
    for then in THEN {
        let ran = Case {
            has_old_bytes: false,
            then,
            ..ONE
        }
        .run(timed_out)
        .hold(|| "no old bytes".into());
        assert_eq!(
            (
                ran.verdict,
                ran.script
                    .signals
                    .iter()
                    .any(|(_, direction)| direction.is_back())
            ),
            (Ok(Verdict::Mixed), false)
        );
        let ran = Case { then, ..ONE }
            .run(|script| {
                timed_out(script);
                script.stuck.insert("/c".into(), (false, true));
            })
            .hold(|| "the file stays".into());
        assert_eq!(ran.verdict, Ok(Verdict::Mixed));
    }
}

#[test]
fn an_unchanged_instance_is_rolled_back_with_the_others() {
    // Adopted: the new config is on disk. One instance of the first wave and one of the last ran it
    // before the run.
    let (mut plan, mut script) = Case { waves: 2, ..ONE }.begin();
    script.files.insert("/c".into(), NEW.sha256.clone());
    for (wave, index) in [(0, 0), (1, 1)] {
        plan.waves[wave].steps[0].instances[index].instance.outcome = Outcome::Unchanged;
    }
    script
        .ends
        .insert(1, (Outcome::Rejected, Outcome::Reverted));
    let (ended, script) = run_script(&mut plan, script, false, false);
    let verdict = ended.map(|end| end.verdict);
    let outcomes: Vec<Outcome> = plan.instances().map(|i| i.outcome).collect();
    assert_eq!(verdict, Ok(Verdict::Reverted));
    assert_eq!(
        outcomes,
        [
            Outcome::Reverted,
            Outcome::Reverted,
            Outcome::Untouched,
            Outcome::Reverted
        ]
    );
    assert_eq!(
        script
            .signals
            .iter()
            .filter(|(_, direction)| direction.is_back())
            .map(|(pid, _)| *pid)
            .collect::<Vec<_>>(),
        [3, 0, 1]
    );
}
