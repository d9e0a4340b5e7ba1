//! The runs that this host keeps, for a coordinator.

use std::{collections::VecDeque, io, path::Path};

use serde_json::{Map, Value, json};

use crate::{
    protocol::{NEVER_BEGAN, RunQuery},
    report::run_object,
    runs::{self, RunInfo},
};

/// The most runs in one answer. A coordinator asks for 20 unless its operator wants more.
const MOST: usize = 1000;

/// The most bytes of the rows of one answer: a coordinator takes 16 MiB. A row has about 1 KB, and
/// 128 KiB at most.
const MAX_ROWS: usize = 8 << 20;

/// The most bytes of one event: a line of an answer takes half a MiB. An intent over 1000 targets
/// has about 400 KB.
const MAX_EVENT: usize = 400 << 10;

/// Returns the newest runs that a coordinator asks for, newest first, and in `kept` the number of
/// all that fit. The last events of a single run follow its row, and `events` has the number of
/// all of them. `never_began` is true where the host has surveyed the named run, and never begun
/// it.
///
/// # Errors
/// Fails if the state directory cannot be read, or if it is not known which runs are open.
pub(crate) fn runs_of_host(
    state: &Path,
    query: &RunQuery,
) -> io::Result<(Vec<Value>, Map<String, Value>)> {
    let mut ids = if query.open {
        runs::marked_ids(state)?
    } else {
        runs::run_ids(state)?
    };
    if let Some(name) = &query.run {
        let digits = runs::digits(name);
        ids.retain(|id| id.starts_with(&digits));
    }
    let is_meant = |info: &RunInfo| !query.open || info.open || info.running;
    // A run without a row is counted only where every mark is read: there are few.
    if query.open {
        ids.retain(|id| is_meant(&RunInfo::of(state, id)));
    }
    let mut rows = Vec::new();
    let mut bytes = 0;
    for id in ids.iter().rev().take(query.last.min(MOST)) {
        let row = run_object(&RunInfo::of(state, id), "");
        bytes += row.to_string().len();
        if bytes > MAX_ROWS && !rows.is_empty() {
            break;
        }
        rows.push(row);
    }
    let mut result = Map::from_iter([("kept".to_owned(), json!(ids.len()))]);
    if let Some(run) = &query.run
        && ids.is_empty()
        && runs::never_began(state, run)
    {
        result.insert(NEVER_BEGAN.to_owned(), json!(true));
    }
    if let ([id], true) = (ids.as_slice(), query.events > 0) {
        let (events, all) = last_events(state, id, query.events);
        rows.extend(events);
        result.insert("events".to_owned(), json!(all));
    }
    Ok((rows, result))
}

/// Returns the last events of a run, and how many there are. One that is too large for a row is
/// only counted, as all are where the journal cannot be read.
fn last_events(state: &Path, id: &str, most: usize) -> (Vec<Value>, usize) {
    let mut last: VecDeque<(usize, Value)> = VecDeque::new();
    let mut all = 0;
    let mut bytes = 0;
    for event in runs::events(state, id).into_iter().flatten() {
        all += 1;
        let size = event.to_string().len();
        if size > MAX_EVENT {
            continue;
        }
        bytes += size;
        last.push_back((size, event));
        while last.len() > most.min(MOST) || bytes > MAX_ROWS {
            bytes -= last.pop_front().map_or(bytes, |(size, _)| size);
        }
    }
    (last.into_iter().map(|(_, event)| event).collect(), all)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    const FIRST: &str = "019ad11100007000a000000000000001";
    const SECOND: &str = "019ad11122227000a000000000000002";
    const THIRD: &str = "029ad11122227000b000000000000003";

    fn state() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for id in [FIRST, SECOND, THIRD] {
            std::fs::create_dir_all(dir.path().join("runs").join(id)).unwrap();
        }
        dir
    }

    fn ids(state: &Path, query: &RunQuery) -> (Vec<String>, Value) {
        let (rows, result) = runs_of_host(state, query).unwrap();
        let id = |row: &Value| row["run"].as_str().unwrap().to_owned();
        (rows.iter().map(id).collect(), result["kept"].clone())
    }

    #[test]
    fn the_newest_runs_come_first_and_all_are_counted() {
        let state = state();
        let query = RunQuery {
            last: 2,
            ..RunQuery::default()
        };
        let (ids, kept) = ids(state.path(), &query);
        assert_eq!((ids, kept), (vec![THIRD.into(), SECOND.into()], json!(3)));
    }

    #[test]
    fn the_first_digits_of_an_id_select_runs() {
        let state = state();
        let query = RunQuery {
            last: 20,
            run: Some("019AD111".into()),
            ..RunQuery::default()
        };
        assert_eq!(ids(state.path(), &query).0, [SECOND, FIRST]);
    }

    /// Returns the events of the first run, of which there are three, and the number of all.
    fn events(most: usize, large: usize) -> (Vec<Value>, Value) {
        let state = state();
        let line = |n: usize, text: &str| format!("{{\"event\":\"e{n}\",\"why\":\"{text}\"}}\n");
        let text = line(0, "") + &line(1, &"x".repeat(large)) + &line(2, "") + "{\"event\":\"torn";
        let journal = state.path().join("runs").join(FIRST).join("events.jsonl");
        std::fs::write(journal, text).unwrap();
        let query = RunQuery {
            last: 20,
            run: Some(FIRST.into()),
            events: most,
            ..RunQuery::default()
        };
        let (rows, result) = runs_of_host(state.path(), &query).unwrap();
        let events = rows.iter().skip(1).map(|row| row["event"].clone());
        (events.collect(), result["events"].clone())
    }

    #[test]
    fn the_last_events_of_one_run_follow_its_row() {
        assert_eq!(events(2, 0), (vec![json!("e1"), json!("e2")], json!(3)));
        assert_eq!(events(9, 0).0.len(), 3);
    }

    #[test]
    fn an_event_that_no_line_takes_is_only_counted() {
        let (events, all) = events(9, MAX_EVENT);
        assert_eq!((events, all), (vec![json!("e0"), json!("e2")], json!(3)));
    }

    #[test]
    fn the_events_of_several_runs_are_not_sent() {
        let query = RunQuery {
            last: 20,
            run: Some("019ad111".into()),
            events: 9,
            ..RunQuery::default()
        };
        let (rows, result) = runs_of_host(state().path(), &query).unwrap();
        assert_eq!(rows.len(), 2);
        assert!(!result.contains_key("events"));
    }

    #[test]
    fn a_run_that_has_ended_is_not_an_open_one() {
        let state = state();
        std::fs::create_dir(state.path().join("open")).unwrap();
        std::fs::write(state.path().join("open").join(SECOND), "{}").unwrap();
        let query = RunQuery {
            last: 20,
            open: true,
            ..RunQuery::default()
        };
        assert_eq!(ids(state.path(), &query), (vec![SECOND.into()], json!(1)));
    }

    #[test]
    fn a_folder_that_cannot_be_read_is_no_empty_answer() {
        let state = tempfile::tempdir().unwrap();
        for (folder, open) in [("runs", false), ("open", true)] {
            std::fs::write(state.path().join(folder), "").unwrap();
            let query = RunQuery {
                last: 20,
                open,
                ..RunQuery::default()
            };
            assert!(runs_of_host(state.path(), &query).is_err(), "{folder}");
        }
    }
}
