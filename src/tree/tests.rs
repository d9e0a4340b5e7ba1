#![allow(clippy::unwrap_used, reason = "a test says so by failing")]
use std::{
    fs::File,
    io::Read,
    os::unix::fs::{PermissionsExt, symlink},
};

use proptest::prelude::*;

use super::*;
use crate::config::ReadError;

fn file(text: &str) -> Node {
    Node::File(0o644, text.as_bytes().into())
}

fn tree<const N: usize>(entries: [(&str, Node); N]) -> Tree {
    Tree {
        mode: 0o755,
        entries: entries
            .into_iter()
            .map(|(name, node)| (name.into(), node))
            .collect(),
    }
}

fn read(path: &Path) -> Result<Tree, ReadError> {
    Tree::read(&File::open(path).unwrap().into(), &mut |_, _| Ok(()))
}

/// Path, mode, link target and bytes.
type Unpacked = (Vec<u8>, u32, Vec<u8>, Vec<u8>);

/// Reads an archive with the `tar` crate alone.
fn unpacked(archive: &[u8]) -> Vec<Unpacked> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        let header = entry.header().clone();
        assert_eq!(
            (
                header.mtime().unwrap(),
                header.uid().unwrap(),
                header.gid().unwrap()
            ),
            (0, 0, 0)
        );
        entry.read_to_end(&mut bytes).unwrap();
        (
            entry.path_bytes().into_owned(),
            header.mode().unwrap(),
            entry.link_name_bytes().unwrap_or_default().into_owned(),
            bytes,
        )
    });
    entries.collect()
}

#[test]
fn an_archive_holds_everything_and_is_standard_tar() {
    let long = "n".repeat(255);
    let far = format!("{}/..//x", "../".repeat(60));
    let inner = Tree {
        mode: 0o2750,
        entries: [(long.clone().into(), file("x"))].into(),
    };
    let all = tree([
        ("a\nb c", file("1\n")),
        ("empty", file("")),
        ("l", Node::Link(far.clone().into())),
        ("sub", Node::Tree(inner)),
    ]);
    let archive = all.archive().unwrap();
    let want = [
        ("./", 0o755, "", ""),
        ("./a\nb c", 0o644, "", "1\n"),
        ("./empty", 0o644, "", ""),
        ("./l", 0o777, &far, ""),
        ("./sub/", 0o2750, "", ""),
        (&format!("./sub/{long}"), 0o644, "", "x"),
    ];
    let want: Vec<_> = want
        .into_iter()
        .map(|(p, m, l, b)| {
            (
                p.as_bytes().to_vec(),
                m,
                l.as_bytes().to_vec(),
                b.as_bytes().to_vec(),
            )
        })
        .collect();
    assert_eq!(unpacked(&archive), want);
    assert_eq!(archive, all.clone().archive().unwrap());
    assert_eq!(Tree::unpack(&archive).unwrap(), all);
    assert!(
        Tree::unpack(b"").is_err()
            && Tree::unpack(&archive[512..]).is_err()
            && Tree::unpack(&archive[..700]).is_err()
    );
}

#[test]
fn a_directory_is_read_with_links_and_modes() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir(at("sub")).unwrap();
    std::fs::write(at("sub/a"), "1").unwrap();
    symlink("/etc/shadow", at("l")).unwrap();
    symlink("sub", at("d")).unwrap();
    for (path, mode) in [(".", 0o755), ("sub", 0o700), ("sub/a", 0o640)] {
        std::fs::set_permissions(at(path), std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let sub = Tree {
        mode: 0o700,
        entries: [("a".into(), Node::File(0o640, b"1"[..].into()))].into(),
    };
    let wanted = tree([
        ("l", Node::Link("/etc/shadow".into())),
        ("d", Node::Link("sub".into())),
        ("sub", Node::Tree(sub)),
    ]);
    assert_eq!(read(dir.path()).unwrap(), wanted);
    assert_eq!(
        (wanted.is_public(), wanted.size()),
        (false, (4, "l/etc/shadowdsubsuba1".len() as u64))
    );
}

#[test]
fn the_entry_that_makes_a_directory_unacceptable_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let is_refused = |wanted: &str| {
        let why = read(dir.path()).unwrap_err().to_string();
        assert!(why.contains(wanted), "{why}");
    };
    let deep = dir.path().join("d/".repeat(MAX_DEPTH + 1));
    std::fs::create_dir_all(&deep).unwrap();
    is_refused("more than 64 directories deep");
    std::fs::remove_dir_all(dir.path().join("d")).unwrap();
    let fifo = dir.path().join("pi\npe");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    is_refused("`pi\\npe` in it is neither");
    std::fs::remove_file(&fifo).unwrap();
    for name in ["x", "y"] {
        std::fs::write(
            dir.path().join(name),
            vec![0; usize::try_from(MAX_TARGET).unwrap() / 2],
        )
        .unwrap();
    }
    is_refused("larger than");
    std::fs::remove_file(dir.path().join("x")).unwrap();
    for number in 0..MAX_ENTRIES {
        std::fs::write(dir.path().join(number.to_string()), "").unwrap();
    }
    is_refused("more than 10000 entries");
}

