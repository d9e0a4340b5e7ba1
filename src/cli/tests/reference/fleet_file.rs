//! `docs/fleet-file.md`.

use super::*;
use crate::fleet::{PLACEHOLDERS, PathBase, option_of, title_of, value_of, variable_of};

/// The tables of `fleet.toml`, each with the headings below which its keys are documented.
const TABLES: &[(&str, &[&str])] = &[
    ("", &["The file"]),
    (
        "Group",
        &[
            "A group",
            "The config that an instance reads",
            "The signal",
            "Validation",
            "Proof",
            "Credentials",
        ],
    ),
    ("Match", &["Match"]),
    ("Assertion", &["Assertions", "Credentials"]),
    ("Rollout", &["Rollout"]),
    ("Store", &["Stores", "Credentials"]),
    ("Hosts", &["Hosts"]),
    ("Agent", &["Agent"]),
];

/// Returns the key that a word of the first column documents: `[[group.confirm]]` is `confirm`.
fn key(word: &str) -> &str {
    let is_table = word.starts_with('[');
    let word = word.trim_matches(['[', ']']);
    let prefix = if is_table { "group." } else { "match." };
    word.strip_prefix(prefix).unwrap_or(word)
}

fn documented(headings: &[&str]) -> Vec<String> {
    let tables = tables(page("fleet-file.md"));
    let own = tables
        .iter()
        .filter(|table| table.header[0] == "key" && headings.contains(&table.heading));
    own.flat_map(|table| table.words(0))
        .map(|word| key(word).to_owned())
        .collect()
}

#[test]
fn every_key_of_every_table_is_documented_once() {
    let document = Subject::Fleet.document();
    let all = definitions(&document);
    for (name, headings) in TABLES {
        let found = documented(headings);
        assert_each_once(&format!("{headings:?}"), words_of(all[*name]), found);
    }
}

#[test]
fn the_keys_of_an_inline_table_stand_in_the_row_of_its_key() {
    let document = Subject::Fleet.document();
    let all = definitions(&document);
    let is_table = |schema: &Value| schema["properties"].is_object();
    let inline: Vec<_> = all
        .iter()
        .filter(|(name, schema)| is_table(schema) && !TABLES.iter().any(|(known, _)| known == name))
        .collect();
    assert!(!inline.is_empty());
    for (name, schema) in inline {
        let keys: Vec<String> = words_of(schema).into_iter().collect();
        let rows: Vec<_> = tables(page("fleet-file.md"))
            .into_iter()
            .flat_map(|table| table.rows)
            .collect();
        let has_all = |cell: &str| {
            let inner = cell
                .split_once('{')
                .and_then(|(_, rest)| rest.split_once('}'));
            let mut found: Vec<_> = inner
                .unwrap_or_default()
                .0
                .split(',')
                .map(str::trim)
                .collect();
            found.sort_unstable();
            found == keys
        };
        let count = rows.iter().filter(|row| has_all(row[1])).count();
        assert_eq!(count, 1, "{name}: {keys:?}");
    }
}

#[test]
fn no_other_heading_has_a_table_of_keys() {
    for table in tables(page("fleet-file.md"))
        .iter()
        .filter(|table| table.header[0] == "key")
    {
        let is_known = TABLES
            .iter()
            .any(|(_, headings)| headings.contains(&table.heading));
        assert!(is_known, "{}", table.heading);
    }
}

/// Returns the words of the table whose first column is `header`, without braces.
fn bare(header: &str) -> Vec<&'static str> {
    let tables = tables(page("fleet-file.md"));
    let table = tables
        .iter()
        .find(|table| table.header[0] == header)
        .unwrap();
    table
        .words(0)
        .map(|word| word.trim_matches(['{', '}']))
        .collect()
}

#[test]
fn every_placeholder_of_a_command_is_documented_once() {
    let more = [
        "opt:-c",
        "arg:-c",
        "arg:1",
        "env:HOME",
        "title:master process (*)",
        "key",
        "rev",
    ];
    assert!(option_of(more[0]).is_some());
    assert!(more[1..3].iter().all(|name| value_of(name).is_some()));
    assert!(variable_of(more[3]).is_some() && title_of(more[4]).is_some());
    let known = PLACEHOLDERS.into_iter().chain(more);
    assert_each_once("placeholders", known, bare("placeholder"));
}

#[test]
fn every_place_is_documented_once() {
    let text = String::new;
    let bases = [
        PathBase::Path("/".into()),
        PathBase::Arg(text(), "".into()),
        PathBase::Cwd("".into()),
        PathBase::Base("".into()),
        PathBase::Built(text(), "".into()),
        PathBase::Env(text(), "".into()),
        PathBase::Title(text(), "".into()),
    ];
    let written = bases.iter().flat_map(|base| match base {
        // An absolute path is no placeholder.
        PathBase::Path(_) => vec![],
        PathBase::Arg(..) => vec!["arg:--config", "arg:1"],
        PathBase::Cwd(_) => vec!["cwd"],
        PathBase::Base(_) => vec!["base"],
        PathBase::Built(..) => vec!["built:--conf-path="],
        PathBase::Env(..) => vec!["env:PGDATA"],
        PathBase::Title(..) => vec!["title:php-fpm: master process (*)"],
        // A key is a URL, and has no placeholder.
        PathBase::Key(_) => vec![],
    });
    assert_each_once("places", written, bare("place"));
}
