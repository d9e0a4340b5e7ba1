//! The end of a run: the last checks, and their verdict.

use std::{collections::BTreeMap, path::Path};

use super::{log::EventStore, request::Turn};
use crate::{
    event::{Direction, Event, Failure, Outcome, Proof},
    fleet::Unproven,
    host::{
        NewcomersError,
        local::check::{Recheck, mark_lost},
    },
    protocol::{Concluded, Freshness},
    step::{PlannedInstance, Step},
};

impl<J: EventStore> Turn<'_, J> {
    /// Returns what is there: the new processes, the outcomes, and the targets. Every target is
    /// read again, because a file that another program changed meanwhile proves nothing.
    pub(super) async fn conclude(&mut self, direction: Direction, fresh: Freshness) -> Concluded {
        self.fail_pending();
        let unseen = self.find_newcomers(direction).await.err();
        // The verdict covers the instances and then the files, so these are read last.
        let is_complete = self.final_check(fresh).await && unseen.is_none();
        let states = self.targets_on_disk(direction);
        self.fail_unproven_by_content(&states.changed, direction);
        let mut ends: Vec<(Outcome, Unproven)> = Vec::new();
        for end in self.plan.ends() {
            if !ends.contains(&end) {
                ends.push(end);
            }
        }
        self.refuse_unsignalled();
        self.host.end_watch();
        Concluded {
            is_known: states.known && is_complete,
            unseen: unseen.map(|why| why.to_string()),
            is_new: states.new,
            ends,
        }
    }

    /// Fails every instance that an earlier run may have signalled and that this run did not reach.
    fn fail_pending(&mut self) {
        for member in self
            .plan
            .waves
            .iter_mut()
            .flat_map(|w| &mut w.steps)
            .flat_map(|s| &mut s.instances)
            .filter(|m| m.may_run_new && m.instance.outcome == Outcome::Untouched)
        {
            let text = "an earlier run may have signalled it, and this one ended before its turn";
            member.fail(
                Outcome::TimedOut,
                Failure {
                    kind: Outcome::TimedOut.into(),
                    text: text.into(),
                },
            );
        }
    }

    /// Looks for processes that came during the run. One that is unproven is named; nothing of it
    /// was touched that could be rolled back.
    ///
    /// # Errors
    /// Fails if the host could not look.
    async fn find_newcomers(&mut self, direction: Direction) -> Result<(), NewcomersError> {
        let steps = self.targets_on_disk(direction).steps;
        let steps: Vec<&Step> = steps.iter().collect();
        let log = &mut self.log;
        let newcomers = self
            .host
            .newcomers(&steps, direction, self.interrupts, &mut |event| {
                log.emit(&event);
            })
            .await;
        match newcomers {
            Ok(newcomers) => {
                self.plan.newcomers = newcomers;
                Ok(())
            }
            Err(error) => {
                let why = error.to_string();
                self.log.emit(&Event::Stopped { why });
                Err(error)
            }
        }
    }

    /// Checks every instance whose outcome says that it lives. Returns true if each stale proof was
    /// probed again. A second interrupt ends the probes, but never before each process was looked
    /// at.
    pub(super) async fn final_check(&mut self, fresh: Freshness) -> bool {
        // Nothing is touched after this event: the verdict stands whether or not the journal takes
        // it.
        self.log.emit(&Event::FinalCheck);
        let recheck = Recheck::AtTheEnd(fresh.begin());
        self.recheck_steps(usize::MAX, recheck, 1, |_| true).await
    }

    /// Marks every instance that failed without a signal as refused. The verdict was decided
    /// before: such an instance is not on the new config.
    fn refuse_unsignalled(&mut self) {
        let members = self
            .plan
            .waves
            .iter_mut()
            .flat_map(|w| &mut w.steps)
            .flat_map(|s| &mut s.instances);
        for member in members.filter(|m| m.failed_unsignalled()) {
            member.instance.outcome = Outcome::Refused;
            self.log.emit(&Event::of(&member.instance));
        }
    }

    /// Compares each target on disk with what it should be.
    fn targets_on_disk(&self, direction: Direction) -> TargetStates {
        let mut disk: BTreeMap<&Path, Option<String>> = BTreeMap::new();
        for change in self.plan.steps().flat_map(|s| &s.changes) {
            disk.entry(&change.path)
                .or_insert_with(|| self.host.disk_digest(&change.path));
        }
        let mut states = TargetStates {
            steps: Vec::new(),
            known: true,
            new: false,
            changed: Vec::new(),
        };
        for step in self.plan.steps() {
            self.compare(step, &disk, direction, &mut states);
        }
        states
    }

    /// Compares the targets of one step.
    fn compare(
        &self,
        step: &Step,
        disk: &BTreeMap<&Path, Option<String>>,
        direction: Direction,
        states: &mut TargetStates,
    ) {
        let forward = Step {
            changes: step.changes.clone(),
            instances: Vec::new(),
            direction: Direction::Forward,
        };
        let is_on_disk = |step: &Step| {
            step.changes
                .iter()
                .all(|c| disk.get(&*c.path).and_then(Option::as_ref) == Some(&c.to.sha256))
        };
        let back = forward.flip();
        let is_new = is_on_disk(&forward);
        let is_old = back.as_ref().is_some_and(is_on_disk);
        // A file that had the new content before the run, and for which no instance was signalled,
        // stays as it was.
        let must_go_back = direction.is_back() && self.must_roll_back(step);
        // With the old content on disk, an instance that is proven on the new config would now read
        // another file.
        let proven = step.instances.iter().any(|m| {
            matches!(
                m.instance.outcome,
                Outcome::Confirmed | Outcome::Unconfirmed
            )
        });
        let good = if must_go_back {
            is_old
        } else {
            is_new || (is_old && !proven)
        };
        states.known &= good;
        states
            .changed
            .push(!if must_go_back { is_old } else { is_new });
        states.new |= is_new && !is_old && step.is_work() && self.was_touched(step);
        let goes_back = if good {
            is_old && (must_go_back || !is_new)
        } else {
            must_go_back
        };
        let step = back.filter(|_| goes_back).unwrap_or(forward);
        states.steps.push(step);
    }

    /// Fails instances whose proof shows the end of a reload and not its bytes, where the targets
    /// of their step are not what this run left there. `changed` has one entry per step.
    fn fail_unproven_by_content(&mut self, changed: &[bool], direction: Direction) {
        let (claim, end) = if direction.is_back() {
            (Outcome::Reverted, Outcome::RevertFailed)
        } else {
            (Outcome::Confirmed, Outcome::TimedOut)
        };
        let shows_reload = |m: &&mut PlannedInstance| {
            m.instance.outcome == claim
                && matches!(m.instance.proof, Some(Proof::Reloaded | Proof::Workers))
        };
        let members = self
            .plan
            .waves
            .iter_mut()
            .flat_map(|w| &mut w.steps)
            .zip(changed)
            .filter(|(_, changed)| **changed)
            .flat_map(|(step, _)| &mut step.instances)
            .filter(shows_reload);
        for member in members {
            let text = "its config was changed by another program, and it may have read that";
            self.log.emit(&mark_lost(
                member,
                Failure {
                    kind: end.into(),
                    text: text.into(),
                },
            ));
        }
    }
}

/// The targets at the end of a run.
struct TargetStates {
    /// Each step in the direction of the content on disk.
    steps: Vec<Step>,
    /// True where each target is what the outcomes of its instances say.
    known: bool,
    /// True where the new config is on disk and no instance is proven on it.
    new: bool,
    /// For each step, true where a target is not what the run left there.
    changed: Vec<bool>,
}
