//! The drawing at the top of `src/lib.rs`: an import goes right or down, never back.

use std::{collections::BTreeMap, path::Path};

/// Rooms from the top left to the bottom right; those of one line do not see each other.
const HOUSE: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["broadcast", "resume", "status", "doctor", "serve", "history", "forget"],
    &["rollout"],
    &["plan", "engine", "report"],
    &["host"],
    &["check"],
    &["runs"],
    &["change"],
    &["step"],
    &["event"],
    &["fleet"],
    &["fact"],
    &["tree"],
    &["config"],
    &["fault", "identity", "told", "trust", "runtime"],
    &["screen", "exact"],
];

/// What the drawing shows inside one line: `report` and `engine` share nothing, but `engine` carries out a `plan`.
const BESIDE: &[(&str, &str)] = &[("engine", "plan")];

fn files(dir: &Path, into: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        if entry.is_dir() {
            files(&entry, into);
        } else if entry.extension().is_some_and(|e| e == "rs") {
            into.push(entry);
        }
    }
}

/// The rooms that a `crate::` path or a `use crate::{..}` names.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
            continue;
        };
        let (mut depth, mut word, mut first) = (0, String::new(), true);
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => (word, first) = (String::new(), true),
                ':' if depth == 0 => first = false,
                c if depth == 0 && first && (c.is_alphanumeric() || c == '_') => word.push(c),
                _ => {}
            }
            if depth == 0 && !word.is_empty() && found.last() != Some(&word) {
                if found.last().is_some_and(|known: &String| word.starts_with(known.as_str()) && !HOUSE.concat().contains(&known.as_str())) {
                    found.pop();
                }
                found.push(word.clone());
            }
        }
    }
    found.retain(|name| HOUSE.concat().contains(&name.as_str()));
    found
}

#[test]
fn no_import_runs_upwards_and_no_file_grows_too_long() {
    let rank: BTreeMap<&str, usize> = HOUSE.iter().enumerate().flat_map(|(line, rooms)| rooms.iter().map(move |r| (*r, line))).collect();
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&src, &mut all);
    assert!(all.len() > 20);
    let mut seen = 0;
    for file in all {
        let text = std::fs::read_to_string(&file).unwrap();
        let room = file.strip_prefix(&src).unwrap().iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs").to_owned();
        assert!(text.lines().count() <= 520, "{} has {} lines", file.display(), text.lines().count());
        if room == "lib" {
            continue;
        }
        let mine = *rank.get(room.as_str()).unwrap_or_else(|| panic!("`{room}` is not in the drawing"));
        for other in imports(&text).iter().filter(|o| **o != room) {
            seen += 1;
            let down = rank[other.as_str()] > mine || BESIDE.contains(&(room.as_str(), other));
            assert!(down, "{}: `{room}` sees `{other}`, which is above or beside it", file.display());
        }
    }
    assert!(seen > 40, "only {seen} imports were found");
}

#[test]
fn imports_are_found_in_every_spelling() {
    assert_eq!(
        imports("use crate::plan::Plan;\nuse crate::{\n    change::{Asked, Changes},\n    engine,\n    host::{Host, Look},\n};\ncrate::told::x()"),
        ["plan", "change", "engine", "host", "told"]
    );
}

/// The part of a file that is no test.
fn without_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

#[test]
fn one_room_alone_prints() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&src, &mut all);
    let prints = |text: &str| {
        let ways = ["println!", "print!(", "dbg!(", "io::stdout", "io::stderr", "stdio::stdout", "stdio::stderr", "/dev/stdout", "/dev/stderr", "/dev/tty"];
        let lines = without_tests(text).lines().filter(|line| !line.trim_start().starts_with("//"));
        lines.filter(|line| ways.iter().any(|way| line.contains(way))).map(str::to_owned).collect::<Vec<_>>()
    };
    let is_screen = |file: &Path| file.starts_with(src.join("screen")) || file == src.join("screen.rs");
    let is_test = |file: &Path| file.ends_with("tests.rs") || file.iter().any(|part| part == "tests");
    let (screen, others): (Vec<_>, Vec<_>) = all.into_iter().filter(|file| !is_test(file)).partition(|file| is_screen(file));
    for file in others {
        let found = prints(&std::fs::read_to_string(&file).unwrap());
        assert!(found.is_empty(), "{} prints, and `screen` alone does: {found:?}", file.display());
    }
    assert!(screen.iter().any(|file| !prints(&std::fs::read_to_string(file).unwrap()).is_empty()), "the search finds what it looks for");
}
