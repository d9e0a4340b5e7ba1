//! Directories there and back again, and what is left alone.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test says so by failing, and why it is skipped"
)]
use std::{
    os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink},
    sync::Arc,
};

use super::{super::Target, *};

const ODD: &str = "a name\nof two lines";

/// A directory of everything that a directory may have in it.
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

fn with(name: &str, text: &str) -> impl Fn(&mut Tree) {
    move |tree| {
        drop(
            tree.entries
                .insert(name.into(), Node::File(0o640, text.as_bytes().into())),
        )
    }
}

fn beside(dir: &tempfile::TempDir) -> Vec<OsString> {
    std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .filter(|n| n != "conf.d")
        .collect()
}

#[test]
fn there_and_back_again_in_one_exchange_each() {
    let (dir, path) = live();
    std::fs::create_dir(dir.path().join("elsewhere")).unwrap();
    std::fs::write(dir.path().join("elsewhere/kept"), "").unwrap();
    symlink(dir.path().join("elsewhere"), path.join("sub/out")).unwrap();
    let before = |name: &str| {
        path.join(name)
            .symlink_metadata()
            .map(|m| (m.ino(), m.mtime(), m.mtime_nsec()))
            .unwrap()
    };
    let (a, odd, link) = (before("a"), before(ODD), before("link"));
    let mut target = target(&path);
    let from = target.read().unwrap();
    let to = changed(&from, with("a", "new"));
    let staged = target.stage(&to, "1").unwrap();
    assert_eq!(staged, path.with_file_name(".conf.d.hello-1"));
    assert_eq!(
        (beside(&dir).len(), before("a")),
        (2, a),
        "only what was staged stands beside it"
    );
    assert!(
        target.install(&from.sha256, &to, "1").unwrap()
            && !target.install(&from.sha256, &to, "1").unwrap()
    );
    assert_eq!(
        (std::fs::read(path.join("a")).unwrap(), target.digest()),
        (b"new".to_vec(), Some(to.sha256.clone()))
    );
    let times = |(_, s, ns): (u64, i64, i64)| (s, ns);
    assert_eq!(
        (times(before(ODD)), times(before("link"))),
        (times(odd), times(link)),
        "what did not change keeps its time"
    );
    assert_eq!(
        std::fs::read_link(path.join("link")).unwrap(),
        Path::new("../elsewhere")
    );
    assert!(target.install(&to.sha256, &from, "1").unwrap());
    assert_eq!(
        (before("a"), target.digest()),
        (a, Some(from.sha256)),
        "the very files are back"
    );
    drop(target);
    assert_eq!(beside(&dir), ["elsewhere"], "nothing staged is left");
    assert!(
        dir.path().join("elsewhere/kept").exists(),
        "no link was followed"
    );
}

#[test]
fn what_was_not_surveyed_is_left_alone_before_and_in_the_exchange() {
    let (dir, path) = live();
    let mut target = target(&path);
    let from = target.read().unwrap();
    let to = changed(&from, with("a", "new"));
    target.stage(&to, "1").unwrap();
    let staged = target.spot.staged.as_ref().unwrap().name.clone();
    // Changed between the look and the exchange.
    assert!(matches!(
        target.spot.exchange(&staged, "another digest", seen),
        Err(InstallError::Drifted(_))
    ));
    assert_eq!(
        (target.digest(), target.spot.exchanged),
        (Some(from.sha256.clone()), false)
    );
    for change in [("sub/deeper/x", "somebody else"), ("new", "")] {
        std::fs::write(path.join(change.0), change.1).unwrap();
        assert!(matches!(
            target.install(&from.sha256, &to, "1"),
            Err(InstallError::Drifted(_))
        ));
    }
    drop(target);
    assert_eq!(
        (
            std::fs::read(path.join("sub/deeper/x")).unwrap(),
            path.join("new").exists()
        ),
        (b"somebody else".to_vec(), true)
    );
    assert!(beside(&dir).is_empty());
}

