//! Every option, key, word and exit code stands exactly once in its reference page.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use serde_json::Value;

use super::super::{command_line, schema::Subject};

mod commands;
mod fleet_file;
mod json;

/// Returns a page as it is now: a change of it needs no new build.
fn page(name: &str) -> &'static str {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    std::fs::read_to_string(docs.join(name)).unwrap().leak()
}

/// A table of a page, and the heading above it.
struct Table {
    heading: &'static str,
    header: Vec<&'static str>,
    rows: Vec<Vec<&'static str>>,
}

impl Table {
    /// Returns the backquoted words in one column.
    fn words(&self, column: usize) -> impl Iterator<Item = &'static str> {
        self.rows.iter().flat_map(move |row| codes(row[column]))
    }
}

/// Returns the cells of a line of a table.
fn cells(line: &'static str) -> Vec<&'static str> {
    let inner = line.trim_start_matches('|').trim_end_matches('|');
    let mut cells = Vec::new();
    let mut start = 0;
    for (bar, _) in inner.match_indices('|') {
        if !inner[..bar].ends_with('\\') {
            cells.push(inner[start..bar].trim());
            start = bar + 1;
        }
    }
    cells.push(inner[start..].trim());
    cells
}

/// Returns every table of a page.
fn tables(page: &'static str) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    let mut heading = "";
    let mut is_open = false;
    for line in page.lines() {
        if line.starts_with('#') {
            heading = line.trim_start_matches('#').trim();
        }
        match (line.starts_with('|'), is_open) {
            (true, false) => tables.push(Table {
                heading,
                header: cells(line),
                rows: Vec::new(),
            }),
            (true, true) if !line.starts_with("|---") => {
                if let Some(table) = tables.last_mut() {
                    table.rows.push(cells(line));
                }
            }
            _ => {}
        }
        is_open = line.starts_with('|');
    }
    tables
}

/// Returns the backquoted parts of a cell.
fn codes(cell: &'static str) -> Vec<&'static str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Counts each word.
fn counted<S: ToString>(words: impl IntoIterator<Item = S>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for word in words {
        *counts.entry(word.to_string()).or_insert(0) += 1;
    }
    counts
}

/// Checks that `found` holds each of `wanted` exactly once, and nothing else.
#[track_caller]
fn assert_each_once<S: ToString>(
    place: &str,
    wanted: impl IntoIterator<Item = S>,
    found: impl IntoIterator<Item = S>,
) {
    let wanted: BTreeMap<String, usize> = wanted.into_iter().map(|w| (w.to_string(), 1)).collect();
    let found = counted(found);
    let missing: Vec<_> = wanted.keys().filter(|w| !found.contains_key(*w)).collect();
    let wrong: Vec<_> = found
        .iter()
        .filter(|(word, count)| wanted.get(*word) != Some(*count))
        .collect();
    assert!(
        missing.is_empty() && wrong.is_empty(),
        "{place}: not there: {missing:?}; not known, or there several times: {wrong:?}"
    );
}

/// Returns the definitions of a schema by name; the document itself has no name.
fn definitions(document: &Value) -> BTreeMap<String, &Value> {
    let inner = document["$defs"].as_object().into_iter().flatten();
    inner
        .map(|(name, schema)| (name.clone(), schema))
        .chain([(String::new(), document)])
        .collect()
}

/// Returns the keys of an object, or the words of an enum.
fn words_of(schema: &Value) -> BTreeSet<String> {
    let keys = schema["properties"].as_object().into_iter().flatten();
    let mut words: BTreeSet<String> = keys.map(|(key, _)| key.clone()).collect();
    let variants = ["oneOf", "anyOf"].map(|key| schema[key].as_array());
    for variant in variants.into_iter().flatten().flatten() {
        words.extend(variant["const"].as_str().map(str::to_owned));
        let list = variant["enum"].as_array().into_iter().flatten();
        words.extend(list.filter_map(Value::as_str).map(str::to_owned));
    }
    let list = schema["enum"].as_array().into_iter().flatten();
    words.extend(list.filter_map(Value::as_str).map(str::to_owned));
    words
}

#[test]
fn a_missing_and_a_repeated_word_are_found() {
    let fails = |found: &[&'static str]| {
        std::panic::catch_unwind(|| assert_each_once("", ["a", "b"], found.iter().copied()))
            .is_err()
    };
    assert!(!fails(&["b", "a"]));
    for wrong in [&["a"][..], &["a", "b", "b"], &["a", "b", "c"]] {
        assert!(fails(wrong), "{wrong:?}");
    }
}

#[test]
fn a_table_is_read_with_its_heading() {
    let read =
        tables("# A\n\n| key | value |\n|---|---|\n| `a`, `b` | x \\| `y` |\n\n## B\ntext\n");
    assert_eq!(read.len(), 1);
    assert_eq!((read[0].heading, read[0].header[0]), ("A", "key"));
    assert_eq!(read[0].words(0).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(read[0].words(1).collect::<Vec<_>>(), ["y"]);
}
