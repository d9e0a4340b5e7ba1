#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use serde_json::{Value, json};

use super::*;
use crate::runs::{boot_id, new_id};

/// Runs in a state directory of their own.
struct Runs(tempfile::TempDir);

impl Runs {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Adds a run that changed a file from `1` to `2`.
    fn add(&self, verb: &str, of: Option<&str>, verdict: &str) -> String {
        let ended = json!({
            "event": "finished", "verdict": verdict, "reason": "", "counts": {},
        });
        self.add_with(verb, of, &[ended], "2")
    }

    fn add_with(&self, verb: &str, of: Option<&str>, ends: &[Value], to: &str) -> String {
        let id = new_id();
        let target = json!({"path": "/a", "kind": "file", "from": "1", "to": to, "disk": null});
        let began = json!({
            "event": "began", "verb": verb, "of": of, "boot_id": boot_id(), "command": [],
            "reason": null, "groups": [], "instances": 1, "targets": 1, "waves": 1,
        });
        let dir = self.0.path().join("runs").join(&id);
        std::fs::create_dir_all(&dir).unwrap();
        let plan = json!({ "targets": [target] });
        std::fs::write(dir.join("plan.json"), plan.to_string()).unwrap();
        let lines = std::iter::once(&began).chain(ends).map(|event| {
            let mut event = event.clone();
            event["v"] = 2.into();
            event["at"] = "2026-01-01T00:00:00Z".into();
            format!("{event}\n")
        });
        std::fs::write(dir.join("events.jsonl"), lines.collect::<String>()).unwrap();
        id
    }

    fn supersede(&self, id: &str, later: &str) {
        let path = self.0.path().join("runs").join(id).join("events.jsonl");
        let line = json!({
            "event": "superseded_by", "run": later, "v": 2, "at": "2026-01-01T00:00:00Z",
        });
        let journal = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, format!("{journal}{line}\n")).unwrap();
    }

    fn last(&self) -> Option<String> {
        last_change(self.0.path()).unwrap().map(|last| last.run.id)
    }
}

#[test]
fn the_newest_run_that_changed_a_config_is_the_last() {
    let runs = Runs::new();
    assert_eq!(runs.last(), None);
    let first = runs.add("broadcast", None, "converged");
    assert_eq!(runs.last(), Some(first));
    let second = runs.add("broadcast", None, "partial");
    assert_eq!(runs.last(), Some(second));
    let third = runs.add("broadcast", None, "unproven");
    assert_eq!(runs.last(), Some(third));
}

#[test]
fn a_run_that_left_the_old_config_is_not_the_last() {
    let runs = Runs::new();
    let first = runs.add("broadcast", None, "converged");
    for verdict in ["reverted", "failed", "refused", "busy"] {
        runs.add("broadcast", None, verdict);
    }
    let ended = json!({
        "event": "finished", "verdict": "converged", "reason": "", "counts": {},
    });
    runs.add_with("broadcast", None, &[ended], "1");
    runs.add_with("broadcast", None, &[], "2");
    assert_eq!(runs.last(), Some(first));
}

#[test]
fn each_revert_goes_one_run_further_back() {
    let runs = Runs::new();
    let first = runs.add("broadcast", None, "converged");
    let second = runs.add("broadcast", None, "converged");
    runs.add("revert", Some(&second), "converged");
    assert_eq!(runs.last(), Some(first.clone()));
    runs.add("revert", Some(&first), "unproven");
    assert_eq!(runs.last(), None);
}

#[test]
fn a_run_whose_revert_was_reverted_is_the_last_again() {
    let runs = Runs::new();
    let first = runs.add("broadcast", None, "converged");
    let back = runs.add("revert", Some(&first), "converged");
    runs.add("revert", Some(&back), "converged");
    assert_eq!(runs.last(), Some(first));
}

#[test]
fn a_run_that_was_not_reverted_everywhere_is_still_the_last() {
    let runs = Runs::new();
    let first = runs.add("broadcast", None, "mixed");
    let back = runs.add("revert", Some(&first), "partial");
    runs.supersede(&first, &back);
    assert_eq!(runs.last(), Some(first));
}

#[test]
fn a_run_that_a_later_one_resumed_counts_as_that_one() {
    let runs = Runs::new();
    let oldest = runs.add("broadcast", None, "converged");
    let first = runs.add("broadcast", None, "mixed");
    let second = runs.add("resume", Some(&first), "converged");
    runs.supersede(&first, &second);
    assert_eq!(runs.last(), Some(second.clone()));
    runs.add("revert", Some(&second), "converged");
    assert_eq!(runs.last(), Some(oldest));
}

#[test]
fn a_revert_that_was_finished_by_a_resume_reverts() {
    let runs = Runs::new();
    let oldest = runs.add("broadcast", None, "converged");
    let first = runs.add("broadcast", None, "converged");
    let back = runs.add("revert", Some(&first), "mixed");
    let rest = runs.add("resume", Some(&back), "converged");
    runs.supersede(&back, &rest);
    assert_eq!(runs.last(), Some(oldest));
}

#[test]
fn a_run_whose_place_another_change_took_is_found_below_it() {
    let runs = Runs::new();
    let first = runs.add("broadcast", None, "mixed");
    let second = runs.add("broadcast", None, "converged");
    runs.supersede(&first, &second);
    assert_eq!(runs.last(), Some(second.clone()));
    runs.add("revert", Some(&second), "converged");
    assert_eq!(runs.last(), Some(first));
}
