//! A scripted host for tests. It gives the answers that a test has set, and records the config that
//! every process runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Instant,
};

use crate::{
    event::{Abort, Direction, Event, Failure, INTERRUPTED, Interrupts, Outcome, Verdict},
    host::local::{check::Recheck, failed::not_proven},
    step::{PlannedInstance, Step},
};

/// The files of a scripted host, and the outcomes of its instances in both directions.
#[derive(Debug, Default)]
pub struct ScriptHost {
    /// The digest of every file.
    pub files: BTreeMap<PathBuf, String>,
    /// Files that were exchanged.
    pub installed: BTreeSet<PathBuf>,
    /// Files whose install fails: forward, back.
    pub stuck: BTreeMap<PathBuf, (bool, bool)>,
    /// Files whose second install forward fails.
    pub once: BTreeSet<PathBuf>,
    /// The outcomes of a pid: forward, back. All other pids are confirmed and reverted.
    pub ends: BTreeMap<i32, (Outcome, Outcome)>,
    /// The outcome of a pid in a check, by the number of the check from 1. All other pids prove the
    /// same as before.
    pub checks: BTreeMap<(usize, i32), Outcome>,
    /// The number of checks so far.
    pub checked: usize,
    /// The exit codes of gates, or none, by wave and command. All other gates end with 0.
    pub gates: BTreeMap<(usize, String), Option<i32>>,
    /// Every signal, in order: pid, and whether it belonged to a rollback.
    pub signals: Vec<(i32, Direction)>,
    /// The digest of the config that each pid has loaded. All other pids have ended.
    pub runs: BTreeMap<i32, String>,
}

impl ScriptHost {
    pub(crate) fn check(
        &mut self,
        steps: &mut [&mut Step],
        recheck: Recheck,
        emit: &mut impl FnMut(Event),
    ) {
        let instances = steps
            .iter_mut()
            .flat_map(|s| &mut s.instances)
            .filter(|m| m.instance.outcome == Outcome::Confirmed);
        let mut asked: Vec<&mut PlannedInstance> =
            instances.filter(|m| recheck.covers(m)).collect();
        // A check that covers no instance does not count.
        self.checked += usize::from(!asked.is_empty());
        for planned in &mut asked {
            planned.proven_at = Some(Instant::now());
            let pid = planned.instance.pid;
            if let Some(bad) = self.checks.get(&(self.checked, pid)) {
                planned.fail(
                    *bad,
                    Failure {
                        kind: (*bad).into(),
                        text: format!("{bad:?} when checked again"),
                    },
                );
                if *bad == Outcome::Died {
                    self.runs.remove(&pid);
                }
                emit(Event::of(&planned.instance));
            }
        }
    }

    pub(crate) fn commit(
        &mut self,
        steps: &mut [Step],
        interrupts: &Interrupts,
        emit: &mut impl FnMut(Event),
    ) -> Result<(), Abort> {
        let stuck = self.install(steps, emit)?;
        for Step {
            changes,
            instances,
            direction,
        } in steps
        {
            let is_stuck = changes.iter().any(|s| stuck.contains(&s.path));
            for planned in instances
                .iter_mut()
                .filter(|m| m.instance.outcome != Outcome::Unchanged)
            {
                match (
                    is_stuck,
                    *interrupts.borrow() > direction.tolerated_interrupts(),
                ) {
                    (true, _) if planned.instance.outcome == Outcome::Died => {}
                    (true, _) => fail(planned, Outcome::RevertFailed, "stuck"),
                    // It may have been signalled, and its proof was not waited for.
                    (false, true) => {
                        planned.signalled = Some(jiff::Timestamp::now());
                        fail(planned, not_proven(*direction), INTERRUPTED);
                    }
                    (false, false) => self.signal(planned, *direction),
                }
                emit(Event::of(&planned.instance));
            }
        }
        if stuck.is_empty() {
            Ok(())
        } else {
            Err(Abort::new(Verdict::Failed, "stuck"))
        }
    }

    /// Installs every target. Returns those that could not be rolled back.
    fn install(
        &mut self,
        steps: &[Step],
        emit: &mut impl FnMut(Event),
    ) -> Result<BTreeSet<PathBuf>, Abort> {
        let mut stuck = BTreeSet::new();
        for (step, change) in steps
            .iter()
            .flat_map(|step| step.changes.iter().map(move |change| (step, change)))
        {
            let Some(from) = &change.from else { continue };
            let is_stuck = self.stuck.get(&change.path).is_some_and(|(forward, back)| {
                if step.direction.is_back() {
                    *back
                } else {
                    *forward
                }
            });
            let again = !step.direction.is_back()
                && self.once.contains(&change.path)
                && self.installed.contains(&change.path);
            let now = self.files.get(&change.path).cloned().unwrap_or_default();
            if now == change.to.sha256 {
                continue;
            }
            if is_stuck || again || now != from.sha256 {
                if step.direction.is_back() {
                    stuck.insert(change.path.clone());
                    continue;
                }
                return Err(Abort::new(Verdict::Failed, "stuck"));
            }
            self.files
                .insert(change.path.clone(), change.to.sha256.clone());
            self.installed.insert(change.path.clone());
            emit(Event::Installed {
                rev: None,
                path: change.path.clone(),
                sha256: change.to.sha256.clone(),
            });
        }
        Ok(stuck)
    }

    fn signal(&mut self, planned: &mut PlannedInstance, direction: Direction) {
        let pid = planned.instance.pid;
        let (forward, back) = self
            .ends
            .get(&pid)
            .copied()
            .unwrap_or((Outcome::Confirmed, Outcome::Reverted));
        let outcome = if direction.is_back() { back } else { forward };
        if outcome != Outcome::Refused {
            self.signals.push((pid, direction));
            planned.signalled = Some(jiff::Timestamp::now());
        }
        let file = planned
            .instance
            .targets
            .first()
            .and_then(|path| self.files.get(path))
            .cloned()
            .unwrap_or_default();
        match outcome {
            // An instance that proves nothing may load the file all the same.
            Outcome::Confirmed | Outcome::Unconfirmed | Outcome::Reverted | Outcome::TimedOut => {
                drop(self.runs.insert(pid, file))
            }
            Outcome::Died => drop(self.runs.remove(&pid)),
            _ => {}
        }
        match outcome {
            Outcome::Confirmed | Outcome::Unconfirmed | Outcome::Reverted => {
                (planned.instance.outcome, planned.proven_at) = (outcome, Some(Instant::now()));
            }
            bad => fail(planned, bad, &format!("{bad:?}")),
        }
    }
}

fn fail(planned: &mut PlannedInstance, outcome: Outcome, text: &str) {
    planned.fail(
        outcome,
        Failure {
            kind: outcome.into(),
            text: text.into(),
        },
    );
}
