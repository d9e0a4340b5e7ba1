//! Rolls back the instances that failed, or everything that the run touched.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use super::{
    commit::{commit, record_intent},
    log::EventStore,
    request::Turn,
};
use crate::{
    event::{Abort, Direction, Event, Outcome},
    fleet::{Speaks, Trigger},
    host::local::check::Recheck,
    step::{PlannedInstance, Step, TargetChange},
};

/// A rollback of some instances of a wave.
#[derive(Debug, Default)]
struct PartialRollback {
    /// The steps of the rollback.
    steps: Vec<Step>,
    /// The changes to install again afterwards, because other instances are proven on them.
    again: Vec<TargetChange>,
}

impl<J: EventStore> Turn<'_, J> {
    /// Rolls back those of `failed` that may have been signalled, and every file of the waves so
    /// far that no instance is proven on. A file that others are proven on is installed again
    /// before this returns: it was away only for the instances that failed. Returns false if there
    /// is nothing to roll back.
    pub(super) async fn roll_back_failed(
        &mut self,
        until: usize,
        failed: &BTreeSet<(i32, u64)>,
        why: &str,
    ) -> Result<bool, Abort> {
        if self.is_immediate || *self.interrupts.borrow() > 1 {
            return Ok(false);
        }
        let PartialRollback { mut steps, again } = self.partial_rollback(until, failed);
        if steps.is_empty() {
            return Ok(false);
        }
        let pids = steps
            .iter()
            .flat_map(|s| &s.instances)
            .map(|m| m.instance.pid)
            .collect();
        self.log.emit(&Event::RolledBack {
            pids,
            why: why.to_owned(),
        });
        self.roll_back(&mut steps, until).await;
        if !again.is_empty() {
            self.install_again(until, again).await?;
        }
        Ok(true)
    }

    /// Commits the steps of a rollback. An error needs no answer here: a file that could not be
    /// rolled back shows in the outcomes, and in the digests that are read at the end.
    async fn roll_back(&mut self, steps: &mut [Step], number: usize) {
        let _ = commit(steps, number, self.host, self.interrupts, &mut self.log).await;
        self.plan.apply_outcomes(steps);
    }

    fn partial_rollback(&self, until: usize, failed: &BTreeSet<(i32, u64)>) -> PartialRollback {
        let proven = |m: &PlannedInstance| {
            matches!(
                m.instance.outcome,
                Outcome::Confirmed | Outcome::Unconfirmed | Outcome::Unchanged
            )
        };
        let needed: BTreeSet<&Path> = self
            .plan
            .steps()
            .filter(|s| s.instances.iter().any(proven))
            .flat_map(|s| &s.changes)
            .map(|change| change.path.as_path())
            .collect();
        let is_needed = |change: &TargetChange| needed.contains(change.path.as_path());
        let mut rollback = PartialRollback::default();
        for step in self.steps_until(until) {
            let shared = step.changes.iter().any(is_needed);
            let Some(back) = self.step_back(step, failed, shared) else {
                continue;
            };
            let again = step.changes.iter().filter(|change| is_needed(change));
            rollback.again.extend(again.cloned());
            rollback.steps.push(back);
        }
        rollback
    }

    /// Returns the step that rolls back the failed instances of `step`; none where nothing of it
    /// needs that. `shared` is true where other instances are proven on a file of it.
    fn step_back(&self, step: &Step, failed: &BTreeSet<(i32, u64)>, shared: bool) -> Option<Step> {
        // An instance that reports that it kept the old config needs no rollback as long as its
        // file stays for the others. The status of a command reports nothing about the instance.
        let touched = |m: &&PlannedInstance| match (m.instance.outcome, m.group.trigger()) {
            (Outcome::Rejected, Trigger::Signal(_)) => !shared,
            _ => failed.contains(&m.id) && m.is_touched(),
        };
        let instances: Vec<PlannedInstance> =
            step.instances.iter().filter(touched).cloned().collect();
        let is_on_disk = |change: &TargetChange| {
            self.host.is_installed(&change.path)
                && self.host.disk_digest(&change.path).as_ref() == Some(&change.to.sha256)
        };
        let files = !shared && step.is_work() && step.changes.iter().any(is_on_disk);
        if instances.is_empty() && !files {
            return None;
        }
        let forward = Step {
            changes: step.changes.clone(),
            instances,
            direction: Direction::Forward,
        };
        forward.flip()
    }

    /// Installs files again that were away for a rollback, whether or not the run was interrupted
    /// or its journal failed: instances that stay on the new config must keep their file.
    async fn install_again(
        &mut self,
        until: usize,
        changes: Vec<TargetChange>,
    ) -> Result<(), Abort> {
        let paths: BTreeSet<PathBuf> = changes.iter().map(|change| change.path.clone()).collect();
        let mut forward = [Step {
            changes,
            instances: Vec::new(),
            direction: Direction::Forward,
        }];
        record_intent(&forward, until, &mut self.log);
        let log = &mut self.log;
        self.host
            .commit(&mut forward, self.interrupts, &mut |event| log.emit(&event))
            .await?;
        self.recheck_readers(until, &paths).await;
        Ok(())
    }

    /// Checks every reader of files that were away during a partial rollback. It may have read the
    /// old config meanwhile. The self-report of a `hello serve` covers every signal that it was
    /// sent. Any other daemon may still be in a reload, and gets the time that a reload may take.
    async fn recheck_readers(&mut self, until: usize, paths: &BTreeSet<PathBuf>) {
        let reads = |step: &Step| step.changes.iter().any(|c| paths.contains(&c.path));
        let steps = self.steps_until(until).filter(|s| reads(s));
        let members = steps
            .flat_map(|s| &s.instances)
            .filter(|m| m.is_good() && m.group.speaks == Speaks::None);
        let wait = members.map(|m| m.timeout).max().unwrap_or_default();
        let patience = (*self.interrupts.borrow()).min(1);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            Ok(_) = self.interrupts.wait_for(|n| *n > patience) => {}
        }
        self.recheck_steps(until, Recheck::All, patience, reads)
            .await;
    }

    /// Rolls everything back, newest wave first, and confirms the old config. On a host of which
    /// nothing was touched there is nothing to say.
    pub(super) async fn roll_back_all(&mut self, until: usize, why: String) {
        let mut steps = self.full_rollback(until);
        if steps.is_empty() {
            return;
        }
        self.log.emit(&Event::RollbackBegan { why });
        self.roll_back(&mut steps, until).await;
    }

    /// Returns the steps that roll back the waves up to `until`.
    fn full_rollback(&self, until: usize) -> Vec<Step> {
        let begun: Vec<&Step> = self
            .plan
            .waves
            .iter()
            .rev()
            .filter(|w| self.is_recovering || w.number <= until)
            .flat_map(|w| &w.steps)
            .filter(|s| self.must_roll_back(s))
            .collect();
        let paths: BTreeSet<&Path> = begun
            .iter()
            .flat_map(|s| &s.changes)
            .map(|change| change.path.as_path())
            .collect();
        // An instance that needed no signal reads the same files, whether or not its wave has
        // begun.
        let others = self
            .plan
            .waves
            .iter()
            .rev()
            .flat_map(|w| &w.steps)
            .filter(|s| !begun.iter().any(|b| std::ptr::eq(*b, *s)));
        let readers = others
            .filter(|s| s.changes.iter().any(|c| paths.contains(c.path.as_path())))
            .filter_map(Step::flip)
            .filter(|s| !s.instances.is_empty());
        readers
            .chain(begun.iter().filter_map(|s| s.flip()))
            .collect()
    }
}
