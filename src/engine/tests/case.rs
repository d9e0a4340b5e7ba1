//! A plan over scripted instances, and how it is run.

use std::time::Duration;

use super::*;
use crate::event::Direction;
use crate::step::TargetChange;

/// A run over instances of one group, two in each wave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Case {
    pub(super) waves: i32,
    /// Each instance has a file of its own; otherwise all share one.
    pub(super) own: bool,
    pub(super) budget: Share,
    pub(super) then: OnFailure,
    pub(super) now: bool,
    /// The old bytes are known.
    pub(super) has_old_bytes: bool,
    pub(super) bake: bool,
    pub(super) gates: bool,
}

pub(super) const ONE: Case = Case {
    waves: 1,
    own: false,
    budget: Share::Count(0),
    then: OnFailure::Revert,
    now: false,
    has_old_bytes: true,
    bake: false,
    gates: false,
};

impl Case {
    pub(super) fn path(self, pid: i32) -> PathBuf {
        if self.own {
            format!("/c{pid}").into()
        } else {
            "/c".into()
        }
    }

    pub(super) fn pids(self) -> std::ops::Range<i32> {
        0..2 * self.waves
    }

    pub(super) fn limit(self) -> usize {
        self.budget.rounded_down(self.pids().len())
    }

    pub(super) fn step(self, group: &Arc<Group>, pids: &[i32]) -> Step {
        let path = self.path(pids[0]);
        let wave = usize::try_from(pids[0]).unwrap() / 2 + 1;
        let member = |pid: &i32| PlannedInstance {
            attempt_seq: 1,
            ..PlannedInstance::new(
                Instance {
                    targets: vec![path.clone()],
                    wave,
                    ..Instance::new("hello", *pid, 1)
                },
                group.clone(),
                Vec::new(),
            )
        };
        let change = TargetChange {
            rev: None,
            path: path.clone(),
            from: self.has_old_bytes.then(|| OLD.clone()),
            to: NEW.clone(),
            source: None,
            secret: false,
        };
        Step {
            changes: vec![change],
            instances: pids.iter().map(member).collect(),
            direction: Direction::Forward,
        }
    }

    /// Returns the plan, and a host on which everything succeeds.
    pub(super) fn begin(self) -> (Plan, ScriptHost) {
        let mut group = GROUP.clone();
        (group.rollout.max_failures, group.rollout.on_failure) = (self.budget, self.then);
        if self.gates {
            group.rollout.gate = vec!["gate".into()];
        }
        if self.bake {
            group.rollout.bake = Duration::from_secs(8);
        }
        let group = Arc::new(group);
        let wave = |index: i32| {
            let pids = [2 * index, 2 * index + 1];
            let steps = if self.own {
                pids.iter().map(|pid| self.step(&group, &[*pid])).collect()
            } else {
                vec![self.step(&group, &pids)]
            };
            Wave {
                number: usize::try_from(index).unwrap() + 1,
                steps,
            }
        };
        let mut host = ScriptHost::default();
        for pid in self.pids() {
            // Without the old bytes, the new config is on disk already.
            host.files.insert(
                self.path(pid),
                if self.has_old_bytes {
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

    /// Runs it on a host that `write` has changed.
    pub(super) fn run(self, write: impl FnOnce(&mut ScriptHost)) -> Ran {
        self.run_with(write, |_, _| (0, true))
    }

    /// Runs it like [`Self::run`]. `each` gets every event and its index. It returns how many
    /// interrupts the operator sends then, and whether the journal takes the event.
    pub(super) fn run_with(
        self,
        write: impl FnOnce(&mut ScriptHost),
        mut each: impl FnMut(usize, &Event) -> (u8, bool),
    ) -> Ran {
        let (plan, mut script) = self.begin();
        write(&mut script);
        let (interrupt, mut interrupts) = tokio::sync::watch::channel(0);
        let mut events = Vec::new();
        let mut left = false;
        let kept = Rc::new(Cell::new(true));
        let mut report = |event: &Event| {
            left |= matches!(event, Event::Stopped { .. }) && *interrupt.borrow() > 1;
            // A phase is only shown, so the journal cannot lose it.
            if matches!(event, Event::Phase { .. }) {
                return;
            }
            let (sent, is_kept) = each(events.len(), event);
            kept.set(is_kept);
            events.push(event.clone());
            if sent > 0 {
                interrupt.send_modify(|n| *n += sent);
            }
        };
        let journal = Unreliable(kept.clone());
        let traits = (self.now, false);
        let (ended, plan, script) = run_session(
            (plan, script),
            journal,
            traits,
            &mut interrupts,
            &mut report,
        );
        let verdict = ended.map(|end| end.verdict).map_err(|abort| abort.verdict);
        Ran {
            case: self,
            plan,
            script,
            events,
            verdict,
            left,
        }
    }
}
