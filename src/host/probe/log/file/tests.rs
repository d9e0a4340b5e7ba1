#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::{fs::OpenOptions, io::Write, os::unix::fs::PermissionsExt, path::PathBuf};

use tempfile::TempDir;

use super::*;

/// A log in a directory of its own.
struct Bed {
    _dir: TempDir,
    path: PathBuf,
}

impl Bed {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.log");
        std::fs::write(&path, text).unwrap();
        Self { _dir: dir, path }
    }

    fn marked(&self) -> Files {
        let path = self.path.clone();
        Files::at_end(vec![LogPath { path, pid: None }], None).unwrap()
    }

    fn append(&self, text: &str) {
        append(&self.path, text);
    }

    fn rotated(&self) -> PathBuf {
        self.path.with_extension("log.1")
    }
}

fn append(path: &Path, text: &str) {
    let mut options = OpenOptions::new();
    let mut file = options.append(true).create(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

fn lines(files: &mut Files) -> Vec<String> {
    files.look().unwrap().last(99, usize::MAX)
}

#[test]
fn only_lines_after_the_position_are_read() {
    let bed = Bed::new("before\n");
    let mut files = bed.marked();
    assert!(lines(&mut files).is_empty());
    bed.append("one\n");
    assert_eq!(lines(&mut files), ["one"]);
    bed.append("two\n");
    assert_eq!(lines(&mut files), ["one", "two"]);
}

#[test]
fn a_line_counts_once_its_end_is_written() {
    let bed = Bed::new("");
    let mut files = bed.marked();
    bed.append("reload fai");
    assert!(lines(&mut files).is_empty());
    bed.append("led\n");
    assert_eq!(lines(&mut files), ["reload failed"]);
}

#[test]
fn a_line_that_was_begun_before_the_position_does_not_count() {
    let bed = Bed::new("begun ");
    let mut files = bed.marked();
    bed.append("earlier\nlater\n");
    assert_eq!(lines(&mut files), ["later"]);
}

#[test]
fn the_old_file_is_read_to_its_end_after_a_rotation_by_rename() {
    let bed = Bed::new("before\n");
    let mut files = bed.marked();
    bed.append("one\n");
    std::fs::rename(&bed.path, bed.rotated()).unwrap();
    append(&bed.rotated(), "two\n");
    bed.append("three\n");
    assert_eq!(lines(&mut files), ["one", "two", "three"]);
    append(&bed.rotated(), "four\n");
    assert_eq!(lines(&mut files), ["one", "two", "three", "four"]);
}

#[test]
fn a_log_that_was_not_there_is_read_from_its_beginning() {
    let bed = Bed::new("before\n");
    std::fs::rename(&bed.path, bed.rotated()).unwrap();
    let mut files = bed.marked();
    bed.append("one\n");
    assert_eq!(lines(&mut files), ["one"]);
}

#[test]
fn a_log_that_its_process_still_writes_under_its_rotated_name_is_read() {
    let bed = Bed::new("before\n");
    let mut held = OpenOptions::new().append(true).open(&bed.path).unwrap();
    std::fs::rename(&bed.path, bed.rotated()).unwrap();
    std::fs::write(&bed.path, "").unwrap();
    let path = LogPath {
        path: bed.path.clone(),
        pid: i32::try_from(std::process::id()).ok(),
    };
    let mut files = Files::at_end(vec![path], None).unwrap();
    held.write_all(b"one\n").unwrap();
    assert_eq!(lines(&mut files), ["one"]);
}

#[test]
fn a_file_that_was_cut_is_read_from_its_beginning_and_says_so() {
    let bed = Bed::new("a long line from before the signal\n");
    let mut files = bed.marked();
    std::fs::write(&bed.path, "one\n").unwrap();
    let reading = files.look().unwrap();
    assert_eq!(reading.last(9, 999), ["one"]);
    assert!(reading.is_cut());
}

#[test]
fn a_file_that_was_cut_and_is_as_long_as_before_is_read_from_its_beginning() {
    let bed = Bed::new("before\n");
    let mut files = bed.marked();
    std::fs::write(&bed.path, "onetwo\nthree\n").unwrap();
    assert_eq!(lines(&mut files), ["onetwo", "three"]);
}

#[test]
fn ten_megabytes_are_read_and_more_than_sixteen_are_refused_by_name() {
    let bed = Bed::new("");
    let mut files = bed.marked();
    let megabyte = format!("{}\n", "x".repeat(1023)).repeat(1024);
    for _ in 0..10 {
        bed.append(&megabyte);
    }
    bed.append("the end\n");
    assert_eq!(files.look().unwrap().last(1, 99), ["the end"]);
    for _ in 0..6 {
        bed.append(&megabyte);
    }
    let why = files.look().unwrap_err().to_string();
    assert!(
        why.contains("more than 16 MiB") && why.contains("x.log"),
        "{why}"
    );
}

#[test]
fn a_flood_after_the_proof_is_skipped() {
    let bed = Bed::new("");
    let mut files = bed.marked();
    files.tail_mut().prove();
    bed.append(&"x\n".repeat(9 << 20));
    files.look().unwrap();
    bed.append("later\n");
    assert_eq!(lines(&mut files), ["later"]);
}

#[test]
fn a_log_that_is_no_regular_file_is_refused() {
    for path in ["/dev/null", "/proc/self/fd/0", "/proc/self/status", "/tmp"] {
        let path = LogPath {
            path: path.into(),
            pid: None,
        };
        let why = path.open().unwrap_err();
        assert!(!matches!(why, LogError::NotThere(_)), "{path:?}: {why}");
    }
    let bed = Bed::new("");
    std::fs::remove_file(&bed.path).unwrap();
    let mut mkfifo = std::process::Command::new("mkfifo");
    assert!(mkfifo.arg(&bed.path).status().unwrap().success());
    let path = LogPath {
        path: bed.path.clone(),
        pid: None,
    };
    assert!(matches!(path.open(), Err(LogError::NoFile(_))));
}

#[test]
fn a_log_that_every_user_can_write_is_refused() {
    let bed = Bed::new("");
    let path = LogPath {
        path: bed.path.clone(),
        pid: None,
    };
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(&bed.path, 0o664);
    assert!(path.open().is_ok_and(|file| file.is_some()));
    mode(&bed.path, 0o666);
    assert!(matches!(path.open(), Err(LogError::Untrusted(..))));
    mode(&bed.path, 0o644);
    mode(bed.path.parent().unwrap(), 0o1777);
    assert!(matches!(path.open(), Err(LogError::Untrusted(..))));
}
