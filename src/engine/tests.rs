#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::Duration,
};

use super::*;
use crate::{
    fleet::{Fleet, Group, Share},
    host::local::script::ScriptHost,
    step::{Content, TargetChange},
};

mod again;
mod bake;
mod halts;
mod sweep;

static GROUP: LazyLock<Group> = LazyLock::new(|| Fleet::of_kind("hello").unwrap().groups.remove(0));
static OLD: LazyLock<Content> = LazyLock::new(|| Content::new(b"old".to_vec()));
static NEW: LazyLock<Content> = LazyLock::new(|| Content::new(b"new".to_vec()));

thread_local! {
    /// Its clock goes on as soon as everybody waits.
    static RUNTIME: tokio::runtime::Runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
}

fn block_on<F: Future>(future: F) -> F::Output {
    RUNTIME.with(|runtime| runtime.block_on(future))
}

/// What an instance that fails ends in, forth and back.
const BAD: [Outcome; 4] = [
    Outcome::Refused,
    Outcome::Rejected,
    Outcome::TimedOut,
    Outcome::Died,
];
const BACK: [Outcome; 3] = [Outcome::Reverted, Outcome::RevertFailed, Outcome::Died];
const THEN: [OnFailure; 3] = [OnFailure::Revert, OnFailure::Stop, OnFailure::Continue];

/// A run over instances of one group, two in each wave.
#[derive(Debug, Clone, Copy)]
struct Case {
    waves: i32,
    /// Each has a file of its own; else all share one.
    own: bool,
    budget: Share,
    then: OnFailure,
    now: bool,
    /// Somebody has the bytes of before.
    way_back: bool,
    bake: bool,
    gates: bool,
}

const ONE: Case = Case {
    waves: 1,
    own: false,
    budget: Share::Count(0),
    then: OnFailure::Revert,
    now: false,
    way_back: true,
    bake: false,
    gates: false,
};

/// How a run ended, and all that it told.
#[derive(Debug)]
struct Ran {
    case: Case,
    plan: Plan,
    script: ScriptHost,
    events: Vec<Event>,
    said: Result<Verdict, Verdict>,
    /// The operator had asked twice when it went no further.
    left: bool,
}

impl Case {
    fn path(self, pid: i32) -> PathBuf {
        if self.own {
            format!("/c{pid}").into()
        } else {
            "/c".into()
        }
    }

    fn pids(self) -> std::ops::Range<i32> {
        0..2 * self.waves
    }

    fn limit(self) -> usize {
        self.budget.rounded_down(self.pids().len())
    }

    fn step(self, group: &Arc<Group>, pids: &[i32]) -> Step {
        let path = self.path(pids[0]);
        let member = |pid: &i32| PlannedInstance {
            attempt_seq: 1,
            ..PlannedInstance::new(
                Instance {
                    targets: vec![path.clone()],
                    ..Instance::new("hello", *pid, 1)
                },
                group.clone(),
                Vec::new(),
            )
        };
        let shift = TargetChange {
            path: path.clone(),
            from: self.way_back.then(|| OLD.clone()),
            to: NEW.clone(),
            secret: false,
        };
        Step {
            changes: vec![shift],
            instances: pids.iter().map(member).collect(),
            undo: false,
        }
    }

    /// The plan, and the host that does what is wanted.
    fn begin(self) -> (Plan, ScriptHost) {
        let mut group = GROUP.clone();
        (group.rollout.max_failures, group.rollout.on_failure) = (self.budget, self.then);
        group.rollout.gate = vec!["gate".into()];
        let group = Arc::new(group);
        let wave = |at: i32| {
            let pids = [2 * at, 2 * at + 1];
            let steps = if self.own {
                pids.iter().map(|pid| self.step(&group, &[*pid])).collect()
            } else {
                vec![self.step(&group, &pids)]
            };
            let gates = if self.gates {
                vec![group.rollout.gate.clone()]
            } else {
                Vec::new()
            };
            Wave {
                number: usize::try_from(at).unwrap() + 1,
                steps,
                bake: if self.bake {
                    Duration::from_secs(600)
                } else {
                    Duration::ZERO
                },
                gates,
            }
        };
        let mut host = ScriptHost::default();
        for pid in self.pids() {
            // Without a way back the disk is the new config already.
            host.files.insert(
                self.path(pid),
                if self.way_back {
                    OLD.sha256.clone()
                } else {
                    NEW.sha256.clone()
                },
            );
            host.runs.insert(pid, OLD.sha256.clone());
        }
        (
            Plan {
                waves: (0..self.waves).map(wave).collect(),
                newcomers: Vec::new(),
                skipped: Vec::new(),
                restart: None,
            },
            host,
        )
    }

