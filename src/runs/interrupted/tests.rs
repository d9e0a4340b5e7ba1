#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::event::{Direction, Outcome};
use crate::runs::{Verb, boot_id, marked_runs, new_id};

fn write_run(state: &Path, verb: &str, of: Option<&str>, events: &[Value]) -> String {
    let id = new_id();
    write_run_as(state, &id, verb, of, events);
    id
}

fn write_run_as(state: &Path, id: &str, verb: &str, of: Option<&str>, events: &[Value]) {
    let operator = json!({"uid": 0, "login_uid": null, "sudo_user": null, "ci_job": null});
    let target = json!({"path": "/a", "kind": "file", "from": "1", "to": "2", "disk": null});
    let instance = |pid: i32| {
        let instance = crate::event::Instance {
            targets: vec!["/a".into()],
            ..crate::event::Instance::new("g", pid, 5)
        };
        serde_json::to_value(instance).unwrap()
    };
    let mut plan = json!({
        "v": 2, "verb": verb, "of": of, "boot_id": boot_id(), "reason": null, "command": [],
        "groups": [], "targets": [target], "instances": [instance(1), instance(2)],
        "readings": [{"pid": 1, "started": 5, "answers": ["x", null]}],
    });
    let keys = operator.as_object().unwrap().clone();
    plan.as_object_mut().unwrap().extend(keys);
    let began = json!({
        "event": "began", "verb": verb, "of": of, "operator": operator, "boot_id": boot_id(),
        "command": [], "reason": null, "groups": [], "instances": 2, "targets": 1, "waves": 1,
    });
    let dir = state.join("runs").join(id);
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join("plan.json"), plan.to_string()).unwrap();
    let lines: String = std::iter::once(&began).chain(events).map(line).collect();
    std::fs::write(dir.join("events.jsonl"), lines).unwrap();
}

fn line(event: &Value) -> String {
    let mut event = event.clone();
    event["v"] = 2.into();
    event["at"] = "2026-01-01T00:00:00Z".into();
    format!("{event}\n")
}

fn intent(direction: Direction, pids: &[i32]) -> Value {
    let pids: Vec<_> = pids.iter().map(|pid| (pid, 5)).collect();
    json!({"event": "intent", "direction": direction, "wave": 1, "targets": [], "pids": pids})
}

fn instance(pid: i32, outcome: &str, successor_of: Option<i32>) -> Value {
    json!({
        "event": "instance", "group": "g", "pid": pid, "started": 5, "endpoint": null,
        "moved_from": null, "successor_of": successor_of, "outcome": outcome, "proof": null,
        "draining": [], "failure": null, "took_us": null,
    })
}

fn find(state: &Path, id: &str) -> InterruptedRun {
    InterruptedRun::find(state, Some(id)).unwrap()
}

fn touched(events: &[Value]) -> BTreeMap<(i32, u64), SignalRecord> {
    let dir = tempfile::tempdir().unwrap();
    let id = write_run(dir.path(), "broadcast", None, events);
    find(dir.path(), &id).touched
}

fn record(forth: bool, back: bool, state: Option<Outcome>) -> SignalRecord {
    SignalRecord {
        forward: forth,
        back,
        outcome: state,
    }
}

#[test]
fn an_instance_of_an_intent_may_have_been_signalled_until_its_outcome_is_known() {
    assert!(touched(&[]).is_empty());
    let touched = touched(&[
        intent(Direction::Forward, &[1, 2]),
        instance(1, "confirmed", None),
    ]);
    let confirmed = Some(Outcome::Confirmed);
    assert_eq!(touched[&(1, 5)], record(true, false, confirmed));
    assert_eq!(touched[&(2, 5)], record(true, false, None));
}

#[test]
fn a_rollback_is_recorded_for_an_instance_and_its_successor() {
    let touched = touched(&[
        intent(Direction::Forward, &[1, 2]),
        instance(1, "confirmed", None),
        intent(Direction::Back, &[1, 2]),
        instance(3, "reverted", Some(1)),
        instance(4, "confirmed", None),
    ]);
    assert_eq!(touched[&(1, 5)], record(true, true, None));
    let reverted = Some(Outcome::Reverted);
    assert_eq!(touched[&(3, 5)], record(true, true, reverted));
    assert!(!touched.contains_key(&(4, 5)), "a newcomer got no signal");
}

