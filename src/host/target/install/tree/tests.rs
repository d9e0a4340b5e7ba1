//! Directories that are replaced and rolled back, and those that must not be replaced.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test says so by failing, and why it is skipped"
)]
use std::{
    fs::File,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    sync::Arc,
};

use rustix::fs;

use super::{super::Target, *};

mod attributes;

const ODD: &str = "a name\nof two lines";

/// Creates a directory with every type of entry that a directory may have.
fn live() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().canonicalize().unwrap().join("conf.d");
    std::fs::create_dir_all(path.join("sub/deeper")).unwrap();
    for (name, text) in [
        ("a", "old"),
        (ODD, "same"),
        ("empty", ""),
        ("sub/deeper/x", "x"),
    ] {
        std::fs::write(path.join(name), text).unwrap();
    }
    symlink("../elsewhere", path.join("link")).unwrap();
    (dir, path)
}

fn target(path: &Path) -> TreeTarget {
    let Target::Directory(target) = Target::new(
        path,
        Arc::new(File::open(path.parent().unwrap()).unwrap().into()),
    ) else {
        panic!("it is a directory")
    };
    target
}

fn changed(old: &Content, change: impl Fn(&mut Tree)) -> Content {
    let mut tree = (**old.tree.as_ref().unwrap()).clone();
    change(&mut tree);
    Content::from_tree(tree).unwrap()
}

fn with_file(name: &str, text: &str) -> impl Fn(&mut Tree) {
    move |tree| {
        let node = Node::File(0o640, text.as_bytes().into());
        tree.entries.insert(name.into(), node);
    }
}

fn other_entries(dir: &tempfile::TempDir) -> Vec<OsString> {
    std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .filter(|n| n != "conf.d")
        .collect()
}

#[test]
fn the_directory_is_replaced_and_rolled_back_by_one_exchange_each() {
    let (dir, path) = live();
    let inode_and_time = |name: &str| {
        path.join(name)
            .symlink_metadata()
            .map(|m| (m.ino(), m.mtime(), m.mtime_nsec()))
            .unwrap()
    };
    let [a, odd, link] = ["a", ODD, "link"].map(inode_and_time);
    let mut target = target(&path);
    let from = target.read().unwrap();
    let to = changed(&from, with_file("a", "new"));
    let staged = target.stage(&to, "1").unwrap();
    assert_eq!(staged, path.with_file_name(".conf.d.hello-1"));
    assert_eq!(other_entries(&dir), [".conf.d.hello-1"]);
    assert_eq!(inode_and_time("a"), a, "the live file is not touched");
    assert!(target.install(&from.sha256, &to, "1").unwrap());
    assert!(!target.install(&from.sha256, &to, "1").unwrap());
    assert_eq!(std::fs::read(path.join("a")).unwrap(), b"new");
    assert_eq!(target.digest(), Some(to.sha256.clone()));
    for (name, before) in [(ODD, odd), ("link", link)] {
        let after = inode_and_time(name);
        assert_eq!((after.1, after.2), (before.1, before.2), "{name}");
    }
    let link = std::fs::read_link(path.join("link")).unwrap();
    assert_eq!(link, Path::new("../elsewhere"));
    assert!(target.install(&to.sha256, &from, "1").unwrap());
    assert_eq!(inode_and_time("a"), a, "the same inodes are live again");
    assert_eq!(target.digest(), Some(from.sha256));
    drop(target);
    assert!(other_entries(&dir).is_empty(), "nothing staged remains");
}

#[test]
fn no_link_is_followed_when_staged_entries_are_removed() {
    let (dir, path) = live();
    std::fs::create_dir(dir.path().join("elsewhere")).unwrap();
    std::fs::write(dir.path().join("elsewhere/kept"), "").unwrap();
    symlink(dir.path().join("elsewhere"), path.join("sub/out")).unwrap();
    let mut target = target(&path);
    let from = target.read().unwrap();
    let to = changed(&from, with_file("a", "new"));
    target.stage(&to, "1").unwrap();
    target.install(&from.sha256, &to, "1").unwrap();
    drop(target);
    assert_eq!(other_entries(&dir), ["elsewhere"]);
    assert!(dir.path().join("elsewhere/kept").exists());
}

#[test]
fn content_of_another_program_is_not_replaced() {
    let (dir, path) = live();
    let mut target = target(&path);
    let from = target.read().unwrap();
    let to = changed(&from, with_file("a", "new"));
    target.stage(&to, "1").unwrap();
    let staged = target.slot.staged.as_ref().unwrap().name.clone();
    // The content changes between the check and the exchange.
    assert!(matches!(
        target.slot.exchange(&staged, "another digest", snapshot),
        Err(InstallError::Drifted(_))
    ));
    assert_eq!(target.digest(), Some(from.sha256.clone()));
    assert!(!target.slot.exchanged);
    for (name, text) in [("sub/deeper/x", "another program"), ("new", "")] {
        std::fs::write(path.join(name), text).unwrap();
        assert!(matches!(
            target.install(&from.sha256, &to, "1"),
            Err(InstallError::Drifted(_))
        ));
    }
    drop(target);
    assert_eq!(
        std::fs::read(path.join("sub/deeper/x")).unwrap(),
        b"another program"
    );
    assert!(path.join("new").exists());
    assert!(other_entries(&dir).is_empty());
}