#[test]
fn a_mode_or_a_link_that_changed_is_drift_too() {
    let (_dir, path) = live();
    let mut target = target(&path);
    let from = target.read().unwrap();
    let to = changed(&from, with("a", "new"));
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
fn an_old_directory_in_which_somebody_was_is_written_anew_for_the_way_back() {
    let (dir, path) = live();
    let mut target = target(&path);
    let from = target.read().unwrap();
    let to = changed(&from, with("a", "new"));
    let staged = target.stage(&to, "1").unwrap();
    target.install(&from.sha256, &to, "1").unwrap();
    std::fs::write(staged.join("log"), "of one who still stands in it").unwrap();
    assert!(target.install(&to.sha256, &from, "1").unwrap());
    assert_eq!(target.digest(), Some(from.sha256));
    let late: Vec<_> = target
        .late()
        .into_iter()
        .map(|late| (late.path, late.bytes))
        .collect();
    assert_eq!(
        late,
        [(
            path.join("log"),
            Some(b"of one who still stands in it".to_vec())
        )]
    );
    drop(target);
    assert!(beside(&dir).is_empty());
}

#[test]
fn a_directory_that_was_moved_into_the_old_one_stays() {
    let (dir, path) = live();
    let mut target = target(&path);
    let from = target.survey().unwrap();
    let to = changed(&from, with("a", "new"));
    let staged = target.stage(&to, "1").unwrap();
    target.install(&from.sha256, &to, "1").unwrap();
    std::fs::create_dir_all(staged.join("sub/moved")).unwrap();
    std::fs::write(staged.join("sub/moved/kept"), "kept").unwrap();
    target.late();
    target.spot.unstage();
    assert!(staged.join("sub/moved").is_dir(), "it is another program's");
    assert!(
        target.spot.stays[0].1.contains("moved"),
        "{:?}",
        target.spot.stays
    );
    assert!(!staged.join("a").exists() && dir.path().exists());
}

#[test]
fn an_owner_or_a_list_that_was_changed_is_drift_too() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can give files away");
        return;
    }
    let (_dir, path) = live();
    let mut target = target(&path);
    let from = target.survey().unwrap();
    let to = changed(&from, with("a", "new"));
    target.stage(&to, "1").unwrap();
    let mut says = |wanted: &str| {
        let said = target
            .install(&from.sha256, &to, "1")
            .unwrap_err()
            .to_string();
        assert!(said.contains(wanted), "{said}");
    };
    chown(path.join("sub/deeper/x"), Some(7), None).unwrap();
    says("`sub/deeper/x` in it: uid 0 -> 7");
    chown(path.join("sub/deeper/x"), Some(0), None).unwrap();
    if fs::setxattr(path.join("sub"), "user.test", b"new", XattrFlags::empty()).is_ok() {
        says("`sub` in it: user.test none -> 6e6577");
    }
}

/// A list as the kernel keeps it: of the owner, of user 7, of the group, the mask, of others.
fn list(user: u16) -> Vec<u8> {
    let entry = |tag: u16, bits: u16, id: u32| {
        [
            &tag.to_le_bytes()[..],
            &bits.to_le_bytes(),
            &id.to_le_bytes(),
        ]
        .concat()
    };
    let none = u32::MAX;
    [
        2u32.to_le_bytes().to_vec(),
        entry(1, 6, none),
        entry(2, user, 7),
        entry(4, 4, none),
        entry(16, 6, none),
        entry(32, 4, none),
    ]
    .concat()
}

