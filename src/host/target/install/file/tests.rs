#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::{
    fs::File,
    io::Write,
    os::unix::fs::{MetadataExt, PermissionsExt},
    sync::Arc,
};

use super::{super::Target, *};

fn target(bytes: &[u8]) -> (tempfile::TempDir, PathBuf, FileTarget) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap().join("web.toml");
    std::fs::write(&path, bytes).unwrap();
    let fd = File::open(dir.path()).unwrap().into();
    let Target::File(target) = Target::new(&path, Arc::new(fd)) else {
        panic!("it is a file")
    };
    (dir, path, target)
}

#[test]
fn content_of_another_program_is_not_replaced() {
    let (dir, path, mut target) = target(b"surveyed");
    let to = Content::new(b"new".to_vec());
    target.stage(&to.bytes, "1", Sync::Singly).unwrap();
    std::fs::write(&path, b"another program").unwrap();
    assert!(matches!(
        target.install(&config::digest(b"surveyed"), &to, "1"),
        Err(InstallError::Drifted(_))
    ));
    drop(target);
    assert_eq!(std::fs::read(&path).unwrap(), b"another program");
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "nothing staged remains"
    );
}

#[test]
fn new_content_has_another_time_in_seconds() {
    let (_dir, path, mut target) = target(b"old");
    let seconds = |path: &Path| path.metadata().unwrap().mtime();
    let old = seconds(&path);
    let staged = target.stage(b"new", "1", Sync::Singly).unwrap();
    assert!(seconds(&staged) > old);
}

#[test]
fn a_rollback_installs_the_reserve() {
    let (dir, path, mut target) = target(b"old");
    let from = Content::new(b"old".to_vec());
    let to = Content::new(b"new".to_vec());
    let before = path.metadata().unwrap().modified().unwrap();
    target.stage(&to.bytes, "1", Sync::Singly).unwrap();
    target.reserve(&from.bytes, Sync::Singly).unwrap();
    assert!(target.install(&from.sha256, &to, "1").unwrap());
    assert!(!target.install(&from.sha256, &to, "1").unwrap());
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
    assert!(target.install(&to.sha256, &from, "1").unwrap());
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(path.metadata().unwrap().modified().unwrap(), before);
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "nothing staged remains"
    );
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn an_attribute_that_changed_since_the_survey_is_named_and_nothing_is_replaced() {
    let (dir, path, mut target) = target(b"old");
    set_mode(&path, 0o640);
    let from = target.survey().unwrap();
    let to = Content::new(b"new".to_vec());
    target.stage(&to.bytes, "1", Sync::Singly).unwrap();
    target.reserve(&from.bytes, Sync::Singly).unwrap();
    set_mode(&path, 0o600);
    let why = target
        .install(&from.sha256, &to, "1")
        .unwrap_err()
        .to_string();
    assert!(why.contains("mode 640 -> 600"), "{why}");
    set_mode(&path, 0o640);
    assert!(target.install(&from.sha256, &to, "1").unwrap());
    // The same before a rollback.
    set_mode(&path, 0o644);
    let why = target
        .install(&to.sha256, &from, "1")
        .unwrap_err()
        .to_string();
    assert!(why.contains("mode 640 -> 644"), "{why}");
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
    set_mode(&path, 0o640);
    assert!(target.install(&to.sha256, &from, "1").unwrap());
    drop(target);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn nothing_is_staged_with_attributes_that_changed_since_the_survey() {
    let (dir, path, mut target) = target(b"old");
    set_mode(&path, 0o600);
    let from = target.survey().unwrap();
    set_mode(&path, 0o604);
    let why = target
        .stage(b"new", "1", Sync::Singly)
        .unwrap_err()
        .to_string();
    assert!(why.contains("mode 600 -> 604"), "{why}");
    assert!(target.reserve(&from.bytes, Sync::Singly).is_err());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_file_that_came_out_with_other_attributes_is_exchanged_again() {
    let (_dir, path, mut target) = target(b"old");
    let from = target.survey().unwrap();
    target.stage(b"new", "1", Sync::Singly).unwrap();
    set_mode(&path, 0o600);
    let name = target.slot.staging_name("1");
    assert!(matches!(
        target.slot.exchange(&name, &from.sha256, snapshot),
        Err(InstallError::Changed(..))
    ));
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert!(!target.slot.exchanged);
}

#[test]
fn an_edit_through_an_earlier_descriptor_is_found_once() {
    let (_dir, path, mut target) = target(b"old");
    let from = target.survey().unwrap();
    let to = Content::new(b"new".to_vec());
    target.stage(&to.bytes, "1", Sync::Singly).unwrap();
    let mut old = File::options().append(true).open(&path).unwrap();
    assert!(target.install(&from.sha256, &to, "1").unwrap());
    let mut installed = File::options().append(true).open(&path).unwrap();
    assert!(target.install(&to.sha256, &from, "1").unwrap());
    old.write_all(b" edited").unwrap();
    installed
        .set_permissions(std::fs::Permissions::from_mode(0o604))
        .unwrap();
    let edits: Vec<_> = target
        .late_edits()
        .into_iter()
        .map(|edit| (edit.what.contains("mode"), edit.bytes))
        .collect();
    assert_eq!(edits, [(false, Some(b"old edited".to_vec())), (true, None)]);
    installed.write_all(b"").unwrap();
    assert!(target.late_edits().is_empty(), "each is reported once");
}

#[test]
fn another_file_under_the_staged_name_is_neither_installed_nor_removed() {
    let (dir, path, mut target) = target(b"old");
    let from = target.survey().unwrap();
    let to = Content::new(b"new".to_vec());
    let staged = target.stage(&to.bytes, "1", Sync::Singly).unwrap();
    std::fs::rename(&staged, dir.path().join("moved")).unwrap();
    std::fs::write(&staged, b"new").unwrap();
    let foreign = staged.metadata().unwrap().ino();
    assert!(target.install(&from.sha256, &to, "1").unwrap());
    assert_ne!(path.metadata().unwrap().ino(), foreign);
    assert!(staged.exists());
    assert_eq!(target.slot.not_removed.len(), 1);
}

#[test]
fn without_an_exchange_the_old_file_is_checked_before_it_is_replaced() {
    let (dir, path, mut target) = target(b"old");
    target.stage(b"new", "1", Sync::Singly).unwrap();
    let staged = target.slot.staging_name("1");
    assert!(matches!(
        target.replace(&staged, "another digest"),
        Err(InstallError::Drifted(_))
    ));
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    target.replace(&staged, &config::digest(b"old")).unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_symbolic_link_is_not_read() {
    let (dir, path, target) = target(b"old");
    assert_eq!(*target.read().unwrap().bytes, *b"old");
    std::fs::rename(&path, dir.path().join("other")).unwrap();
    std::os::unix::fs::symlink("other", &path).unwrap();
    let why = target.read().unwrap_err().to_string();
    assert!(why.contains("it is now a symbolic link"), "{why}");
}

#[test]
fn a_hard_link_is_refused() {
    let (dir, path, mut target) = target(b"old");
    std::fs::hard_link(&path, dir.path().join("other")).unwrap();
    assert!(matches!(
        target.stage(b"new", "1", Sync::Singly),
        Err(InstallError::Refused(..))
    ));
}
