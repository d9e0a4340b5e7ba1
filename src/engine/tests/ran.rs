//! How a run ended, and the claims that hold for every run.

use crate::event::Direction;
use std::collections::BTreeSet;

use super::*;

/// How a run ended, and all of its events.
#[derive(Debug)]
pub(super) struct Ran {
    pub(super) case: Case,
    pub(super) plan: Plan,
    pub(super) script: ScriptHost,
    pub(super) events: Vec<Event>,
    pub(super) verdict: Result<Verdict, Verdict>,
    /// The operator had sent two interrupts when the run stopped.
    pub(super) left: bool,
}

impl Ran {
    pub(super) fn outcomes(&self) -> Vec<Outcome> {
        self.plan.instances().map(|i| i.outcome).collect()
    }

    pub(super) fn has_on_disk(&self, path: &PathBuf, content: &Content) -> bool {
        self.script.files[path] == content.sha256
    }

    pub(super) fn has_event(&self, is: impl Fn(&Event) -> bool) -> bool {
        self.events.iter().any(is)
    }

    fn runs(&self, instance: &Instance, content: &Content) -> bool {
        self.script.runs.get(&instance.pid) == Some(&content.sha256)
    }

    fn all_files_are(&self, content: &Content) -> bool {
        self.case
            .pids()
            .all(|pid| self.has_on_disk(&self.case.path(pid), content))
    }

    /// Asserts what holds for every run, however it ended.
    pub(super) fn hold(self, context: impl Fn() -> String) -> Self {
        let context = format!(
            "{}\n{:?}\n{:?}: {:?}\nfiles {:?}\nruns {:?}",
            context(),
            self.case,
            self.verdict,
            self.outcomes(),
            self.script.files,
            self.script.runs
        );
        let mut files = self.script.files.values();
        assert!(
            files.all(|f| *f == OLD.sha256 || *f == NEW.sha256),
            "a file is neither the old nor the new one: {context}"
        );
        self.assert_outcomes_are_true(&context);
        self.assert_signals_are_intended(&context);
        if self.verdict.is_err() {
            self.assert_untouched(&context);
            return self;
        }
        assert_eq!(self.verdict, Ok(self.expected_verdict()), "{context}");
        if self.verdict == Ok(Verdict::Reverted) {
            assert!(
                self.all_files_are(&OLD),
                "a file was not rolled back: {context}"
            );
            assert!(
                self.plan.instances().all(|i| self.runs(i, &OLD)),
                "an instance does not run the old config: {context}"
            );
        }
        self.assert_no_file_without_an_instance(&context);
        if self.case.now {
            self.assert_no_rollback(&context);
        }
        self
    }

    fn assert_outcomes_are_true(&self, context: &str) {
        for i in self.plan.instances() {
            let agrees = match i.outcome {
                Outcome::Confirmed | Outcome::Unconfirmed => self.runs(i, &NEW),
                Outcome::Reverted | Outcome::Untouched | Outcome::Refused | Outcome::Rejected => {
                    self.runs(i, &OLD)
                }
                Outcome::Unchanged | Outcome::TimedOut | Outcome::Died | Outcome::RevertFailed => {
                    true
                }
            };
            assert!(
                agrees,
                "pid {} does not run what its outcome says: {context}",
                i.pid
            );
        }
    }

    fn assert_untouched(&self, context: &str) {
        let before = if self.case.has_old_bytes {
            &*OLD
        } else {
            &*NEW
        };
        assert!(
            self.script.signals.is_empty(),
            "a signal was sent: {context}"
        );
        assert!(self.all_files_are(before), "a file was replaced: {context}");
    }