    /// Runs it with a host that `write` has written its part for.
    fn run(self, write: impl FnOnce(&mut ScriptHost)) -> Ran {
        self.run_with(write, |_, _| (0, true))
    }

    /// The same; `each` sees every event and its place, and answers how often the operator asks to
    /// stop then, and whether the journal takes it.
    fn run_with(
        self,
        write: impl FnOnce(&mut ScriptHost),
        mut each: impl FnMut(usize, &Event) -> (u8, bool),
    ) -> Ran {
        let (mut plan, mut script) = self.begin();
        write(&mut script);
        let mut host = Host::Script(script);
        let (halt, mut listen) = tokio::sync::watch::channel(0);
        let (mut events, mut left) = (Vec::new(), false);
        let mut tell = |event: Event| {
            left |= matches!(event, Event::Stopped { .. }) && *halt.borrow() > 1;
            // It is for a screen alone, and stands in no journal that could be lost.
            if matches!(event, Event::Phase { .. }) {
                return true;
            }
            let (halts, kept) = each(events.len(), &event);
            events.push(event);
            if halts > 0 {
                halt.send_modify(|n| *n += halts);
            }
            kept
        };

        let said = block_on(run(
            &mut plan,
            &mut host,
            EngineOptions {
                run: "1",
                immediate: self.now,
                recovering: false,
            },
            &mut listen,
            &mut tell,
        ))
        .map(|end| end.verdict)
        .map_err(|stop| stop.verdict);
        let Host::Script(script) = host else {
            unreachable!("it was a script")
        };
        Ran {
            case: self,
            plan,
            script,
            events,
            said,
            left,
        }
    }
}

impl Ran {
    fn states(&self) -> Vec<Outcome> {
        self.plan.instances().map(|i| i.outcome).collect()
    }

    fn is(&self, path: &PathBuf, blob: &Content) -> bool {
        self.script.files[path] == blob.sha256
    }

    fn told(&self, what: impl Fn(&Event) -> bool) -> bool {
        self.events.iter().any(what)
    }

