//! A host that answers what a test has written down, and remembers what every process runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Instant,
};

use crate::{
    event::{Abort, Event, Failure, INTERRUPTED, Interrupts, Outcome, Verdict},
    host::{exec::gate, local::check::Recheck},
    step::{PlannedInstance, Step},
};

/// Files by digest, and what becomes of an instance forth and back.
#[derive(Debug, Default)]
pub struct ScriptHost {
    /// Digest of every file.
    pub files: BTreeMap<PathBuf, String>,
    /// Files that were exchanged.
    pub installed: BTreeSet<PathBuf>,
    /// Files that cannot be installed: forth, back.
    pub stuck: BTreeMap<PathBuf, (bool, bool)>,
    /// Files that cannot be installed forth a second time.
    pub once: BTreeSet<PathBuf>,
    /// What becomes of a pid: forth, back. Those that are not here do what is wanted.
    pub ends: BTreeMap<i32, (Outcome, Outcome)>,
    /// What becomes of a pid in the so manieth look again; those that are not here prove what they
    /// did.
    pub checks: BTreeMap<(usize, i32), Outcome>,
    /// So many looks again there were.
    pub checked: usize,
    /// Exit codes of gates, or none, by wave and their first word; those that are not here say yes.
    pub gates: BTreeMap<(usize, String), Option<i32>>,
    /// Every signal, in order: pid, and whether it was on the way back.
    pub signals: Vec<(i32, bool)>,
    /// Digest of what each pid has loaded; those that are not here are gone.
    pub runs: BTreeMap<i32, String>,
}

impl ScriptHost {
    pub(crate) fn check(
        &mut self,
        steps: &mut [&mut Step],
        ask: Recheck,
        tell: &mut impl FnMut(Event),
    ) {
        let members = steps
            .iter_mut()
            .flat_map(|s| &mut s.instances)
            .filter(|m| m.instance.outcome == Outcome::Confirmed);
        let mut asked: Vec<&mut PlannedInstance> = members.filter(|m| ask.covers(m)).collect();
        // A look that asks none is no look.
        self.checked += usize::from(!asked.is_empty());
        for member in &mut asked {
            member.proven_at = Some(Instant::now());
            let pid = member.instance.pid;
            if let Some(bad) = self.checks.get(&(self.checked, pid)) {
                member.fail(
                    *bad,
                    Failure {
                        kind: (*bad).into(),
                        text: format!("{bad:?} when looked at again"),
                    },
                );
                if *bad == Outcome::Died {
                    self.runs.remove(&pid);
                }
                tell(Event::of(&member.instance));
            }
        }
    }

    pub(crate) fn gate(&self, argv: &[String], wave: usize) -> gate::GateOutcome {
        gate::GateOutcome {
            exit: self
                .gates
                .get(&(wave, argv.concat()))
                .copied()
                .unwrap_or(Some(0)),
            output: String::new(),
        }
    }

    pub(crate) fn commit(
        &mut self,
        steps: &mut [Step],
        halts: &Interrupts,
        tell: &mut impl FnMut(Event),
    ) -> Result<(), Abort> {
        let mut stuck = BTreeSet::new();
        for (step, shift) in steps
            .iter()
            .flat_map(|step| step.changes.iter().map(move |shift| (step, shift)))
        {
            let Some(from) = &shift.from else { continue };
            let is_stuck = self
                .stuck
                .get(&shift.path)
                .is_some_and(|(forth, back)| if step.undo { *back } else { *forth });
            let again = !step.undo
                && self.once.contains(&shift.path)
                && self.installed.contains(&shift.path);
            let now = self.files.get(&shift.path).cloned().unwrap_or_default();
            if now == shift.to.sha256 {
                continue;
            }
            if is_stuck || again || now != from.sha256 {
                if step.undo {
                    stuck.insert(shift.path.clone());
                    continue;
                }
                return Err(Abort::new(Verdict::Failed, "stuck"));
            }
            self.files
                .insert(shift.path.clone(), shift.to.sha256.clone());
            self.installed.insert(shift.path.clone());
            tell(Event::Installed {
                path: shift.path.clone(),
                sha256: shift.to.sha256.clone(),
            });
        }
        for Step {
            changes: shifts,
            instances: members,
            undo,
        } in steps
        {
            let is_stuck = shifts.iter().any(|s| stuck.contains(&s.path));
            for member in members
                .iter_mut()
                .filter(|m| m.instance.outcome != Outcome::Unchanged)
            {
                match (is_stuck, *halts.borrow() > u8::from(*undo)) {
                    (true, _) if member.instance.outcome == Outcome::Died => {}
                    (true, _) => fail(member, Outcome::RevertFailed, "stuck"),
                    // Perhaps signalled, and nobody has waited for the proof.
                    (false, true) => {
                        member.signalled = Some(jiff::Timestamp::now());
                        fail(
                            member,
                            if *undo {
                                Outcome::RevertFailed
                            } else {
                                Outcome::TimedOut
                            },
                            INTERRUPTED,
                        );
                    }
                    (false, false) => self.signal(member, *undo),
                }
                tell(Event::of(&member.instance));
            }
        }
        if stuck.is_empty() {
            Ok(())
        } else {
            Err(Abort::new(Verdict::Failed, "stuck"))
        }
    }

    fn signal(&mut self, member: &mut PlannedInstance, undo: bool) {
        let pid = member.instance.pid;
        let (forth, back) = self
            .ends
            .get(&pid)
            .copied()
            .unwrap_or((Outcome::Confirmed, Outcome::Reverted));
        let state = if undo { back } else { forth };
        if state != Outcome::Refused {
            self.signals.push((pid, undo));
            member.signalled = Some(jiff::Timestamp::now());
        }
        let file = member
            .instance
            .targets
            .first()
            .and_then(|path| self.files.get(path))
            .cloned()
            .unwrap_or_default();
        match state {
            // One that proves nothing may load it all the same.
            Outcome::Confirmed | Outcome::Unconfirmed | Outcome::Reverted | Outcome::TimedOut => {
                drop(self.runs.insert(pid, file))
            }
            Outcome::Died => drop(self.runs.remove(&pid)),
            _ => {}
        }
        match state {
            Outcome::Confirmed | Outcome::Unconfirmed | Outcome::Reverted => {
                (member.instance.outcome, member.proven_at) = (state, Some(Instant::now()));
            }
            bad => fail(member, bad, &format!("{bad:?}")),
        }
    }
}

fn fail(member: &mut PlannedInstance, state: Outcome, text: &str) {
    member.fail(
        state,
        Failure {
            kind: state.into(),
            text: text.into(),
        },
    );
}