    /// A new file stays only where an instance runs it, unless it could not be rolled back.
    fn assert_no_file_without_an_instance(&self, context: &str) {
        let has_reader = |path: &PathBuf| {
            let mut readers = self.plan.instances().filter(|i| i.targets[0] == *path);
            !readers.all(|i| {
                matches!(
                    i.outcome,
                    Outcome::Untouched | Outcome::Refused | Outcome::Reverted | Outcome::Rejected
                )
            })
        };
        let can_roll_back =
            !self.case.now && self.case.has_old_bytes && !self.left && self.script.stuck.is_empty();
        if !can_roll_back {
            return;
        }
        for path in self.case.pids().map(|pid| self.case.path(pid)) {
            assert!(
                !self.has_on_disk(&path, &NEW) || has_reader(&path),
                "a file stays that no instance runs: {context}"
            );
        }
    }

    fn assert_no_rollback(&self, context: &str) {
        assert!(
            self.script
                .signals
                .iter()
                .all(|(_, direction)| !direction.is_back()),
            "{context}"
        );
        assert!(
            !self.has_event(|e| matches!(
                e,
                Event::Intent {
                    direction: Direction::Back,
                    ..
                }
            )),
            "{context}"
        );
    }

    /// Asserts that each signal was intended, and that none was sent forward after the run had
    /// stopped.
    fn assert_signals_are_intended(&self, context: &str) {
        let mut intended = BTreeSet::new();
        let mut failed = BTreeSet::new();
        let mut over = false;
        for event in &self.events {
            match event {
                Event::Intent {
                    direction, pids, ..
                } => {
                    assert!(
                        direction.is_back() || pids.is_empty() || !over,
                        "signals after the end: {context}"
                    );
                    intended.extend(pids.iter().map(|(pid, _)| (*pid, *direction)));
                }
                Event::Instance { pid, outcome, .. } if BAD.contains(outcome) => {
                    failed.insert(*pid);
                }
                Event::RollbackBegan { .. } | Event::Stopped { .. } => over = true,
                Event::Gate { exit, .. } => {
                    over |= *exit != Some(0) && self.case.then != OnFailure::Continue;
                }
                _ => {}
            }
            let ends =
                self.case.now || !self.case.has_old_bytes || self.case.then != OnFailure::Continue;
            over |= failed.len() > self.case.limit() && ends;
        }
        let mut signals = self.script.signals.iter();
        assert!(
            signals.all(|signal| intended.contains(signal)),
            "a signal without an intent: {context}"
        );
    }

    /// The table of exit codes.
    fn expected_verdict(&self) -> Verdict {
        let undone = self.has_event(|e| matches!(e, Event::RollbackBegan { .. }));
        let stopped = self.has_event(|e| matches!(e, Event::Stopped { .. }));
        let gate_failed =
            self.has_event(|e| matches!(e, Event::Gate { exit, .. } if *exit != Some(0)));
        let outcomes = self.outcomes();
        let all = |of: &[Outcome]| outcomes.iter().all(|o| of.contains(o));
        let reads_another = |i: &Instance| {
            matches!(i.outcome, Outcome::Confirmed | Outcome::Unconfirmed)
                && !self.has_on_disk(&i.targets[0], &NEW)
        };
        let unproven = outcomes
            .iter()
            .any(|o| matches!(o, Outcome::TimedOut | Outcome::Died | Outcome::RevertFailed));
        let new = [Outcome::Confirmed, Outcome::Unconfirmed];
        let old = [Outcome::Reverted, Outcome::Untouched, Outcome::Refused];
        let is_old = all(&old) && self.all_files_are(&OLD);
        match () {
            () if unproven || self.left || self.plan.instances().any(reads_another) => {
                Verdict::Mixed
            }
            () if stopped && !self.case.has_old_bytes => Verdict::Mixed,
            () if undone && !is_old => Verdict::Mixed,
            () if undone => Verdict::Reverted,
            () if all(&new) && (stopped || gate_failed) => Verdict::Partial,
            () if all(&new) => Verdict::Converged,
            () if is_old => Verdict::Reverted,
            () => Verdict::Partial,
        }
    }
}
