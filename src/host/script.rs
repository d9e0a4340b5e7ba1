//! A host that answers what a test has written down.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use crate::{
    event::{Event, State, Stop, Trouble, Verdict},
    host::gate,
    step::Step,
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
    /// What becomes of a pid: forth, back. Those that are not here do what is wanted.
    pub ends: BTreeMap<i32, (State, State)>,
    /// What becomes of a pid that is looked at again; those that are not here prove what they did.
    pub checks: BTreeMap<i32, State>,
    /// Exit codes of gates, by their first word; those that are not here say yes.
    pub gates: BTreeMap<String, i32>,
    /// Every signal, in order: pid, and whether it was on the way back.
    pub signals: Vec<(i32, bool)>,
}

impl ScriptHost {
    pub(super) fn check(&mut self, steps: &mut [&mut Step], tell: &mut impl FnMut(Event)) {
        for member in steps.iter_mut().flat_map(|s| &mut s.members).filter(|m| m.instance.state == State::Confirmed) {
            if let Some(bad) = self.checks.get(&member.instance.pid) {
                member.fail(*bad, Trouble { kind: (*bad).into(), text: format!("{bad:?} after the bake") });
                tell(Event::of(&member.instance));
            }
        }
    }

    pub(super) fn gate(&self, argv: &[String]) -> gate::Said {
        gate::Said { exit: Some(argv.first().and_then(|word| self.gates.get(word)).copied().unwrap_or(0)), output: String::new() }
    }

    pub(super) fn commit(&mut self, steps: &mut [Step], tell: &mut impl FnMut(Event)) -> Result<(), Stop> {
        for (step, shift) in steps.iter().flat_map(|step| step.shifts.iter().map(move |shift| (step, shift))) {
            let Some(from) = &shift.from else { continue };
            let stuck = self.stuck.get(&shift.path).is_some_and(|(forth, back)| if step.undo { *back } else { *forth });
            let now = self.files.get(&shift.path).cloned().unwrap_or_default();
            if stuck || (now != from.sha256 && now != shift.to.sha256) {
                return Err(Stop::new(Verdict::Failed, "stuck"));
            }
            if now == from.sha256 {
                self.files.insert(shift.path.clone(), shift.to.sha256.clone());
                self.installed.insert(shift.path.clone());
                tell(Event::Installed { path: shift.path.clone(), sha256: shift.to.sha256.clone() });
            }
        }
        for step in steps {
            for member in step.members.iter_mut().filter(|m| m.instance.state != State::Unchanged) {
                let pid = member.instance.pid;
                let (forth, back) = self.ends.get(&pid).copied().unwrap_or((State::Confirmed, State::Reverted));
                let state = if step.undo { back } else { forth };
                if state != State::Refused {
                    self.signals.push((pid, step.undo));
                }
                match state {
                    State::Confirmed | State::Unconfirmed | State::Reverted => member.instance.state = state,
                    bad => member.fail(bad, Trouble { kind: bad.into(), text: format!("{bad:?}") }),
                }
            }
        }
        Ok(())
    }
}
