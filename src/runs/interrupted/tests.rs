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
    assert!(proofs.is_open(1, 5, &[]));
    assert!(!proofs.is_open(2, 5, &[]));
}

/// Marks a run as open, and writes a proof of both its processes. Each was last signalled at
/// `over`.
fn leave_open(state: &Path, id: &str, over: &str) {
    let target = json!({"/a": {"sha256": "1", "ctime": 5, "behind": null}});
    let proven = json!({
        "boot_id": boot_id(),
        "instances": {"1:5": target, "2:5": target},
        "over": {"1:5": over, "2:5": over},
    });
    std::fs::write(state.join("proven.json"), proven.to_string()).unwrap();
    std::fs::create_dir(state.join("open")).unwrap();
    let mark = json!({"targets": ["/a"]}).to_string();
    std::fs::write(state.join("open").join(id), mark).unwrap();
}

/// A moment before the events of the runs here, and one after them.
const BEFORE: &str = "2025-01-01T00:00:00Z";
const AFTER: &str = "2026-02-01T00:00:00Z";

/// Returns the processes whose proof counts, and those with a pending reload, beside an open run
/// with these events.
fn believed(events: &[Value], over: &str) -> (Vec<i32>, Vec<i32>) {
    let dir = tempfile::tempdir().unwrap();
    let id = write_run(dir.path(), "broadcast", None, events);
    leave_open(dir.path(), &id, over);
    read(dir.path())
}

fn read(state: &Path) -> (Vec<i32>, Vec<i32>) {
    let proofs = crate::runs::ProofCache::load(state);
    let path = Path::new("/a");
    let is_believed = |pid: &i32| proofs.of(*pid, 5, path).is_some();
    let is_open = |pid: &i32| proofs.is_open(*pid, 5, &[path.to_owned()]);
    let pids = [1, 2];
    (
        pids.into_iter().filter(is_believed).collect(),
        pids.into_iter().filter(is_open).collect(),
    )
}

#[test]
fn proofs_count_beside_an_open_run_that_has_sent_no_signal() {
    assert_eq!(believed(&[], BEFORE), (vec![1, 2], vec![]));
    let refused = [
        intent(Direction::Forward, &[1, 2]),
        instance(1, "untouched", None),
        instance(2, "refused", None),
    ];
    assert_eq!(believed(&refused, BEFORE), (vec![1, 2], vec![]));
}

#[test]
fn a_proof_from_before_the_signal_of_an_open_run_does_not_count() {
    let intent = |direction| intent(direction, &[1]);
    assert_eq!(
        believed(&[intent(Direction::Forward)], BEFORE),
        (vec![2], vec![1])
    );
    let confirmed = [intent(Direction::Forward), instance(1, "confirmed", None)];
    assert_eq!(believed(&confirmed, BEFORE), (vec![2], vec![]));
    let back = [
        intent(Direction::Forward),
        instance(1, "confirmed", None),
        intent(Direction::Back),
    ];
    assert_eq!(believed(&back, BEFORE), (vec![2], vec![1]));
}

#[test]
fn a_proof_from_after_the_signal_of_an_open_run_counts() {
    let events = [intent(Direction::Forward, &[1])];
    assert_eq!(believed(&events, AFTER), (vec![1, 2], vec![]));
}

#[test]
fn a_line_that_no_run_writes_leaves_every_instance_of_the_run_in_doubt() {
    let dir = tempfile::tempdir().unwrap();
    let id = write_run(dir.path(), "broadcast", None, &[]);
    leave_open(dir.path(), &id, AFTER);
    let journal = dir.path().join("runs").join(&id).join("events.jsonl");
    let text = std::fs::read_to_string(&journal).unwrap();
    std::fs::write(&journal, format!("{text}\0\0\0\n")).unwrap();
    assert_eq!(read(dir.path()), (vec![], vec![1, 2]));
}

#[test]
fn an_open_run_that_cannot_be_read_leaves_the_readers_of_its_targets_in_doubt() {
    let dir = tempfile::tempdir().unwrap();
    let id = write_run(dir.path(), "broadcast", None, &[]);
    leave_open(dir.path(), &id, AFTER);
    let plan = dir.path().join("runs").join(&id).join("plan.json");
    std::fs::write(plan, "{").unwrap();
    assert_eq!(read(dir.path()), (vec![], vec![1, 2]));
    let proofs = crate::runs::ProofCache::load(dir.path());
    assert!(
        !proofs.is_open(1, 5, &["/b".into()]),
        "it reads another target"
    );
    let doubt = proofs.doubt(1, 5, &["/a".into()]).unwrap().text("");
    assert!(doubt.contains("cannot be read"), "{doubt}");
    assert!(
        doubt.contains(&format!("hello forget {id} --abandon")),
        "{doubt}"
    );
}

#[test]
fn marks_that_cannot_be_listed_leave_every_process_in_doubt() {
    let dir = tempfile::tempdir().unwrap();
    let id = write_run(dir.path(), "broadcast", None, &[]);
    leave_open(dir.path(), &id, AFTER);
    std::fs::remove_dir_all(dir.path().join("open")).unwrap();
    std::fs::write(dir.path().join("open"), "").unwrap();
    assert_eq!(read(dir.path()), (vec![], vec![1, 2]));
}

#[test]
fn a_run_that_ended_and_could_not_record_its_proofs_leaves_its_instances_in_doubt() {
    let finished = json!({
        "event": "finished", "verdict": "converged", "reason": "", "counts": {"confirmed": 1},
    });
    let events = [
        intent(Direction::Forward, &[1]),
        instance(1, "confirmed", None),
        finished,
    ];
    assert_eq!(believed(&events, BEFORE), (vec![2], vec![]));
}

#[test]
fn an_instance_that_a_later_run_did_not_signal_has_the_signal_of_the_earlier_run() {
    let dir = tempfile::tempdir().unwrap();
    let first = [intent(Direction::Forward, &[1])];
    let first = write_run(dir.path(), "broadcast", None, &first);
    let second = [
        intent(Direction::Forward, &[1]),
        instance(1, "untouched", None),
    ];
    let second = write_run(dir.path(), "resume", Some(&first), &second);
    let touched = find(dir.path(), &second).touched;
    assert_eq!(touched[&(1, 5)], record(true, false, None));
}

#[tokio::test]
async fn records_that_cannot_be_read_are_lost_until_a_later_signal_is_proven() {
    use crate::runs::{ProofCache, ProvenInstance, Reload};
    let dir = tempfile::tempdir().unwrap();
    let me = i32::try_from(std::process::id()).unwrap();
    let started = crate::kernel::Stat::of(me).unwrap().started;
    std::fs::write(dir.path().join("proven.json"), "{").unwrap();
    let is_open = || ProofCache::load(dir.path()).is_open(me, started, &[]);
    assert!(is_open());
    let keep = async |pid| {
        let own = new_id();
        let proof = ProvenInstance {
            pid,
            started,
            targets: BTreeMap::new(),
            reload: Reload::Over(jiff::Timestamp::now()),
        };
        let proofs = vec![proof];
        ProofCache::keep(dir.path(), &own, proofs, std::future::pending()).await
    };
    // A run over another process writes the file again.
    keep(1).await.unwrap();
    assert!(is_open());
    keep(me).await.unwrap();
    assert!(!is_open());
}
