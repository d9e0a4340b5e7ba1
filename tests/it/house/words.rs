//! The words of the glossary: what stands for a process or a step must not be called anything else.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use super::source::files;

/// Words that never stand for a process, a file or a machine.
const PERSONS: &[&str] = &[
    "who",
    "whom",
    "whoever",
    "whomever",
    "somebody",
    "nobody",
    "everybody",
    "anybody",
];

/// Words that the glossary replaces, with the word to use.
const REPLACED: &[(&str, &str)] = &[
    ("sick", "unresponsive"),
    ("heir", "successor"),
    ("heirs", "successors"),
    ("stranger", "foreign listener"),
    ("strangers", "foreign listeners"),
    ("trouble", "failure"),
    ("troubles", "failures"),
    ("hang up", "signal"),
    ("hangs up", "signals"),
    ("hung up", "signalled"),
    ("put back", "roll back"),
    ("puts back", "rolls back"),
    ("way back", "rollback content"),
    ("left out", "skipped"),
];

/// Beginnings of a comment that hide what a constant limits.
const OPENINGS: &[&str] = &["so many", "so long", "so deep", "so much"];

/// The text in lower case, with every sign that is no letter as one blank.
///
/// A name such as `left_out` or `LeftOut` reads as its words.
fn words(text: &str) -> String {
    let mut words = String::with_capacity(text.len());
    let mut before = ' ';
    for letter in text.chars() {
        if letter.is_uppercase() && before.is_lowercase() {
            words.push(' ');
        }
        before = letter;
        if letter.is_alphabetic() {
            words.extend(letter.to_lowercase());
        } else if !words.ends_with(' ') {
            words.push(' ');
        }
    }
    words
}

/// The rejected words of one line, each with its reason.
fn rejected(line: &str) -> Vec<String> {
    // An account of many systems has this name.
    let text = format!(" {} ", words(&line.replace("\"nobody\"", "")).trim());
    let has = |word: &str| text.contains(&format!(" {word} "));
    let person = PERSONS.iter().filter(|word| has(word));
    let person = person.map(|word| format!("`{word}`: name the subject"));
    let replaced = REPLACED.iter().filter(|(word, _)| has(word));
    let replaced = replaced.map(|(word, better)| format!("`{word}`: say `{better}`"));
    let comment = line.trim_start().trim_start_matches(['/', '!', '#']);
    let is_comment = comment.len() < line.trim_start().len();
    let opening = OPENINGS
        .iter()
        .filter(|opening| is_comment && words(comment).trim_start().starts_with(**opening));
    let opening = opening.map(|opening| format!("`{opening} ..`: say what is limited"));
    person.chain(replaced).chain(opening).collect()
}

/// Each rejected word of a text, with its line.
fn found(name: &str, text: &str) -> Vec<String> {
    let lines = text.lines().enumerate();
    lines
        .flat_map(|(number, line)| {
            let reasons = rejected(line).into_iter();
            reasons.map(move |why| format!("{name}:{}: {why}: {}", number + 1, line.trim()))
        })
        .collect()
}

/// Every text of the repository that a user reads, and every source file.
fn texts() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut texts = files(&root.join("src"));
    for folder in ["src/kinds", "docs"] {
        let entries = std::fs::read_dir(root.join(folder)).unwrap();
        texts.extend(entries.map(|entry| entry.unwrap().path()));
    }
    let others = [
        "README.md",
        "fleet.toml",
        "demo/ci.sh",
        "demo/hosts",
        "demo/run",
        "packaging/deb",
        "packaging/hello-serve@.service",
        "packaging/hello-agent.service",
        "packaging/hello-armed.service",
        "packaging/hello-watch.service",
        "packaging/hello-watch.rules.yml",
    ];
    texts.extend(others.map(|name| root.join(name)));
    texts
}

#[test]
fn no_text_uses_a_word_that_the_glossary_replaces() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for path in texts() {
        let name = path.strip_prefix(root).unwrap().display().to_string();
        all.extend(found(&name, &std::fs::read_to_string(&path).unwrap()));
    }
    assert!(all.is_empty(), "{} lines:\n{}", all.len(), all.join("\n"));
}

#[test]
fn no_help_text_uses_a_word_that_the_glossary_replaces() {
    let hello = env!("CARGO_BIN_EXE_hello");
    for command in [
        "",
        "serve",
        "check",
        "broadcast",
        "watch",
        "resume",
        "revert",
        "kinds",
        "status",
        "doctor",
        "history",
        "show",
        "diff",
        "forget",
        "completions",
        "man",
    ] {
        let help = Command::new(hello)
            .args(command.split_whitespace())
            .arg("--help")
            .output()
            .unwrap();
        assert!(help.status.success(), "hello {command} --help");
        let text = String::from_utf8(help.stdout).unwrap();
        assert_eq!(found(command, &text), Vec::<String>::new());
    }
}

#[test]
fn no_source_line_is_over_100_columns() {
    let is_table = |line: &str| line.trim_start().starts_with("//! |");
    for path in files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src")) {
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            assert!(
                line.chars().count() <= 100 || is_table(line),
                "{}:{}",
                path.display(),
                number + 1
            );
        }
    }
}

#[test]
fn a_rejected_word_is_found_in_every_spelling() {
    assert_eq!(rejected("/// Whoever asks").len(), 1);
    assert_eq!(rejected("let left_out = 1;").len(), 1);
    assert_eq!(rejected("LeftOut { pid: i32 }").len(), 1);
    assert_eq!(rejected("    /// So many at once.").len(), 1);
    assert_eq!(rejected("the whole host is unresponsive").len(), 0);
    assert_eq!(
        rejected("so many files // not a comment's beginning").len(),
        0
    );
}
