//! Owners, modes and xattrs of the entries of a directory.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown};

use rustix::fs::{self, XattrFlags};

use super::{super::*, ODD, changed, live, other_entries, target, with_file};
use crate::host::target::install::entries::ACL_XATTRS;

#[test]
fn a_changed_owner_or_xattr_is_drift() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can give files away");
        return;
    }
    let (_dir, path) = live();
    let mut target = target(&path);
    let from = target.survey().unwrap();
    let to = changed(&from, with_file("a", "new"));
    target.stage(&to, "1").unwrap();
    let mut is_refused = |wanted: &str| {
        let why = target
            .install(&from.sha256, &to, "1")
            .unwrap_err()
            .to_string();
        assert!(why.contains(wanted), "{why}");
    };
    chown(path.join("sub/deeper/x"), Some(7), None).unwrap();
    is_refused("`sub/deeper/x` in it: uid 0 -> 7");
    chown(path.join("sub/deeper/x"), Some(0), None).unwrap();
    if fs::setxattr(path.join("sub"), "user.test", b"new", XattrFlags::empty()).is_ok() {
        is_refused("`sub` in it: user.test none -> 6e6577");
    }
}

/// Returns an access-control list in the format of the kernel: the owner, user 7, the group, the
/// mask and others.
fn acl(user: u16) -> Vec<u8> {
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

fn set_xattr(path: &Path, key: impl rustix::path::Arg, value: &[u8]) -> bool {
    fs::setxattr(path, key, value, XattrFlags::empty()).is_ok()
}

fn xattr(path: &Path, key: impl rustix::path::Arg) -> Option<Vec<u8>> {
    let mut value = [0; 256];
    let size = fs::getxattr(path, key, &mut value[..]).ok()?;
    Some(value[..size].to_vec())
}

/// Returns uid, gid and permission bits.
fn owner_and_mode(path: &Path) -> (u32, u32, u32) {
    let meta = path.symlink_metadata().unwrap();
    (meta.uid(), meta.gid(), meta.mode() & 0o7777)
}

/// Gives the entries of the live directory different owners and modes. Returns whether the
/// filesystem keeps access-control lists, and whether it keeps xattrs of users.
fn set_attributes(path: &Path) -> (bool, bool) {
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
    let has_acls = set_xattr(&path.join(""), "system.posix_acl_default", &acl(4))
        && set_xattr(&path.join("a"), "system.posix_acl_access", &acl(2));
    let has_xattrs = set_xattr(&path.join("sub"), "user.test", b"kept");
    std::fs::set_permissions(path.join("a"), std::fs::Permissions::from_mode(0o640)).unwrap();
    (has_acls, has_xattrs)
}

/// Adds files, a directory and a link.
fn add_entries(tree: &mut Tree) {
    with_file("a", "new")(tree);
    with_file("z", "z")(tree);
    let inner = Tree {
        mode: 0o750,
        entries: [("y".into(), Node::File(0o604, b"y"[..].into()))].into(),
    };
    tree.entries.insert("added".into(), Node::Tree(inner));
    let Some(Node::Tree(sub)) = tree.entries.get_mut(OsStr::new("sub")) else {
        panic!("it is a directory")
    };
    sub.entries.insert("y".into(), Node::Link("x".into()));
}

#[test]
fn entries_keep_their_attributes_and_new_ones_get_those_of_their_directory() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can give files away");
        return;
    }
    let (_dir, path) = live();
    let (has_acls, has_xattrs) = set_attributes(&path);
    let attributes = || {
        ["", "a", ODD, "link", "sub", "sub/deeper", "sub/deeper/x"].map(|name| {
            let path = path.join(name);
            let acls = ACL_XATTRS.map(|key| xattr(&path, key));
            (owner_and_mode(&path), acls)
        })
    };
    let before = attributes();
    let mut target = target(&path);
    let from = target.read().unwrap();
    let to = changed(&from, add_entries);
    target.stage(&to, "1").unwrap();
    target.install(&from.sha256, &to, "1").unwrap();
    assert_eq!(attributes(), before);
    let sub = xattr(&path.join("sub"), "user.test");
    assert_eq!(sub.as_deref(), has_xattrs.then_some(&b"kept"[..]));
    // A new entry gets the owner of its directory.
    for (name, wanted) in [
        ("z", (11, 111, 0o640)),
        ("added", (11, 111, 0o750)),
        ("added/y", (11, 111, 0o604)),
        ("sub/y", (13, 113, 0o777)),
    ] {
        assert_eq!(owner_and_mode(&path.join(name)), wanted, "{name}");
    }
    // A new entry gets the list of its directory; an old entry has one only if it had one before.
    assert_eq!(xattr(&path.join("z"), ACL_XATTRS[0]).is_some(), has_acls);
    assert_eq!(xattr(&path.join(ODD), ACL_XATTRS[0]), None);
}

#[test]
fn nothing_is_staged_if_an_entry_has_changed_since_the_survey() {
    // Another mode, another owner, and no entry at all.
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
        let to = changed(&from, with_file("b", "new"));
        change(&path.join("a"));
        assert!(target.stage(&to, "1").is_err());
        assert_eq!(other_entries(&dir), Vec::<OsString>::new());
    }
}
