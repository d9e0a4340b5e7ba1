//! The end of a run: the last checks, and their verdict.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use super::{Engine, log::EventStore};
use crate::{
    event::{Direction, Event, Failure, Outcome, Proof, Verdict},
    host::local::check::{Recheck, mark_lost},
    step::{PlannedInstance, Step},
};

/// The age up to which a proof counts as one of the end of the run.
const MAX_AGE: Duration = Duration::from_secs(1);
/// Added to that age for every instance: the proofs of ten thousand instances cannot all be of the
/// same second.
const MAX_AGE_PER_INSTANCE: Duration = Duration::from_millis(1);

impl<J: EventStore, R: FnMut(&Event)> Engine<'_, J, R> {
    /// Returns the moment before which a proof is too old for the verdict.
    pub(super) fn stale_before(&self) -> Instant {
        let count = u32::try_from(self.plan.instances().count()).unwrap_or(u32::MAX);
        let age = MAX_AGE + MAX_AGE_PER_INSTANCE * count;
        Instant::now()
            .checked_sub(age)
            .map_or(self.quiet_since, |moment| moment.max(self.quiet_since))
    }

    /// Returns the verdict of what is there: the new processes, the outcomes, and the targets.
    /// Every target is read again, because a file that another program changed meanwhile proves
    /// nothing.
    pub(super) async fn final_verdict(&mut self, direction: Direction) -> Verdict {
        self.fail_pending();
        let mut complete = self.find_newcomers(direction).await;
        // The verdict covers the instances and then the files, so these are read last.
        complete &= self.final_check().await;
        let states = self.targets_on_disk(direction);
        self.fail_unproven_by_content(&states.changed, direction);
        let verdict = match Verdict::of(self.plan.ends(), direction.is_back()) {
            _ if !states.known || !complete => Verdict::Mixed,
            // No instance runs the new config, but it is on disk: the next process that starts
            // would load it.
            Verdict::Reverted if !direction.is_back() && states.new => Verdict::Partial,
            verdict => verdict,
        };
        self.refuse_unsignalled();
        verdict
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
    /// was touched that could be rolled back. Returns false if the host could not look.
    async fn find_newcomers(&mut self, direction: Direction) -> bool {
        let steps = self.targets_on_disk(direction).steps;
        let steps: Vec<&Step> = steps.iter().collect();
        let log = &mut self.log;
        let newcomers = self
            .host
            .newcomers(&steps, direction, self.interrupts, &mut |event| {
                log.emit(event);
            })
            .await;
        match newcomers {
            Ok(newcomers) => {
                self.plan.newcomers = newcomers;
                true
            }
            Err(why) => {
                self.stop(why.to_string());
                false
            }
        }
    }

    /// Checks every instance whose outcome says that it lives. Returns true if each stale proof was
    /// probed again. A second interrupt ends the probes, but never before each process was looked
    /// at.
    pub(super) async fn final_check(&mut self) -> bool {
        // Nothing is touched after this event: the verdict stands whether or not the journal takes
        // it.
        self.log.emit(Event::FinalCheck);
        let recheck = Recheck::AtTheEnd(self.stale_before());
        let last = self.plan.waves.len() - 1;
        self.recheck_steps(last, recheck, 1, |_| true).await
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
            self.log.emit(Event::of(&member.instance));
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
            self.log.emit(mark_lost(
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
