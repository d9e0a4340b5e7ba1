//! The keys of answers that have no schema stand in docs/json.md, each exactly once.

use std::{path::Path, process::Command};

use serde_json::{Map, Value};

use crate::support::{CommandResult, Fleet, Killed, get};

/// Keys whose objects have other keys each time, or are documented as events.
const FREE: [&str; 4] = ["restart_only", "began", "end", "events"];

/// Returns the backquoted parts of a text.
fn codes(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Returns every key of the objects inside a value.
fn inner_keys(value: &Value) -> Vec<String> {
    let of_object = |keys: &Map<String, Value>| {
        let inner = keys
            .iter()
            .filter(|(key, _)| !FREE.contains(&key.as_str()))
            .flat_map(|(_, value)| inner_keys(value));
        keys.keys().cloned().chain(inner).collect()
    };
    match value {
        Value::Object(keys) => of_object(keys),
        Value::Array(list) => list.first().map(inner_keys).unwrap_or_default(),
        _ => Vec::new(),
    }
}

/// Checks the table below a heading: its first column has exactly the keys of the answer, and the
/// row of a key has each key of the objects in its value.
#[track_caller]
fn assert_documented(heading: &str, answer: &Value) {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json.md");
    let page = std::fs::read_to_string(page).unwrap();
    let section = page.split("\n## ").find(|part| part.starts_with(heading));
    let rows: Vec<(&str, &str)> = section
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|line| line.split_once(" | ").unwrap())
        .collect();
    let answer = answer.as_object().unwrap();
    let first = |row: &str| format!("`{row}");
    let mut found: Vec<String> = rows
        .iter()
        .flat_map(|(key, _)| {
            codes(&first(key))
                .into_iter()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect();
    let mut known: Vec<String> = answer.keys().cloned().collect();
    found.sort_unstable();
    known.sort_unstable();
    assert_eq!(found, known, "{heading}");
    for (key, value) in answer
        .iter()
        .filter(|(key, _)| !FREE.contains(&key.as_str()))
    {
        let row = rows
            .iter()
            .find(|(row, _)| codes(&first(row)).contains(&key.as_str()));
        let words = codes(row.unwrap().1);
        for inner in inner_keys(value) {
            let count = words.iter().filter(|word| **word == inner).count();
            assert_eq!(count, 1, "{heading}: `{inner}` in the row of `{key}`");
        }
    }
}

#[test]
fn every_key_of_doctor_history_and_a_self_report_is_documented_once() {
    let fleet = Fleet::start(1);
    let report: Value = serde_json::from_str(&get(fleet.url(0), "/-/config").1).unwrap();
    assert_documented("GET /-/config of hello serve", &report);
    let mut doctor = fleet.doctor(&[]).expect(0).json;
    // No process has this number: the kernel gives none above 4194304.
    let missing = fleet.doctor(&["999999999"]).expect(3);
    doctor["missing"] = missing.json["missing"].clone();
    for list in ["processes", "missing"] {
        assert!(doctor[list][0].is_object(), "{list}: {doctor:#}");
    }
    assert_documented("hello doctor", &doctor);
    // Of a process that no group and no kind knows there is more.
    let sleep = Killed(Command::new("sleep").arg("600").spawn().unwrap());
    let mut doctor = fleet.doctor(&[&sleep.id().to_string()]).expect(5).json;
    let draft = &doctor["processes"][0]["draft"];
    assert!(draft["facts"][0].is_object(), "{doctor:#}");
    doctor["missing"] = missing.json["missing"].clone();
    assert_documented("hello doctor", &doctor);
    fleet.broadcast(&["--set", "message=two"]).expect(0);
    let mut history = Command::new(fleet.exe());
    history
        .args(["history", "-o", "json", "--state"])
        .arg(fleet.path("state"));
    let history = CommandResult::of(&mut history).expect(0).json;
    assert!(history["runs"][0].is_object(), "{history:#}");
    assert_documented("hello history", &history);
}
