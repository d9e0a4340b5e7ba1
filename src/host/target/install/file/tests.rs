#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::sync::Arc;

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
fn what_was_not_surveyed_is_left_alone() {
    let (dir, path, mut target) = target(b"surveyed");
    let to = Content::new(b"new".to_vec());
    target.stage(&to.bytes, "1", Sync::Singly).unwrap();
    std::fs::write(&path, b"somebody else").unwrap();
    assert!(matches!(
        target.install(&config::digest(b"surveyed"), &to, "1"),
        Err(InstallError::Drifted(_))
    ));
    drop(target);
    assert_eq!(std::fs::read(&path).unwrap(), b"somebody else");
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "nothing staged is left"
    );
}

#[test]
fn what_is_new_has_another_second() {
    let (_dir, path, mut target) = target(b"old");
    let seconds =
        |path: &std::path::Path| std::os::unix::fs::MetadataExt::mtime(&path.metadata().unwrap());
    let old = seconds(&path);
    let staged = target.stage(b"new", "1", Sync::Singly).unwrap();
    assert!(seconds(&staged) > old);
}

#[test]
fn there_and_back_again_from_what_was_reserved() {
    let (dir, path, mut target) = target(b"old");
    let (from, to) = (Content::new(b"old".to_vec()), Content::new(b"new".to_vec()));
    let before = path.metadata().unwrap().modified().unwrap();
    target.stage(&to.bytes, "1", Sync::Singly).unwrap();
    target.reserve(&from.bytes, Sync::Singly).unwrap();
    assert!(
        target.install(&from.sha256, &to, "1").unwrap()
            && !target.install(&from.sha256, &to, "1").unwrap()
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
    assert!(target.install(&to.sha256, &from, "1").unwrap());
    assert_eq!(
        (
            std::fs::read(&path).unwrap(),
            path.metadata().unwrap().modified().unwrap()
        ),
        (b"old".to_vec(), before)
    );
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "nothing staged is left"
    );
}

fn mode(path: &std::path::Path, mode: u32) {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn an_attribute_that_was_changed_since_the_survey_is_named_and_left_alone() {
    let (dir, path, mut target) = target(b"old");
    mode(&path, 0o640);
    let from = target.survey().unwrap();
    let to = Content::new(b"new".to_vec());
    target.stage(&to.bytes, "1", Sync::Singly).unwrap();
    target.reserve(&from.bytes, Sync::Singly).unwrap();
    mode(&path, 0o600);
    let why = target
        .install(&from.sha256, &to, "1")
        .unwrap_err()
        .to_string();
    assert!(why.contains("mode 640 -> 600"), "{why}");
    mode(&path, 0o640);
    assert!(target.install(&from.sha256, &to, "1").unwrap());
    // Before a rollback too.
    mode(&path, 0o644);
    let why = target
        .install(&to.sha256, &from, "1")
        .unwrap_err()
        .to_string();
    assert!(why.contains("mode 640 -> 644"), "{why}");
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
    mode(&path, 0o640);
    assert!(target.install(&to.sha256, &from, "1").unwrap());
    drop(target);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn nothing_is_staged_with_attributes_that_the_survey_has_not_seen() {
    let (dir, path, mut target) = target(b"old");
    mode(&path, 0o600);
    let from = target.survey().unwrap();
    mode(&path, 0o604);
    let why = target
        .stage(b"new", "1", Sync::Singly)
        .unwrap_err()
        .to_string();
    assert!(why.contains("mode 600 -> 604"), "{why}");
    assert!(target.reserve(&from.bytes, Sync::Singly).is_err());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn what_came_out_of_the_exchange_with_other_attributes_goes_straight_back() {
    let (_dir, path, mut target) = target(b"old");
    let from = target.survey().unwrap();
    target.stage(b"new", "1", Sync::Singly).unwrap();
    mode(&path, 0o600);
    let name = target.spot.staging_name("1");
    assert!(matches!(
        target.spot.exchange(&name, &from.sha256, look),
        Err(InstallError::Changed(..))
    ));
    assert_eq!(
        (std::fs::read(&path).unwrap(), target.spot.exchanged),
        (b"old".to_vec(), false)
    );
}

#[test]
fn an_edit_through_a_descriptor_from_before_is_found_at_the_end() {
    let (_dir, path, mut target) = target(b"old");
    let from = target.survey().unwrap();
    let to = Content::new(b"new".to_vec());
    target.stage(&to.bytes, "1", Sync::Singly).unwrap();
    let mut before = File::options().append(true).open(&path).unwrap();
    assert!(target.install(&from.sha256, &to, "1").unwrap());
    let mut installed = File::options().append(true).open(&path).unwrap();
    assert!(target.install(&to.sha256, &from, "1").unwrap());
    before.write_all(b" edited").unwrap();
    installed
        .set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o604))
        .unwrap();
    let late: Vec<_> = target
        .late()
        .into_iter()
        .map(|late| (late.what.contains("mode"), late.bytes))
        .collect();
    assert_eq!(late, [(false, Some(b"old edited".to_vec())), (true, None)]);
    installed.write_all(b"").unwrap();
    assert!(target.late().is_empty(), "each is told once");
}

#[test]
fn another_file_under_the_staged_name_is_neither_installed_nor_removed() {
    let (dir, path, mut target) = target(b"old");
    let from = target.survey().unwrap();
    let to = Content::new(b"new".to_vec());
    let staged = target.stage(&to.bytes, "1", Sync::Singly).unwrap();
    std::fs::rename(&staged, dir.path().join("moved")).unwrap();
    std::fs::write(&staged, b"new").unwrap();
    let its = std::os::unix::fs::MetadataExt::ino(&staged.metadata().unwrap());
    assert!(target.install(&from.sha256, &to, "1").unwrap());
    assert_ne!(
        std::os::unix::fs::MetadataExt::ino(&path.metadata().unwrap()),
        its
    );
    assert!(
        staged.exists() && target.spot.stays.len() == 1,
        "it is another program's"
    );
}

#[test]
fn without_an_exchange_the_old_file_is_known_before_it_is_replaced() {
    let (dir, path, mut target) = target(b"old");
    target.stage(b"new", "1", Sync::Singly).unwrap();
    let staged = target.spot.staging_name("1");
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
fn a_link_is_not_read() {
    let (dir, path, target) = target(b"old");
    assert_eq!(*target.read().unwrap().bytes, *b"old");
    std::fs::rename(&path, dir.path().join("other")).unwrap();
    std::os::unix::fs::symlink("other", &path).unwrap();
    assert!(
        target
            .read()
            .unwrap_err()
            .to_string()
            .contains("link by now")
    );
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
