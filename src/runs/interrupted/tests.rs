#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use super::*;

const PLAN: &str = r#"{"verb":"VERB","of":OF,"boot_id":"BOOT","groups":[],
    "targets":[{"path":"/a","form":"file","from":"1","to":"2"}],
    "instances":[{"group":"g","pid":1,"started":5,"targets":["/a"]},
        {"group":"g","pid":2,"started":5,"targets":["/a"]}]}"#;
const BEGAN: &str = "{\"event\":\"began\",\"verb\":\"broadcast\",\"of\":null,\
    \"who\":{\"uid\":0,\"login_uid\":null,\"sudo_user\":null,\"ci_job\":null},\
    \"boot_id\":\"x\",\"command\":[],\"reason\":null,\"groups\":[],\"instances\":2,\
    \"targets\":1,\"waves\":1}";

fn run(state: &Path, verb: &str, of: Option<&str>, events: &str) -> String {
    let id = super::super::new_id();
    again(state, &id, verb, of, events);
    id
}

fn again(state: &Path, id: &str, verb: &str, of: Option<&str>, events: &str) {
    let dir = state.join("runs").join(id);
    std::fs::create_dir_all(&dir).unwrap();
    let of = of.map_or("null".into(), |of| format!("\"{of}\""));
    std::fs::write(
        dir.join("plan.json"),
        PLAN.replace("VERB", verb)
            .replace("OF", &of)
            .replace("BOOT", &boot_id()),
    )
    .unwrap();
    std::fs::write(
        dir.join("events.jsonl"),
        BEGAN.replace('\n', " ") + "\n" + events,
    )
    .unwrap();
}

fn event(name: &str, rest: &str) -> String {
    format!("{{\"event\":\"{name}\"{rest},\"v\":1,\"at\":\"2026-01-01T00:00:00Z\"}}\n")
}

#[test]
fn who_is_in_an_intent_is_perhaps_touched_until_something_is_known_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let intent = |undo: bool| {
        event(
            "intent",
            &format!(",\"undo\":{undo},\"wave\":1,\"targets\":[],\"pids\":[[1,5],[2,5]]"),
        )
    };
    let instance = |pid: i32, state: &str, of: &str| {
        event(
            "instance",
            &format!(",\"pid\":{pid},\"started\":5,\"state\":\"{state}\",\"successor_of\":{of}"),
        )
    };
    let touched = |events: &str| {
        InterruptedRun::find(
            dir.path(),
            Some(&run(dir.path(), "broadcast", None, events)),
        )
        .unwrap()
        .touched
    };
    let touch = |forth, back, state| SignalRecord { forth, back, state };
    assert!(touched("").is_empty());
    let began = intent(false) + &instance(1, "confirmed", "null");
    let forth = touched(&began);
    assert_eq!(
        (forth[&(1, 5)], forth[&(2, 5)]),
        (
            touch(true, false, Some(Outcome::Confirmed)),
            touch(true, false, None)
        )
    );
    let torn = began.clone() + "{\"event\":\"instance\",\"pid\":2,\"sta";
    assert_eq!(touched(&torn), forth, "a torn last line says nothing");
    let id = run(
        dir.path(),
        "broadcast",
        None,
        &(torn + "\n" + &event("superseded_by", ",\"run\":\"7\"")),
    );
    let left = InterruptedRun::find(dir.path(), Some(&id)).unwrap();
    assert_eq!((left.superseded_by(), &left.touched), (Some("7"), &forth));
    let back = touched(
        &(began
            + &intent(true)
            + &instance(3, "reverted", "1")
            + &instance(4, "confirmed", "null")),
    );
    assert_eq!(
        (back[&(1, 5)], back[&(3, 5)]),
        (
            touch(true, true, None),
            touch(true, true, Some(Outcome::Reverted))
        )
    );
    assert!(
        !back.contains_key(&(4, 5)),
        "who came meanwhile got no signal"
    );
}

#[test]
fn what_an_earlier_run_touched_is_known_to_those_that_go_on_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let find = |name: &str| InterruptedRun::find(dir.path(), Some(name));
    let first = run(
        dir.path(),
        "broadcast",
        None,
        &event(
            "intent",
            ",\"undo\":false,\"wave\":1,\"targets\":[],\"pids\":[[1,5]]",
        ),
    );
    let second = run(dir.path(), "revert", Some(&first), "");
    let third = run(dir.path(), "resume", Some(&second), "");
    let (forth, back) = (
        SignalRecord {
            forth: true,
            ..SignalRecord::default()
        },
        SignalRecord {
            back: true,
            ..SignalRecord::default()
        },
    );
    assert_eq!(
        [&first, &second, &third].map(|id| find(id).unwrap().touched[&(1, 5)]),
        [forth, back, back]
    );
    assert_eq!(
        [&first, &second, &third].map(|id| find(id).unwrap().back),
        [false, true, true]
    );
    assert!(
        matches!(find(""), Err(RunError::Ambiguous(_, 3)))
            && matches!(find("x"), Err(RunError::Unknown(..)))
    );
    assert!(matches!(
        InterruptedRun::find(dir.path(), None),
        Err(RunError::NoneOpen(_))
    ));
    // Itself, for ever.
    again(dir.path(), &third, "resume", Some(&third), "");
    assert!(
        find(&third)
            .unwrap()
            .touched
            .values()
            .all(|touch| touch.state.is_none())
    );
    std::fs::remove_dir_all(dir.path().join("runs").join(first)).unwrap();
    assert_eq!(
        find(&second).unwrap().touched.len(),
        2,
        "nobody knows whom it touched, so it may be everybody"
    );
}