#[test]
fn a_torn_line_is_ignored_also_before_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let events = [
        intent(Direction::Forward, &[1, 2]),
        instance(1, "confirmed", None),
    ];
    let id = write_run(dir.path(), "broadcast", None, &events);
    let whole = find(dir.path(), &id).touched;
    let journal = dir.path().join("runs").join(&id).join("events.jsonl");
    let torn = std::fs::read_to_string(&journal).unwrap() + "{\"event\":\"instance\",\"pid\":2";
    std::fs::write(&journal, &torn).unwrap();
    assert_eq!(find(dir.path(), &id).touched, whole);
    let end = line(&json!({"event": "superseded_by", "run": "7"}));
    std::fs::write(&journal, torn + "\n" + &end).unwrap();
    let run = find(dir.path(), &id);
    assert_eq!(run.superseded_by(), Some("7"));
    assert_eq!(run.touched, whole);
}

#[test]
fn readings_and_targets_are_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let run = find(dir.path(), &write_run(dir.path(), "broadcast", None, &[]));
    assert_eq!(run.readings[&(1, 5)], [Some("x".to_owned()), None]);
    assert_eq!(run.targets[0].path, Path::new("/a"));
    assert_eq!(run.instances[1].pid, 2);
}

#[test]
fn signals_of_an_earlier_run_are_known_to_the_runs_that_continue_it() {
    let dir = tempfile::tempdir().unwrap();
    let first = write_run(
        dir.path(),
        "broadcast",
        None,
        &[intent(Direction::Forward, &[1])],
    );
    let second = write_run(dir.path(), "revert", Some(&first), &[]);
    let third = write_run(dir.path(), "resume", Some(&second), &[]);
    let runs = [&first, &second, &third].map(|id| find(dir.path(), id));
    let forward = record(true, false, None);
    let back = record(false, true, None);
    assert_eq!(
        runs.each_ref().map(|run| run.touched[&(1, 5)]),
        [forward, back, back]
    );
    assert_eq!(runs.each_ref().map(|run| run.back), [false, true, true]);
    let find_any = |prefix| InterruptedRun::find(dir.path(), prefix);
    assert!(matches!(find_any(Some("0")), Err(RunError::Ambiguous(_, ids)) if ids.len() == 3));
    assert!(matches!(find_any(Some("x")), Err(RunError::Unknown(..))));
    assert!(matches!(find_any(None), Err(RunError::NoneOpen(_))));
    // A run that continues itself ends the chain.
    write_run_as(dir.path(), &third, "resume", Some(&third), &[]);
    let records = find(dir.path(), &third).touched;
    assert!(records.values().all(|record| record.outcome.is_none()));
    std::fs::remove_dir_all(dir.path().join("runs").join(first)).unwrap();
    assert_eq!(
        find(dir.path(), &second).touched.len(),
        2,
        "the removed run may have touched every instance"
    );
}

#[test]
fn an_open_run_of_version_1_is_listed_and_names_its_old_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let id = new_id();
    let folder = dir.path().join("runs").join(&id);
    std::fs::create_dir_all(&folder).unwrap();
    let plan = json!({
        "v": 1, "verb": "broadcast", "of": null, "boot_id": boot_id(), "groups": [],
        "targets": [{"path": "/a", "form": "file", "from": "1", "to": "2"}],
        "instances": [{"group": "g", "pid": 1, "started": 5, "targets": ["/a"]}],
    });
    let began = json!({
        "event": "began", "verb": "broadcast", "of": null, "boot_id": "x",
        "command": [], "reason": null, "groups": ["g"], "instances": 1, "targets": 1, "waves": 1,
        "v": 1, "at": "2026-01-01T00:00:00Z",
    });
    std::fs::write(folder.join("plan.json"), plan.to_string()).unwrap();
    std::fs::write(folder.join("events.jsonl"), format!("{began}\n")).unwrap();
    std::fs::write(folder.join("1"), "old").unwrap();
    std::fs::create_dir(dir.path().join("open")).unwrap();
    let mark = dir.path().join("open").join(&id);
    std::fs::write(mark, json!({"targets": ["/a"]}).to_string()).unwrap();
    let open = marked_runs(dir.path());
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].id, id);
    assert_eq!(open[0].verdict(), "open");
    assert!(open[0].next("").is_empty());
    let old = open[0].old_version("").unwrap();
    assert!(old.note.contains("earlier version"), "{}", old.note);
    assert_eq!(old.command, format!("hello revert {id}"));
    let error = InterruptedRun::find(dir.path(), Some(&id)).unwrap_err();
    assert!(matches!(error, RunError::OldVersion { .. }), "{error}");
    let text = error.to_string();
    let old = format!("`/a` in `{}`", folder.join("1").display());
    assert!(text.contains(&old), "{text}");
    assert_eq!(
        open[0].began.as_ref().map(|began| began.verb),
        Some(Verb::Broadcast)
    );
    // It may have signalled each of its instances.
    let proofs = crate::runs::ProofCache::load(dir.path());
    assert!(!proofs.is_open(1, 5));
    let proofs = proofs.with_open_runs(dir.path());
    assert!(proofs.is_open(1, 5));
    assert!(!proofs.is_open(2, 5));
}
