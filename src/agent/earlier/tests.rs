#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use serde_json::{Value, json};

use super::*;

/// Writes the journal of a run, with these events after its first line.
fn add(state: &Path, id: &str, (verb, of): (&str, Option<&str>), events: &[Value]) {
    let began = json!({
        "event": "began", "verb": verb, "of": of, "boot_id": "", "command": [], "reason": null,
        "groups": [], "instances": 1, "targets": 1, "waves": 1,
        "part_of": { "coordinator": "laptop", "hosts": 3 },
    });
    let dir = state.join("runs").join(id);
    std::fs::create_dir_all(&dir).unwrap();
    let lines = std::iter::once(&began).chain(events).map(|event| {
        let mut event = event.clone();
        event["v"] = 2.into();
        event["at"] = "2026-01-01T00:00:00Z".into();
        format!("{event}\n")
    });
    std::fs::write(dir.join("events.jsonl"), lines.collect::<String>()).unwrap();
}

fn finished(outcome: &str) -> Value {
    json!({ "event": "finished", "verdict": "converged", "reason": "", "counts": { outcome: 1 } })
}

fn superseded(run: &str) -> Value {
    json!({ "event": "superseded_by", "run": run })
}

const FIRST: &str = "019ad11100007000a000000000000001";
const SECOND: &str = "019ad11122227000a000000000000002";

fn find(state: &Path, revert: bool) -> Result<Earlier, RefusedKind> {
    let of = ContinuedRun {
        run: FIRST.into(),
        revert,
        may_skip: false,
    };
    Earlier::find(state, &of).map_err(|refused| refused.kind)
}

#[test]
fn a_run_that_is_not_known_is_refused_in_both_directions() {
    let state = tempfile::tempdir().unwrap();
    for revert in [false, true] {
        let refused = find(state.path(), revert).unwrap_err();
        assert_eq!(refused, RefusedKind::NoRun);
    }
}

#[test]
fn a_run_that_has_reached_its_goal_is_looked_at_again() {
    let state = tempfile::tempdir().unwrap();
    add(
        state.path(),
        FIRST,
        ("broadcast", None),
        &[finished("confirmed")],
    );
    let earlier = find(state.path(), false).unwrap();
    assert!(earlier.is_over);
    assert_eq!(earlier.run, FIRST);
    assert_eq!(earlier.part_of.unwrap().hosts, 3);
}

#[test]
fn the_run_that_resumed_another_to_its_goal_takes_its_place() {
    let state = tempfile::tempdir().unwrap();
    add(
        state.path(),
        FIRST,
        ("broadcast", None),
        &[superseded(SECOND)],
    );
    add(
        state.path(),
        SECOND,
        ("resume", Some(FIRST)),
        &[finished("unchanged")],
    );
    let earlier = find(state.path(), false).unwrap();
    assert!(earlier.is_over);
    assert_eq!(earlier.run, SECOND);
}

#[test]
fn a_resume_after_another_end_is_refused() {
    for (verb, outcome) in [("revert", "confirmed"), ("resume", "reverted")] {
        let state = tempfile::tempdir().unwrap();
        add(
            state.path(),
            FIRST,
            ("broadcast", None),
            &[superseded(SECOND)],
        );
        add(
            state.path(),
            SECOND,
            (verb, Some(FIRST)),
            &[finished(outcome)],
        );
        let refused = find(state.path(), false).unwrap_err();
        assert_eq!(refused, RefusedKind::OtherEnd, "{verb} {outcome}");
        assert!(!find(state.path(), true).unwrap().is_over);
    }
}

#[test]
fn an_open_run_that_resumed_another_is_continued_in_its_place() {
    for end in [vec![], vec![superseded(SECOND)]] {
        let state = tempfile::tempdir().unwrap();
        add(state.path(), FIRST, ("broadcast", None), &end);
        add(state.path(), SECOND, ("resume", Some(FIRST)), &[]);
        std::fs::create_dir(state.path().join("open")).unwrap();
        std::fs::write(state.path().join("open").join(SECOND), "").unwrap();
        for revert in [false, true] {
            let earlier = find(state.path(), revert).unwrap();
            assert_eq!((earlier.run.as_str(), earlier.is_over), (SECOND, false));
        }
    }
}