/// A live directory, and a new one to copy over it.
fn live_and_new() -> (Tree, Tree) {
    let live = tree([
        ("a", Node::File(0o600, b"old"[..].into())),
        ("sub", Node::Tree(tree([("x", file("x"))]))),
        ("gone", file("1")),
        ("l", Node::Link("a".into())),
    ]);
    let sub = Tree {
        mode: 0o700,
        ..tree([("y", file("y"))])
    };
    let new = tree([
        ("a", file("new")),
        ("sub", Node::Tree(sub)),
        ("l", file("no link")),
    ]);
    (live, new)
}

#[test]
fn an_overlay_keeps_modes_and_entries_that_are_not_new() {
    let (live, new) = live_and_new();
    let sub = Node::Tree(tree([("x", file("x")), ("y", file("y"))]));
    assert_eq!(
        live.overlaid(&new, false).unwrap(),
        tree([
            ("a", Node::File(0o600, b"new"[..].into())),
            ("sub", sub),
            ("gone", file("1")),
            ("l", file("no link"))
        ])
    );
}

#[test]
fn a_pruned_overlay_removes_entries_that_are_not_new() {
    let (live, new) = live_and_new();
    let pruned = live.overlaid(&new, true).unwrap();
    let sub = Node::Tree(tree([("y", file("y"))]));
    assert_eq!(
        pruned,
        tree([
            ("a", Node::File(0o600, b"new"[..].into())),
            ("sub", sub),
            ("l", file("no link"))
        ])
    );
    let differences: Vec<_> = live
        .differences(&pruned)
        .into_iter()
        .map(|d| {
            (
                d.path.display().to_string(),
                d.old.is_some(),
                d.new.is_some(),
            )
        })
        .collect();
    let wanted = [
        ("a", true, true),
        ("gone", true, false),
        ("l", true, true),
        ("sub/x", true, false),
        ("sub/y", false, true),
    ];
    assert_eq!(
        differences,
        wanted.map(|(path, old, new)| (path.to_owned(), old, new))
    );
}

#[test]
fn an_overlay_that_becomes_too_large_is_refused() {
    let half = |name: &str| {
        let bytes = vec![0; usize::try_from(MAX_TARGET).unwrap() / 2];
        tree([(name, Node::File(0o644, bytes.into()))])
    };
    let why = half("a").overlaid(&half("b"), false).unwrap_err();
    assert_eq!(why.why, OverlayError::TooLarge);
    assert!(half("a").overlaid(&half("b"), true).is_ok());
}

#[test]
fn a_file_replaces_a_directory_with_entries_only_if_pruned() {
    let (live, _) = live_and_new();
    let over = tree([("sub", file("no directory"))]);
    let why = live.overlaid(&over, false).unwrap_err();
    assert_eq!(why.why, OverlayError::NotEmpty("sub".into()));
    assert_eq!(why.hint.as_deref(), Some("to remove it, add --prune"));
    assert!(live.overlaid(&over, true).is_ok());
}

/// Small trees over few names, so that their entries collide.
fn trees() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        (0..3u8).prop_map(|n| file(&n.to_string())),
        (0..2u8).prop_map(|n| Node::Link(n.to_string().into()))
    ];
    let node = leaf.prop_recursive(3, 12, 3, |inner| {
        proptest::collection::btree_map((0..3u8).prop_map(|n| n.to_string().into()), inner, 0..3)
            .prop_map(|entries| {
                Node::Tree(Tree {
                    mode: 0o755,
                    entries,
                })
            })
    });
    proptest::collection::btree_map((0..3u8).prop_map(|n| n.to_string().into()), node, 0..3)
        .prop_map(|entries| Tree {
            mode: 0o755,
            entries,
        })
}

proptest! {
    #[test]
    fn archives_are_equal_if_trees_are(first in trees(), other in trees()) {
        prop_assert_eq!(first == other, first.archive().unwrap() == other.archive().unwrap());
        prop_assert_eq!(Tree::unpack(&first.archive().unwrap()).unwrap(), first.clone());
        prop_assert_eq!(first == other, first.differences(&other).is_empty());
    }

    #[test]
    fn a_pruned_overlay_is_the_new_tree_and_a_second_one_changes_nothing(
        live in trees(),
        new in trees(),
    ) {
        prop_assert_eq!(&live.overlaid(&new, true).unwrap(), &new);
        if let Ok(over) = live.overlaid(&new, false) {
            prop_assert_eq!(&over.overlaid(&new, false).unwrap(), &over);
            prop_assert!(over.differences(&new).iter().all(|d| d.new.is_none()));
        }
    }
}

#[test]
fn an_archive_with_a_name_that_leads_out_of_it_is_refused() {
    let outside = tree([("..", Node::Tree(tree([("passwd", file("x"))])))]);
    let archive = outside.archive().unwrap();
    let why = Tree::unpack(&archive).unwrap_err().to_string();
    assert!(why.contains("leads out"), "{why}");
}
