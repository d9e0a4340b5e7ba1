//! The files of a target that are watched.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::sys::fanotify::{Fanotify, MarkFlags, MaskFlags};
use rustix::fs::{FileType, OFlags};

use crate::{
    step::TargetChange,
    tree::{Node, Tree},
};

/// Returns the new files of a change, or all of its files if none is new. An entry that was removed
/// or is a link is replaced by its directory, whose names are read again.
pub(super) fn marked_files(change: &TargetChange) -> Vec<PathBuf> {
    let Some(tree) = &change.to.tree else {
        return vec![change.path.clone()];
    };
    let empty = Tree {
        mode: tree.mode,
        entries: BTreeMap::new(),
    };
    let from = change
        .from
        .as_ref()
        .filter(|from| from.sha256 != change.to.sha256)
        .and_then(|from| from.tree.as_deref());
    let mut files = vec![];
    for difference in from.unwrap_or(&empty).differences(tree) {
        let path = change.path.join(&difference.path);
        match difference.new {
            Some(Node::File(..)) => files.push(path),
            Some(Node::Tree(_)) => {}
            Some(Node::Link(_)) | None => files.extend(
                path.ancestors()
                    .skip(1)
                    .find(|dir| dir.is_dir())
                    .map(Path::to_owned),
            ),
        }
    }
    if files.is_empty() {
        files.push(change.path.clone());
    }
    files
}

/// Marks a file or directory. Returns its device and inode.
pub(super) fn mark(fanotify: &Fanotify, path: &Path) -> io::Result<(u64, u64)> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits())
        .map_err(io::Error::other)?;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let status = file.metadata()?;
    if !matches!(
        FileType::from_raw_mode(status.mode()),
        FileType::RegularFile | FileType::Directory
    ) {
        return Err(io::Error::other("is neither a file nor a directory"));
    }
    fanotify.mark(
        MarkFlags::FAN_MARK_ADD,
        MaskFlags::FAN_OPEN | MaskFlags::FAN_ONDIR,
        &file,
        None::<&Path>,
    )?;
    Ok((status.dev(), status.ino()))
}