#[test]
fn owners_modes_and_attributes_are_those_of_the_live_ones() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can give files away");
        return;
    }
    let (_dir, path) = live();
    for (name, uid, mode) in [
        ("", 11, 0o2775),
        ("a", 12, 0o600),
        ("sub", 13, 0o711),
        ("sub/deeper/x", 14, 0o4755),
    ] {
        chown(path.join(name), Some(uid), Some(uid + 100)).unwrap();
        std::fs::set_permissions(path.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    lchown(path.join("link"), Some(15), Some(15)).unwrap();
    let set = |name: &str, key: &str, value: &[u8]| {
        fs::setxattr(path.join(name), key, value, XattrFlags::empty())
    };
    let get = |name: &str, key: &[u8]| {
        let mut value = [0; 256];
        fs::getxattr(path.join(name), key, &mut value[..])
            .map(|n| value[..n].to_vec())
            .ok()
    };
    let lists = set("", "system.posix_acl_default", &list(4)).is_ok()
        && set("a", "system.posix_acl_access", &list(2)).is_ok();
    let attributes = set("sub", "user.test", b"kept").is_ok();
    std::fs::set_permissions(path.join("a"), std::fs::Permissions::from_mode(0o640)).unwrap();
    let whose = |name: &str| {
        path.join(name)
            .symlink_metadata()
            .map(|m| (m.uid(), m.gid(), m.mode() & 0o7777))
            .unwrap()
    };
    let all = ["", "a", ODD, "link", "sub", "sub/deeper", "sub/deeper/x"];
    let before: Vec<_> = all
        .iter()
        .map(|name| (whose(name), LISTS.map(|key| get(name, key))))
        .collect();
    let mut target = target(&path);
    let from = target.read().unwrap();
    let inner = Tree {
        mode: 0o750,
        entries: [("y".into(), Node::File(0o604, b"y"[..].into()))].into(),
    };
    let to = changed(&from, |tree| {
        with("a", "new")(tree);
        with("z", "z")(tree);
        tree.entries
            .insert("added".into(), Node::Tree(inner.clone()));
        let Some(Node::Tree(sub)) = tree.entries.get_mut(OsStr::new("sub")) else {
            panic!("it is there")
        };
        sub.entries.insert("y".into(), Node::Link("x".into()));
    });
    target.stage(&to, "1").unwrap();
    target.install(&from.sha256, &to, "1").unwrap();
    let after: Vec<_> = all
        .iter()
        .map(|name| (whose(name), LISTS.map(|key| get(name, key))))
        .collect();
    assert_eq!(before, after);
    assert_eq!(
        get("sub", b"user.test").as_deref(),
        attributes.then_some(&b"kept"[..])
    );
    // New ones belong to the owner of the directory that they are in.
    assert_eq!(
        (whose("z"), whose("added"), whose("added/y")),
        ((11, 111, 0o640), (11, 111, 0o750), (11, 111, 0o604))
    );
    assert_eq!((whose("sub/y").0, whose("sub/y").1), (13, 113));
    assert_eq!(
        get("z", LISTS[0]).is_some(),
        lists,
        "a new one has the list that its directory gives"
    );
    assert_eq!(
        get(ODD, LISTS[0]),
        None,
        "an old one has it only where it had it"
    );
}

#[test]
fn what_cannot_be_replaced_is_refused_by_name() {
    let (dir, path) = live();
    let mut target = target(&path);
    let to = changed(&target.read().unwrap(), with("a", "new"));
    let says = |target: &mut TreeTarget, wanted: &str| {
        let said = target.stage(&to, "1").unwrap_err().to_string();
        assert!(said.contains(wanted) && said.contains("conf.d"), "{said}");
        assert!(
            beside(&dir).iter().all(|name| name == "other"),
            "nothing is left"
        );
    };
    std::fs::hard_link(path.join("sub/deeper/x"), dir.path().join("other")).unwrap();
    says(
        &mut target,
        "`sub/deeper/x` in it has more than one hard link",
    );
    std::fs::remove_file(dir.path().join("other")).unwrap();
    nix::unistd::mkfifo(&path.join("sub/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    says(
        &mut target,
        "`sub/pipe` in it is neither file, directory nor link",
    );
    std::fs::remove_file(path.join("sub/pipe")).unwrap();
    let file = File::open(path.join("empty")).unwrap();
    for flag in [fs::IFlags::IMMUTABLE, fs::IFlags::APPEND] {
        // Only root may, and only on some filesystems.
        let Ok(now) = fs::ioctl_getflags(&file) else {
            continue;
        };
        if fs::ioctl_setflags(&file, now | flag).is_ok() {
            let said = target.stage(&to, "1").unwrap_err().to_string();
            fs::ioctl_setflags(&file, now).unwrap();
            assert!(
                said.contains("`empty` in it is immutable or append-only"),
                "{said}"
            );
        }
    }
    assert!(target.stage(&to, "1").is_ok());
    assert!(matches!(
        target.stage(&Content::new(Vec::new()), "1"),
        Err(InstallError::Refused(..))
    ));
}

#[test]
fn what_an_entry_had_at_the_survey_is_what_a_staged_one_has_or_nothing_is_staged() {
    // Another mode, another owner, and none at all.
    let changes: [fn(&Path); 3] = [
        |a| std::fs::set_permissions(a, std::fs::Permissions::from_mode(0o604)).unwrap(),
        |a| chown(a, Some(7), None).unwrap_or_else(|_| std::fs::remove_file(a).unwrap()),
        |a| std::fs::remove_file(a).unwrap(),
    ];
    for change in changes {
        let (dir, path) = live();
        std::fs::set_permissions(path.join("a"), std::fs::Permissions::from_mode(0o600)).unwrap();
        let mut target = target(&path);
        let from = target.survey().unwrap();
        let to = changed(&from, with("b", "new"));
        change(&path.join("a"));
        assert!(target.stage(&to, "1").is_err());
        assert_eq!(beside(&dir), Vec::<OsString>::new());
    }
}
