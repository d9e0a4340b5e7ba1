#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::{
    cell::Cell,
    collections::BTreeMap,
    io,
    path::PathBuf,
    rc::Rc,
    sync::{Arc, LazyLock},
};

use self::{
    case::{Case, ONE},
    ran::Ran,
};
use super::*;
use crate::{
    event::Instance,
    fleet::{Fleet, Group, Rollout, Share},
    host::{Host, local::script::ScriptHost},
    plan::{Plan, Wave},
    protocol::{HostPlan, InstanceEntry},
    runs::ProvenInstance,
    session::{EventStore, HostSession},
    step::{Content, PlannedInstance, Step},
    waves::Rounds,
};

mod bake;
mod case;
mod hosts;
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
    let (_sender, mut interrupts) = tokio::sync::watch::channel(0);
    let own = std::mem::replace(plan, empty());
    let traits = (immediate, recovering);
    let (ended, done, script) =
        run_session((own, script), Kept, traits, &mut interrupts, &mut |_| {});
    *plan = done;
    (ended.map_err(|abort| abort.verdict), script)
}

fn empty() -> Plan {
    Plan {
        waves: Vec::new(),
        newcomers: Vec::new(),
        skipped: Vec::new(),
        restart: None,
    }
}

/// Runs the plan on the script. Returns how it ended, the plan with its outcomes, and the script.
fn run_session<J: EventStore>(
    (plan, script): (Plan, ScriptHost),
    journal: J,
    traits: (bool, bool),
    interrupts: &mut Interrupts,
    report: &mut impl FnMut(&Event),
) -> (Result<RunEnd, Abort>, Plan, ScriptHost) {
    let mut groups: Vec<GroupPolicy> = Vec::new();
    for member in plan.steps().flat_map(|step| &step.instances) {
        if groups.iter().all(|g| g.name != member.instance.group) {
            groups.push(GroupPolicy {
                name: member.instance.group.clone(),
                rollout: member.group.rollout.clone(),
                rounds: Rounds::new(),
            });
        }
    }
    let mut gates = ScriptedGates(script.gates.clone());
    let (session, entries) = HostSession::scripted((plan, Host::Script(script)), journal, traits);
    let mut plan = FleetPlan::new(vec![(session, entries)], groups);
    let options = EngineOptions {
        immediate: traits.0,
        parallel: 1,
        reach: ReachBudget {
            max: Share::Count(0),
            hosts: 1,
            unreachable: 0,
        },
    };
    let ended = block_on(run(
        &mut plan,
        options,
        interrupts,
        &mut gates,
        &mut |_: &HostName, event: &Event| {
            report(event);
        },
    ));
    let (plan, host) = plan.hosts.remove(0).link.into_parts();
    let Host::Script(script) = host else {
        unreachable!("it was a script")
    };
    (ended, plan, script)
}

/// The exit codes of gates, by wave and command. All other gates end with 0.
struct ScriptedGates(BTreeMap<(usize, String), Option<i32>>);

impl GateRunner for ScriptedGates {
    fn limit(&self) -> Duration {
        Duration::from_secs(60)
    }

    async fn run(
        &mut self,
        command: &[String],
        wave: usize,
        _: &[Instance],
        _: &mut Interrupts,
    ) -> GateEnd {
        let exit = self.0.get(&(wave, command.concat()));
        GateEnd {
            exit: exit.copied().unwrap_or(Some(0)),
            output: String::new(),
        }
    }
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
struct Unreliable(Rc<Cell<bool>>);

impl EventStore for Unreliable {
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
