//! Reads the directory of a target, with the attributes of its entries.

use std::{ffi::OsStr, io, os::fd::OwnedFd, path::Path};

use rustix::fs::{FileType, Statx, StatxAttributes};

use crate::{
    config::{ReadError, Unacceptable},
    host::target::install::{entries::Entries, slot::Snapshot, stat::BlockingAttribute},
    step::Content,
    tree::{Tree, kind, named_in, open, status},
};

/// Returns the reason that an entry is refused; none if it is not.
type Refuse = fn(&Statx) -> Option<BlockingAttribute>;

/// Reads a directory. A mount in it is refused, because it would be copied or deleted; an entry
/// that `refuse` refuses is too.
pub(super) fn read(dir: &OwnedFd, refuse: Refuse) -> Result<Tree, ReadError> {
    Tree::read(dir, &mut check(dir, refuse)?)
}

/// Reads a directory with the attributes of every entry. A mount in it is refused.
pub(super) fn read_with_entries(dir: &OwnedFd) -> Result<(Tree, Entries), ReadError> {
    let mut entries = Entries::default();
    let tree = Tree::read_visiting(dir, &mut check(dir, |_| None)?, &mut |path, stat, file| {
        entries.add(path, stat, file)
    })?;
    Ok((tree, entries))
}

fn check(
    dir: &OwnedFd,
    refuse: Refuse,
) -> io::Result<impl FnMut(&Path, &Statx) -> Result<(), Unacceptable>> {
    let device = |stat: &Statx| (stat.stx_dev_major, stat.stx_dev_minor);
    let outer = status(dir, OsStr::new("")).map(|stat| device(&stat))?;
    Ok(move |path: &Path, stat: &Statx| {
        // A layered filesystem shows the device of a layer for a file, so only directories count.
        let is_foreign = kind(stat) == FileType::Directory && device(stat) != outer;
        let is_mount = is_foreign || stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
        let why = if is_mount {
            Some(BlockingAttribute::MountPoint)
        } else {
            refuse(stat)
        };
        why.map_or(Ok(()), |why| {
            Err(Unacceptable::Entry(named_in(path), why.text()))
        })
    })
}

pub(super) fn digest_of(dir: &OwnedFd, name: &OsStr) -> Option<String> {
    let tree = read(&open(dir, name).ok()?, |_| None).ok()?;
    Some(Content::from_tree(tree).ok()?.sha256)
}

pub(super) fn snapshot(dir: &OwnedFd, name: &OsStr) -> Option<Snapshot> {
    let fd = open(dir, name).ok()?;
    let (tree, entries) = read_with_entries(&fd).ok()?;
    let Content { sha256, tree, .. } = Content::from_tree(tree).ok()?;
    Some(Snapshot {
        sha256,
        entries,
        fd,
        tree,
    })
}