    /// What must be so of every run, whatever became of it.
    fn hold(self, context: impl Fn() -> String) -> Self {
        let context = || {
            let Self {
                case, said, script, ..
            } = &self;
            format!(
                "{}\n{case:?}\n{said:?}: {:?}\nfiles {:?}\nruns {:?}",
                context(),
                self.states(),
                script.files,
                script.runs
            )
        };
        let runs =
            |i: &Instance, blob: &Content| self.script.runs.get(&i.pid) == Some(&blob.sha256);
        assert!(
            self.script
                .files
                .values()
                .all(|f| *f == OLD.sha256 || *f == NEW.sha256),
            "a file is something else: {}",
            context()
        );
        for i in self.plan.instances() {
            let agrees = match i.outcome {
                Outcome::Confirmed | Outcome::Unconfirmed => runs(i, &NEW),
                Outcome::Reverted | Outcome::Untouched | Outcome::Refused | Outcome::Rejected => {
                    runs(i, &OLD)
                }
                Outcome::Unchanged | Outcome::TimedOut | Outcome::Died | Outcome::RevertFailed => {
                    true
                }
            };
            assert!(
                agrees,
                "pid {} does not run what its state says: {}",
                i.pid,
                context()
            );
        }
        self.signals_are_intended(context);
        if self.said.is_err() {
            let old = if self.case.way_back { &*OLD } else { &*NEW };
            assert!(
                self.script.signals.is_empty()
                    && self
                        .case
                        .pids()
                        .all(|pid| self.is(&self.case.path(pid), old)),
                "it was touched: {}",
                context()
            );
            return self;
        }
        assert_eq!(self.said, Ok(self.verdict()), "{}", context());
        if self.said == Ok(Verdict::Reverted) {
            assert!(
                self.case
                    .pids()
                    .all(|pid| self.is(&self.case.path(pid), &OLD)),
                "a file did not go back: {}",
                context()
            );
            assert!(
                self.plan.instances().all(|i| runs(i, &OLD)),
                "somebody does not run the old config: {}",
                context()
            );
        }
        let nobody = |path: &PathBuf| {
            let mut readers = self.plan.instances().filter(|i| i.targets[0] == *path);
            readers.all(|i| {
                matches!(
                    i.outcome,
                    Outcome::Untouched | Outcome::Refused | Outcome::Reverted | Outcome::Rejected
                )
            })
        };
        let stays = |path: &PathBuf| self.is(path, &NEW) && nobody(path);
        let goes_back =
            !self.case.now && self.case.way_back && !self.left && self.script.stuck.is_empty();
        assert!(
            !goes_back || !self.case.pids().any(|pid| stays(&self.case.path(pid))),
            "a file stays that nobody runs: {}",
            context()
        );
        if self.case.now {
            assert!(
                self.script.signals.iter().all(|(_, undo)| !undo)
                    && !self.told(|e| matches!(e, Event::Intent { undo: true, .. })),
                "{}",
                context()
            );
        }
        self
    }

    /// No signal without an intent that names it, and none forth once the run goes no further.
    fn signals_are_intended(&self, context: impl Fn() -> String) {
        let (mut intended, mut failed, mut over) = (BTreeSet::new(), BTreeSet::new(), false);
        for event in &self.events {
            match event {
                Event::Intent { undo, pids, .. } => {
                    assert!(
                        *undo || pids.is_empty() || !over,
                        "signals after the end: {}",
                        context()
                    );
                    intended.extend(pids.iter().map(|(pid, _)| (*pid, *undo)));
                }
                Event::Instance {
                    pid,
                    outcome: state,
                    ..
                } if BAD.contains(state) => {
                    failed.insert(*pid);
                }
                Event::RollbackBegan { .. } | Event::Stopped { .. } => over = true,
                Event::Gate { exit, .. } => {
                    over |= *exit != Some(0) && self.case.then != OnFailure::Continue
                }
                _ => {}
            }
            over |= failed.len() > self.case.limit()
                && (self.case.now || !self.case.way_back || self.case.then != OnFailure::Continue);
        }
        assert!(
            self.script
                .signals
                .iter()
                .all(|signal| intended.contains(signal)),
            "a signal without an intent: {}",
            context()
        );
    }

    /// The table of exit codes.
    fn verdict(&self) -> Verdict {
        let (undone, stopped) = (
            self.told(|e| matches!(e, Event::RollbackBegan { .. })),
            self.told(|e| matches!(e, Event::Stopped { .. })),
        );
        let states = self.states();
        let all = |of: &[Outcome]| states.iter().all(|s| of.contains(s));
        let files = |blob: &Content| {
            self.case
                .pids()
                .all(|pid| self.is(&self.case.path(pid), blob))
        };
        let reads_another = |i: &Instance| {
            matches!(i.outcome, Outcome::Confirmed | Outcome::Unconfirmed)
                && !self.is(&i.targets[0], &NEW)
        };
        let unproven = states
            .iter()
            .any(|s| matches!(s, Outcome::TimedOut | Outcome::Died | Outcome::RevertFailed));
        let never = self.told(|e| matches!(e, Event::Gate { exit, .. } if *exit != Some(0)));
        let (new, old) = (
            [Outcome::Confirmed, Outcome::Unconfirmed],
            [Outcome::Reverted, Outcome::Untouched, Outcome::Refused],
        );
        match () {
            () if unproven || self.left || self.plan.instances().any(reads_another) => {
                Verdict::Mixed
            }
            () if stopped && !self.case.way_back => Verdict::Mixed,
            () if undone => {
                if all(&old) && files(&OLD) {
                    Verdict::Reverted
                } else {
                    Verdict::Mixed
                }
            }
            () if all(&new) => {
                if stopped || never {
                    Verdict::Partial
                } else {
                    Verdict::Converged
                }
            }
            () if all(&old) && files(&OLD) => Verdict::Reverted,
            () => Verdict::Partial,
        }
    }
}

