//! `docs/json.md`.

use super::*;
use crate::event::Verdict;

/// Objects and words that have a table: the schema, its definition, and the heading of the table.
const TABLES: &[(Subject, &str, &str)] = &[
    (Subject::Result, "", "A run"),
    (Subject::Result, "TargetReport", "A target"),
    (Subject::Result, "Instance", "An instance"),
    (Subject::Result, "Outcome", "Outcomes"),
    (Subject::Status, "", "hello status"),
    (Subject::Status, "Instance", "An instance of status"),
    (Subject::Status, "Target", "A target of status"),
    (Subject::Status, "Group", "A group of status"),
    (Subject::Hosts, "", "hello hosts"),
    (Subject::Hosts, "Host", "A host"),
];

/// Small objects and words that stand in a row: the schema, its definition, the heading, the row.
const ROWS: &[(Subject, &str, &str, &str)] = &[
    (Subject::Result, "WaveReport", "A run", "waves"),
    (Subject::Result, "TargetKind", "A target", "kind"),
    (Subject::Result, "SourceReport", "A target", "source"),
    (Subject::Result, "KeyReport", "A target", "key"),
    (Subject::Result, "HostReport", "A run", "hosts"),
    (Subject::Result, "EntryReport", "A target", "entries"),
    (Subject::Result, "EntryChange", "A target", "entries"),
    (Subject::Result, "Failure", "An instance", "failure"),
    (Subject::Result, "FailureKind", "An instance", "failure"),
    (Subject::Result, "Proof", "An instance", "proof"),
    (Subject::Result, "ReloadsBy", "An instance", "reloads_by"),
    (Subject::Events, "Direction", "Events", "intent"),
    (Subject::Events, "HostState", "Events", "host"),
    (Subject::Events, "SessionEnd", "Events", "session_ended"),
    (Subject::Events, "Verb", "Events", "began"),
    (Subject::Events, "Operator", "Events", "began"),
    (Subject::Events, "ClaimedOperator", "Events", "began"),
    (Subject::Events, "PartOf", "Events", "began"),
    (Subject::Status, "Skipped", "hello status", "skipped"),
    (Subject::Status, "OpenRun", "hello status", "open"),
    (Subject::Status, "PartOf", "hello status", "open"),
    (Subject::Status, "Running", "hello status", "running"),
    (Subject::Status, "AbsentHost", "hello status", "hosts"),
    (
        Subject::Status,
        "LastInstance",
        "A group of status",
        "ended",
    ),
    (Subject::Status, "Known", "A target of status", "known"),
    (Subject::Hosts, "HostState", "A host", "state"),
    (Subject::Hosts, "HostGroup", "A host", "groups"),
    (Subject::Hosts, "HostOpenRun", "A host", "open"),
];

/// Definitions with a test or a sentence of their own.
const ELSEWHERE: [&str; 7] = [
    "Path",
    "Verdict",
    "Event",
    "EventOfHost",
    "FirstEvent",
    "RunBegan",
    "Summary",
];

fn table(heading: &str) -> Table {
    let mut found = tables(page("json.md"))
        .into_iter()
        .filter(|table| table.heading == heading);
    let table = found
        .next()
        .unwrap_or_else(|| panic!("no table below {heading:?}"));
    assert!(found.next().is_none(), "two tables below {heading:?}");
    table
}

/// Returns the words that a row has besides its key.
fn row(heading: &str, key: &str) -> Vec<&'static str> {
    let table = table(heading);
    let row = table.rows.iter().find(|row| codes(row[0]).contains(&key));
    let row = row.unwrap_or_else(|| panic!("no row {key} below {heading:?}"));
    row[1..].iter().flat_map(|cell| codes(cell)).collect()
}

#[test]
fn every_key_and_word_of_an_object_is_documented_once() {
    for (subject, name, heading) in TABLES {
        let document = subject.document();
        let words = words_of(definitions(&document)[*name]);
        assert_each_once(heading, words, table(heading).words(0).map(str::to_owned));
    }
}

#[test]
fn every_key_and_word_of_a_small_object_is_documented_once() {
    for (subject, name, heading, key) in ROWS {
        let document = subject.document();
        let found = counted(row(heading, key));
        let words = words_of(definitions(&document)[*name]);
        assert!(!words.is_empty(), "{name} has no words");
        for word in words {
            assert_eq!(found.get(&word), Some(&1), "{heading}, row {key}: `{word}`");
        }
    }
}

#[test]
fn every_definition_is_documented() {
    for subject in [Subject::Result, Subject::Events, Subject::Status] {
        let document = subject.document();
        for name in definitions(&document)
            .keys()
            .filter(|name| !name.is_empty())
        {
            // A run and its events share their definitions.
            let is_here = |of: &Subject| (*of == Subject::Status) == (subject == Subject::Status);
            let is_known = TABLES
                .iter()
                .any(|(of, known, _)| is_here(of) && known == name)
                || ROWS
                    .iter()
                    .any(|(of, known, ..)| is_here(of) && known == name)
                || ELSEWHERE.contains(&name.as_str());
            assert!(is_known, "{subject:?}: {name}");
        }
    }
}

#[test]
fn every_exit_code_and_verdict_is_documented_once() {
    let table = table("Exit codes");
    let rows = table
        .rows
        .iter()
        .map(|row| format!("{} {}", row[0], row[1]));
    let known = Verdict::ALL
        .map(|verdict| format!("{} `{}`", verdict.exit(), crate::names::json_word(verdict)));
    assert_each_once("Exit codes", known, rows);
    let document = Subject::Result.document();
    let words = words_of(definitions(&document)["Verdict"]);
    assert_each_once("verdicts", words, table.words(1).map(str::to_owned));
}

/// Returns each event of a schema with its keys.
fn events(document: &Value) -> BTreeMap<String, BTreeSet<String>> {
    let all = definitions(document);
    let variants = ["Event", "FirstEvent"].map(|name| all[name]["oneOf"].as_array());
    let mut events = BTreeMap::new();
    for variant in variants.into_iter().flatten().flatten() {
        let mut keys = words_of(variant);
        if let Some(reference) = variant["$ref"].as_str() {
            keys.extend(words_of(all[reference.trim_start_matches("#/$defs/")]));
        }
        assert!(keys.remove("event"));
        let name = variant["properties"]["event"]["const"].as_str().unwrap();
        events.insert(name.to_owned(), keys);
    }
    events
}

#[test]
fn every_event_and_its_keys_are_documented_once() {
    let document = Subject::Events.document();
    let events = events(&document);
    assert!(events.len() > 25, "only {} events", events.len());
    let table = table("Events");
    assert_each_once(
        "Events",
        events.keys().cloned(),
        table.words(0).map(str::to_owned),
    );
    for row in &table.rows {
        let name = codes(row[0])[0];
        let found = counted(codes(row[1]));
        let known = &events[name];
        for key in known {
            assert_eq!(found.get(key), Some(&1), "event {name}: `{key}`");
        }
        // Words of a value may stand behind its key.
        let words = ["Direction", "HostState", "SessionEnd"]
            .map(|name| words_of(definitions(&document)[name]));
        let words: BTreeSet<String> = words.into_iter().flatten().collect();
        for key in found.keys().filter(|key| !words.contains(*key)) {
            assert!(known.contains(key), "event {name} has no `{key}`");
        }
    }
}
