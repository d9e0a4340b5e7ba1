//! The end of a run: what is looked at last, and the verdict of that.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use super::Engine;
use crate::{
    event::{Event, Proof, State, Trouble, Verdict},
    host::local::check::{Ask, lose},
    step::{Member, Step},
};

/// Up to this age, a proof counts as one of the end of the run, and more with every instance: the
/// proofs of ten thousand cannot all be of the same second.
const AGE: Duration = Duration::from_secs(1);
const EACH: Duration = Duration::from_millis(1);

impl<T: FnMut(Event) -> bool> Engine<'_, T> {
    /// The moment before which a proof is too old for the verdict.
    pub(super) fn old(&self) -> Instant {
        let age = AGE + EACH * u32::try_from(self.plan.instances().count()).unwrap_or(u32::MAX);
        Instant::now()
            .checked_sub(age)
            .map_or(self.settled, |moment| moment.max(self.settled))
    }

    /// The verdict of what is there: the processes that came meanwhile, the states, and every
    /// target read back once more, because a file that another program changed meanwhile proves
    /// nothing.
    pub(super) async fn seen(&mut self, undone: bool) -> Verdict {
        for member in self
            .plan
            .waves
            .iter_mut()
            .flat_map(|w| &mut w.steps)
            .flat_map(|s| &mut s.members)
        {
            if member.brought && member.instance.state == State::Untouched {
                let text =
                    "an earlier run may have signalled it, and this one ended before its turn"
                        .into();
                member.fail(
                    State::TimedOut,
                    Trouble {
                        kind: State::TimedOut.into(),
                        text,
                    },
                );
            }
        }
        let stands = self.stands(undone).steps;
        // A newcomer that is unproven when the run ends is named; nothing of it was touched that
        // could be rolled back.
        let refs: Vec<&Step> = stands.iter().collect();
        let (tell, lost) = (&mut self.tell, &mut self.lost);
        let newcomers = self
            .host
            .newcomers(&refs, undone, self.halts, &mut |event| {
                *lost |= !tell(event)
            })
            .await;
        let mut whole = true;
        match newcomers {
            Ok(newcomers) => self.plan.newcomers = newcomers,
            Err(why) => {
                whole = false;
                self.stopped(why);
            }
        }
        // Last of all, everything that the verdict speaks of: the instances, then the files.
        whole &= self.last_look().await;
        let Stands {
            known, new, other, ..
        } = self.stands(undone);
        self.lose(&other, undone);
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
    pub(super) async fn last_look(&mut self) -> bool {
        // Nothing is touched after it: the verdict stands, whether or not the journal takes this
        // line.
        (self.tell)(Event::LastLook);
        let ask = Ask::AtTheEnd(self.old());
        self.look(self.plan.waves.len() - 1, ask, 1, |_| true).await
    }

    /// Says of every instance without a signal that it got none. That it is not on the new config
    /// counts in the verdict all the same.
    fn refuse(&mut self) {
        let members = self
            .plan
            .waves
            .iter_mut()
            .flat_map(|w| &mut w.steps)
            .flat_map(|s| &mut s.members);
        let mut events = Vec::new();
        for member in members.filter(|m| m.is_unsignalled()) {
            member.instance.state = State::Refused;
            events.push(Event::of(&member.instance));
        }
        events.into_iter().for_each(|event| self.say(event));
    }

    /// Holds what each target is now against what it should be.
    fn stands(&self, undone: bool) -> Stands {
        let (mut stands, mut known, mut new, mut other) = (Vec::new(), true, false, Vec::new());
        let mut disk: BTreeMap<&Path, Option<String>> = BTreeMap::new();
        for shift in self.plan.steps().flat_map(|s| &s.shifts) {
            disk.entry(&shift.path)
                .or_insert_with(|| self.host.reads(&shift.path));
        }
        for step in self.plan.steps() {
            let forth = Step {
                shifts: step.shifts.clone(),
                members: Vec::new(),
                undo: false,
            };
            let is = |step: &Step| {
                step.shifts
                    .iter()
                    .all(|s| disk.get(&*s.path).and_then(Option::as_ref) == Some(&s.to.sha256))
            };
            let (is_new, back) = (is(&forth), forth.flip());
            let is_old = back.as_ref().is_some_and(is);
            // A file that was `to` before the run, and for which no instance was signalled, is as
            // it was.
            let undone = undone && self.counts(step);
            // An instance that is proven on the new config would read another file by now.
            let proven = step
                .members
                .iter()
                .any(|m| matches!(m.instance.state, State::Confirmed | State::Unconfirmed));
            let good = if undone {
                is_old
            } else {
                is_new || (is_old && !proven)
            };
            known &= good;
            other.push(!if undone { is_old } else { is_new });
            new |= is_new && !is_old && step.is_work() && self.has_begun(step);
            let goes_back = if good {
                is_old && (undone || !is_new)
            } else {
                undone
            };
            stands.push(back.filter(|_| goes_back).unwrap_or(forth));
        }
        Stands {
            steps: stands,
            known,
            new,
            other,
        }
    }

    /// Ends the claims of instances that have shown the end of a reload, and not of which bytes,
    /// where the targets of their step are `other` ones at the end.
    fn lose(&mut self, other: &[bool], undone: bool) {
        let (claim, end) = if undone {
            (State::Reverted, State::RevertFailed)
        } else {
            (State::Confirmed, State::TimedOut)
        };
        let steps = self
            .plan
            .waves
            .iter_mut()
            .flat_map(|w| &mut w.steps)
            .zip(other)
            .filter(|(_, other)| **other);
        let shows_reload = |m: &&mut Member| {
            m.instance.state == claim
                && matches!(m.instance.proof, Some(Proof::Reloaded | Proof::Workers))
        };
        let mut events = Vec::new();
        for member in steps
            .flat_map(|(step, _)| &mut step.members)
            .filter(shows_reload)
        {
            let text =
                "its config was changed by another program, and it may have read that".into();
            events.push(lose(
                member,
                Trouble {
                    kind: end.into(),
                    text,
                },
            ));
        }
        events.into_iter().for_each(|event| self.say(event));
    }
}

/// The targets at the end of a run.
struct Stands {
    /// Each step in the direction of what stands there.
    steps: Vec<Step>,
    /// True where each target is what its instances' outcomes say.
    known: bool,
    /// True where the new config stands and no instance is proven on it.
    new: bool,
    /// True for each step whose targets are other ones than the run has left there.
    other: Vec<bool>,
}
