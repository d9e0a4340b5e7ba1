//! The runs that this host keeps, for a coordinator.

use std::{io, path::Path};

use serde_json::{Map, Value, json};

use crate::{
    protocol::RunQuery,
    report::run_object,
    runs::{self, RunInfo},
};

/// The most runs in one answer. A coordinator asks for 20 unless its operator wants more.
const MOST: usize = 1000;

/// The most bytes of the rows of one answer: a coordinator takes 16 MiB. A row has about 1 KB, and
/// 128 KiB at most.
const MAX_ROWS: usize = 8 << 20;

/// Returns the newest runs that a coordinator asks for, newest first, and in `kept` the number of
/// all that fit.
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
    let kept = Map::from_iter([("kept".to_owned(), json!(ids.len()))]);
    Ok((rows, kept))
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
