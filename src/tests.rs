//! Snapshots: texts that tests compare byte for byte with files beside them.
#![allow(clippy::unwrap_used, reason = "a failure says so itself")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

pub(crate) mod probed;
pub(crate) mod unprivileged;

/// The variable that makes tests write the files instead of comparing them.
const RENEW: &str = "HELLO_RENEW_SNAPSHOTS";

/// Tells whether this run writes the files instead of comparing them.
pub(crate) fn renews() -> bool {
    std::env::var_os(RENEW).is_some_and(|value| value == "1")
}

/// Compares each text with the file of its name in `folder`, a path from the root of the
/// repository. A file without a text is a failure too.
#[track_caller]
pub(crate) fn check_snapshots(folder: &str, texts: &BTreeMap<String, String>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    if renews() {
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        for (name, text) in texts {
            fs::write(folder.join(name), text).unwrap();
        }
    }
    let faults = faults(&folder, texts);
    assert!(
        faults.is_empty(),
        "{}\nIf the new texts are right: {RENEW}=1 cargo test --lib snapshot; then read the diff.",
        faults.join("\n")
    );
}

/// Returns what differs between the texts and the files of a folder.
fn faults(folder: &Path, texts: &BTreeMap<String, String>) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    let is_known =
        |file: &&PathBuf| texts.contains_key(file.file_name().unwrap().to_str().unwrap());
    let unknown = files.iter().filter(|file| !is_known(file));
    let mut faults: Vec<String> = unknown
        .map(|file| format!("{}: no test makes this text", file.display()))
        .collect();
    for (name, text) in texts {
        let file = folder.join(name);
        match fs::read_to_string(&file) {
            Ok(kept) if kept == *text => {}
            Ok(kept) => faults.push(difference(&file, &kept, text)),
            Err(e) => faults.push(format!("{}: {e}", file.display())),
        }
    }
    faults
}

/// Returns the first line in which two texts differ.
fn difference(file: &Path, kept: &str, now: &str) -> String {
    let same = kept.lines().zip(now.lines()).take_while(|(a, b)| a == b);
    let line = same.count();
    format!(
        "{}:{}:\n  kept: {:?}\n  now:  {:?}",
        file.display(),
        line + 1,
        kept.lines().nth(line),
        now.lines().nth(line)
    )
}

#[test]
fn a_changed_a_missing_and_an_unknown_snapshot_are_named() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("same", "a\n"), ("changed", "a\nb\n"), ("unknown", "")] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let texts = [("same", "a\n"), ("changed", "a\nc\n"), ("missing", "")];
    let texts = texts.map(|(name, text)| (name.to_owned(), text.to_owned()));
    let faults = faults(folder.path(), &texts.into());
    assert_eq!(faults.len(), 3, "{faults:#?}");
    assert!(faults[0].contains("unknown: no test"), "{faults:#?}");
    assert!(
        faults[1].ends_with("changed:2:\n  kept: Some(\"b\")\n  now:  Some(\"c\")"),
        "{faults:#?}"
    );
    assert!(faults[2].contains("missing: "), "{faults:#?}");
}
