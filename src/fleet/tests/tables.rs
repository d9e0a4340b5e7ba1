//! The tables about kinds in the pages have the rows of the kinds' own files. Each cell of such a
//! file names the tests over the real daemon that show it.

use std::{fs, path::PathBuf};

use serde::Deserialize;

use super::*;
use crate::tests::renews;

/// The text of a cell, and the tests that show it, as paths below `tests/it`. A text that begins
/// with `-` says that there is nothing to show.
type Cell = Vec<String>;

/// `[cells]` of a kind that reloads.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reloading {
    /// The first column, where the name alone is not enough.
    label: Option<String>,
    good: Cell,
    rejected: Cell,
    fails: Cell,
    restart: Cell,
    proof: Cell,
    /// The proof and the remark of its row in the README.
    readme: [String; 2],
}

/// `[cells]` of a kind whose instances are refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Refused {
    refused: String,
}

impl Reloading {
    fn cells(&self) -> [&Cell; 5] {
        let Self {
            good,
            rejected,
            fails,
            restart,
            proof,
            ..
        } = self;
        [good, rejected, fails, restart, proof]
    }
}

/// Returns `[cells]` of a kind.
#[track_caller]
fn cells<T: serde::de::DeserializeOwned>(kind: &Kind) -> T {
    let Some((_, cells)) = kind.text.split_once("\n[cells]\n") else {
        panic!(
            "src/kinds/{}.toml has no [cells]: add its row of the tables",
            kind.name
        );
    };
    toml::from_str(cells).unwrap_or_else(|e| panic!("[cells] of {}: {e}", kind.name))
}

fn no_signal(kind: &Kind) -> Option<NoSignal> {
    let group = Fleet::of_kind(kind.name).unwrap().groups.remove(0);
    group.never_reloads().cloned()
}

/// Returns the kinds that reload, and those whose instances are refused.
fn both() -> (Vec<&'static Kind>, Vec<&'static Kind>) {
    KINDS.iter().partition(|kind| no_signal(kind).is_none())
}

fn line<S: AsRef<str>>(cells: &[S]) -> String {
    let cells: Vec<&str> = cells.iter().map(AsRef::as_ref).collect();
    format!("| {} |\n", cells.join(" | "))
}

/// Returns the rows of the kinds that reload.
fn reloading() -> String {
    let (kinds, _) = both();
    let row = |kind: &Kind| {
        let own: Reloading = cells(kind);
        let name = own.label.clone();
        let name = name.unwrap_or_else(|| format!("`{}`", kind.name));
        let texts = own.cells().map(|cell| cell[0].as_str());
        line(&[&[name.as_str()][..], &texts].concat())
    };
    kinds.into_iter().map(row).collect()
}

/// Returns the rows of the kinds whose instances are refused.
fn refused() -> String {
    let (_, kinds) = both();
    let row = |kind: &Kind| {
        let NoSignal { why, instead } = no_signal(kind).unwrap();
        line(&[format!("`{}`", kind.name), why, instead.unwrap()])
    };
    kinds.into_iter().map(row).collect()
}

/// Returns the rows of the README: one for each kind that reloads, and one for all others.
fn readme() -> String {
    let (kinds, refused) = both();
    let row = |kind: &Kind| {
        let own: Reloading = cells(kind);
        let [proof, remark] = &own.readme;
        line(&[format!("`{}`", kind.name), proof.clone(), remark.clone()])
    };
    let rows: String = kinds.into_iter().map(row).collect();
    let names: Vec<String> = refused.iter().map(|k| format!("`{}`", k.name)).collect();
    let remark = "refused (5) with the reason, and with what to do instead";
    rows + &line(&[names.join(", ").as_str(), "-", remark])
}

/// Returns the page with other rows below this header.
fn with_rows(page: &str, header: &str, rows: &str) -> String {
    let (before, rest) = page
        .split_once(header)
        .unwrap_or_else(|| panic!("no table {header}"));
    let mut lines = rest.split_inclusive('\n');
    let head: String = lines.by_ref().take(2).collect();
    let after: String = lines.skip_while(|line| line.starts_with('|')).collect();
    format!("{before}{header}{head}{rows}{after}")
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_tables_about_kinds_are_a_snapshot_of_their_files() {
    let mut wrong = Vec::new();
    for (page, header, rows) in [
        ("docs/daemons.md", "| kind | a good change |", reloading()),
        (
            "docs/daemons.md",
            "| kind | why | what to do instead |",
            refused(),
        ),
        ("README.md", "| kind | proof | remark |", readme()),
    ] {
        let path = root().join(page);
        let text = fs::read_to_string(&path).unwrap();
        let new = with_rows(&text, header, &rows);
        if renews() {
            fs::write(&path, new).unwrap();
        } else if new != text {
            let row = new
                .lines()
                .find(|line| !text.lines().any(|old| old == *line));
            wrong.push(format!(
                "{page}: {}",
                row.unwrap_or("a row too many, or another order")
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\nIf the files in src/kinds are right: \
         HELLO_RENEW_SNAPSHOTS=1 cargo test --lib snapshot; then read the diff.",
        wrong.join("\n")
    );
}

/// Returns whether there is such a test: `daemons::nginx::name` is `name` in
/// `tests/it/daemons/nginx.rs`.
fn is_test(path: &str) -> bool {
    let Some((file, name)) = path.rsplit_once("::") else {
        return false;
    };
    let file = format!("tests/it/{}.rs", file.replace("::", "/"));
    let text = fs::read_to_string(root().join(file)).unwrap_or_default();
    text.contains(&format!("#[test]\nfn {name}() {{"))
}

#[test]
fn every_cell_about_a_kind_names_tests_that_exist() {
    let (kinds, refused) = both();
    let mut wrong = Vec::new();
    for kind in kinds {
        let own: Reloading = cells(kind);
        for cell in own.cells() {
            let (text, tests) = cell.split_first().unwrap();
            if tests.is_empty() && !text.starts_with('-') {
                wrong.push(format!("{}: no test of: {text}", kind.name));
            }
            let missing = tests.iter().filter(|test| !is_test(test));
            wrong.extend(missing.map(|test| format!("{}: no test {test}", kind.name)));
        }
    }
    for kind in refused {
        let own: Refused = cells(kind);
        if !is_test(&own.refused) {
            wrong.push(format!("{}: no test {}", kind.name, own.refused));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
