//! The end of a run: what is looked at last, and the verdict of that.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use super::Engine;
use crate::{
    event::{Event, Failure, Outcome, Proof, Verdict},
    host::local::check::{Recheck, mark_lost},
    step::{PlannedInstance, Step},
};

/// Up to this age, a proof counts as one of the end of the run, and more with every instance: the
/// proofs of ten thousand cannot all be of the same second.
const AGE: Duration = Duration::from_secs(1);
const EACH: Duration = Duration::from_millis(1);

impl<T: FnMut(Event) -> bool> Engine<'_, T> {
    /// The moment before which a proof is too old for the verdict.
    pub(super) fn stale_before(&self) -> Instant {
        let age = AGE + EACH * u32::try_from(self.plan.instances().count()).unwrap_or(u32::MAX);
        Instant::now()
            .checked_sub(age)
            .map_or(self.quiet_since, |moment| moment.max(self.quiet_since))
    }

    /// The verdict of what is there: the processes that came meanwhile, the states, and every
    /// target read back once more, because a file that another program changed meanwhile proves
    /// nothing.
    pub(super) async fn final_verdict(&mut self, undone: bool) -> Verdict {
        for member in self
            .plan
            .waves
            .iter_mut()
            .flat_map(|w| &mut w.steps)
            .flat_map(|s| &mut s.instances)
        {
            if member.may_run_new && member.instance.outcome == Outcome::Untouched {
                let text =
                    "an earlier run may have signalled it, and this one ended before its turn"
                        .into();
                member.fail(
                    Outcome::TimedOut,
                    Failure {
                        kind: Outcome::TimedOut.into(),
                        text,
                    },
                );
            }
        }
        let stands = self.targets_on_disk(undone).steps;
        // A newcomer that is unproven when the run ends is named; nothing of it was touched that
        // could be rolled back.
        let refs: Vec<&Step> = stands.iter().collect();
        let (tell, lost) = (&mut self.emit, &mut self.journal_failed);
        let newcomers = self
            .host
            .newcomers(&refs, undone, self.interrupts, &mut |event| {
                *lost |= !tell(event)
            })
            .await;
        let mut whole = true;
        match newcomers {
            Ok(newcomers) => self.plan.newcomers = newcomers,
            Err(why) => {
                whole = false;
                self.stop(why);
            }
        }
        // Last of all, everything that the verdict speaks of: the instances, then the files.
        whole &= self.final_check().await;
        let TargetStates {
            known, new, other, ..
        } = self.targets_on_disk(undone);
        self.lose_instances(&other, undone);
        let verdict = match Verdict::of(self.plan.ends(), undone) {
            _ if !known || !whole => Verdict::Mixed,
            // No instance runs it, but it is there: the next one that starts would.
            Verdict::Reverted if !undone && new => Verdict::Partial,
            verdict => verdict,
        };
        self.refuse();
        verdict
    }

    /// Looks at every instance whose outcome says that it lives. Returns whether each was asked
    /// whose proof is too old: a second interrupt ends the look, but never before each process was
    /// looked at.
    pub(super) async fn final_check(&mut self) -> bool {
        // Nothing is touched after it: the verdict stands, whether or not the journal takes this
        // line.
        (self.emit)(Event::FinalCheck);
        let ask = Recheck::AtTheEnd(self.stale_before());
        self.recheck_step(self.plan.waves.len() - 1, ask, 1, |_| true)
            .await
    }

    /// Says of every instance without a signal that it got none. That it is not on the new config
    /// counts in the verdict all the same.
    fn refuse(&mut self) {
        let members = self
            .plan
            .waves
            .iter_mut()
            .flat_map(|w| &mut w.steps)
            .flat_map(|s| &mut s.instances);
        let mut events = Vec::new();
        for member in members.filter(|m| m.failed_unsignalled()) {
            member.instance.outcome = Outcome::Refused;
            events.push(Event::of(&member.instance));
        }
        events.into_iter().for_each(|event| self.emit_event(event));
    }

    /// Holds what each target is now against what it should be.
    fn targets_on_disk(&self, undone: bool) -> TargetStates {
        let (mut stands, mut known, mut new, mut other) = (Vec::new(), true, false, Vec::new());
        let mut disk: BTreeMap<&Path, Option<String>> = BTreeMap::new();
        for shift in self.plan.steps().flat_map(|s| &s.changes) {
            disk.entry(&shift.path)
                .or_insert_with(|| self.host.disk_digest(&shift.path));
        }
        for step in self.plan.steps() {
            let forth = Step {
                changes: step.changes.clone(),
                instances: Vec::new(),
                undo: false,
            };
            let is = |step: &Step| {
                step.changes
                    .iter()
                    .all(|s| disk.get(&*s.path).and_then(Option::as_ref) == Some(&s.to.sha256))
            };
            let (is_new, back) = (is(&forth), forth.flip());
            let is_old = back.as_ref().is_some_and(is);
            // A file that was `to` before the run, and for which no instance was signalled, is as
            // it was.
            let undone = undone && self.goes_back(step);
            // An instance that is proven on the new config would read another file by now.
            let proven = step.instances.iter().any(|m| {
                matches!(
                    m.instance.outcome,
                    Outcome::Confirmed | Outcome::Unconfirmed
                )
            });
            let good = if undone {
                is_old
            } else {
                is_new || (is_old && !proven)
            };
            known &= good;
            other.push(!if undone { is_old } else { is_new });
            new |= is_new && !is_old && step.is_work() && self.was_touched(step);
            let goes_back = if good {
                is_old && (undone || !is_new)
            } else {
                undone
            };
            stands.push(back.filter(|_| goes_back).unwrap_or(forth));
        }
        TargetStates {
            steps: stands,
            known,
            new,
            other,
        }
    }

    /// Ends the claims of instances that have shown the end of a reload, and not of which bytes,
    /// where the targets of their step are `other` ones at the end.
    fn lose_instances(&mut self, other: &[bool], undone: bool) {
        let (claim, end) = if undone {
            (Outcome::Reverted, Outcome::RevertFailed)
        } else {
            (Outcome::Confirmed, Outcome::TimedOut)
        };
        let steps = self
            .plan
            .waves
            .iter_mut()
            .flat_map(|w| &mut w.steps)
            .zip(other)
            .filter(|(_, other)| **other);
        let shows_reload = |m: &&mut PlannedInstance| {
            m.instance.outcome == claim
                && matches!(m.instance.proof, Some(Proof::Reloaded | Proof::Workers))
        };
        let mut events = Vec::new();
        for member in steps
            .flat_map(|(step, _)| &mut step.instances)
            .filter(shows_reload)
        {
            let text =
                "its config was changed by another program, and it may have read that".into();
            events.push(mark_lost(
                member,
                Failure {
                    kind: end.into(),
                    text,
                },
            ));
        }
        events.into_iter().for_each(|event| self.emit_event(event));
    }
}

/// The targets at the end of a run.
struct TargetStates {
    /// Each step in the direction of what stands there.
    steps: Vec<Step>,
    /// True where each target is what its instances' outcomes say.
    known: bool,
    /// True where the new config stands and no instance is proven on it.
    new: bool,
    /// True for each step whose targets are other ones than the run has left there.
    other: Vec<bool>,
}