#[test]
fn what_was_never_touched_is_no_reverted_run() {
    let two = Case { waves: 2, ..ONE };
    for then in THEN {
        let case = Case { then, ..two };
        let stuck = case
            .run(|script| {
                script.stuck.insert("/c".into(), (true, false));
            })
            .hold(|| "stuck".into());
        assert_eq!(stuck.said, Err(Verdict::Failed));
        let unwritten = case
            .run_with(|_| {}, |_, _| (0, false))
            .hold(|| "no journal".into());
        assert_eq!(unwritten.said, Err(Verdict::Failed));
    }
    // Nobody had a file to install, and nobody took the signal.
    for then in THEN {
        let case = Case {
            then,
            way_back: false,
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
        assert_eq!(refused.said, Err(Verdict::Refused));
    }
}

#[test]
fn without_a_way_back_or_with_a_file_that_stays_a_failure_is_mixed() {
    let timed_out = |script: &mut ScriptHost| {
        script
            .ends
            .insert(1, (Outcome::TimedOut, Outcome::Reverted));
    };
    for then in THEN {
        let ran = Case {
            way_back: false,
            then,
            ..ONE
        }
        .run(timed_out)
        .hold(|| "no way back".into());
        assert_eq!(
            (ran.said, ran.script.signals.iter().any(|(_, undo)| *undo)),
            (Ok(Verdict::Mixed), false)
        );
        let ran = Case { then, ..ONE }
            .run(|script| {
                timed_out(script);
                script.stuck.insert("/c".into(), (false, true));
            })
            .hold(|| "the file stays".into());
        assert_eq!(ran.said, Ok(Verdict::Mixed));
    }
}

#[test]
fn who_ran_the_new_config_already_goes_back_with_the_others() {
    // Adopted: the disk is the new config, and one of the first wave and one of the last were on it
    // before the run.
    let (mut plan, mut script) = Case { waves: 2, ..ONE }.begin();
    script.files.insert("/c".into(), NEW.sha256.clone());
    for (wave, place) in [(0, 0), (1, 1)] {
        plan.waves[wave].steps[0].instances[place].instance.outcome = Outcome::Unchanged;
    }
    script
        .ends
        .insert(1, (Outcome::Rejected, Outcome::Reverted));
    let mut host = Host::Script(script);
    let (_halt, mut listen) = tokio::sync::watch::channel(0);

    let said = block_on(run(
        &mut plan,
        &mut host,
        EngineOptions {
            run: "1",
            immediate: false,
            recovering: false,
        },
        &mut listen,
        &mut |_| true,
    ))
    .map(|end| end.verdict)
    .map_err(|stop| stop.verdict);
    let Host::Script(script) = host else {
        unreachable!("it was a script")
    };
    let states: Vec<Outcome> = plan.instances().map(|i| i.outcome).collect();
    assert_eq!(
        (said, states),
        (
            Ok(Verdict::Reverted),
            vec![
                Outcome::Reverted,
                Outcome::Reverted,
                Outcome::Untouched,
                Outcome::Reverted
            ]
        )
    );
    assert_eq!(
        script
            .signals
            .iter()
            .filter(|(_, undo)| *undo)
            .map(|(pid, _)| *pid)
            .collect::<Vec<_>>(),
        [3, 0, 1]
    );
}