#[test]
fn a_mode_or_a_link_that_changed_is_drift_too() {
    let (_dir, path) = live();
    let mut target = target(&path);
    let from = target.read().unwrap();
    let to = changed(&from, with_file("a", "new"));
    target.stage(&to, "1").unwrap();
    std::fs::set_permissions(path.join("a"), std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(matches!(
        target.install(&from.sha256, &to, "1"),
        Err(InstallError::Drifted(_))
    ));
    let from = target.read().unwrap();
    std::fs::remove_file(path.join("link")).unwrap();
    symlink("elsewhere", path.join("link")).unwrap();
    assert!(matches!(
        target.install(&from.sha256, &to, "1"),
        Err(InstallError::Drifted(_))
    ));
}

#[test]
fn an_edited_old_directory_is_staged_again_for_a_rollback() {
    let (dir, path) = live();
    let mut target = target(&path);
    let from = target.read().unwrap();
    let to = changed(&from, with_file("a", "new"));
    let staged = target.stage(&to, "1").unwrap();
    target.install(&from.sha256, &to, "1").unwrap();
    std::fs::write(staged.join("log"), "of a process that works in it").unwrap();
    assert!(target.install(&to.sha256, &from, "1").unwrap());
    assert_eq!(target.digest(), Some(from.sha256));
    let edits: Vec<_> = target
        .late_edits()
        .into_iter()
        .map(|edit| (edit.path, edit.bytes))
        .collect();
    assert_eq!(
        edits,
        [(
            path.join("log"),
            Some(b"of a process that works in it".to_vec())
        )]
    );
    drop(target);
    assert!(other_entries(&dir).is_empty());
}

#[test]
fn a_directory_that_was_moved_into_the_old_one_stays() {
    let (dir, path) = live();
    let mut target = target(&path);
    let from = target.survey().unwrap();
    let to = changed(&from, with_file("a", "new"));
    let staged = target.stage(&to, "1").unwrap();
    target.install(&from.sha256, &to, "1").unwrap();
    std::fs::create_dir_all(staged.join("sub/moved")).unwrap();
    std::fs::write(staged.join("sub/moved/kept"), "kept").unwrap();
    target.late_edits();
    target.slot.unstage();
    assert!(staged.join("sub/moved").is_dir(), "another program owns it");
    let (_, why) = &target.slot.not_removed[0];
    assert!(why.contains("moved"), "{why}");
    assert!(!staged.join("a").exists());
    assert!(dir.path().exists());
}

#[test]
fn the_entry_that_cannot_be_replaced_is_named() {
    let (dir, path) = live();
    let mut target = target(&path);
    let to = changed(&target.read().unwrap(), with_file("a", "new"));
    let is_refused = |target: &mut TreeTarget, wanted: &str| {
        let why = target.stage(&to, "1").unwrap_err().to_string();
        assert!(why.contains(wanted), "{why}");
        assert!(why.contains("conf.d"), "{why}");
        assert!(
            other_entries(&dir).iter().all(|name| name == "other"),
            "nothing staged remains"
        );
    };
    std::fs::hard_link(path.join("sub/deeper/x"), dir.path().join("other")).unwrap();
    is_refused(
        &mut target,
        "`sub/deeper/x` in it has more than one hard link",
    );
    std::fs::remove_file(dir.path().join("other")).unwrap();
    nix::unistd::mkfifo(&path.join("sub/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    is_refused(
        &mut target,
        "`sub/pipe` in it is neither file, directory nor link",
    );
    std::fs::remove_file(path.join("sub/pipe")).unwrap();
    let file = File::open(path.join("empty")).unwrap();
    for flag in [fs::IFlags::IMMUTABLE, fs::IFlags::APPEND] {
        // Only root may set it, and only on some filesystems.
        let Ok(now) = fs::ioctl_getflags(&file) else {
            continue;
        };
        if fs::ioctl_setflags(&file, now | flag).is_ok() {
            let why = target.stage(&to, "1").unwrap_err().to_string();
            fs::ioctl_setflags(&file, now).unwrap();
            assert!(
                why.contains("`empty` in it is immutable or append-only"),
                "{why}"
            );
        }
    }
    assert!(target.stage(&to, "1").is_ok());
    assert!(matches!(
        target.stage(&Content::new(Vec::new()), "1"),
        Err(InstallError::Refused(..))
    ));
}
