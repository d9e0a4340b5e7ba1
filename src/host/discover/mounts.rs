//! The path in this mount namespace of a file in another one.

use std::path::{Path, PathBuf};

use crate::{
    host::exec::placeholders::inode,
    kernel::{Mount, Proc},
};

/// Returns this host's path of the file that the process `pid` sees at `path`; none if there is
/// none, or if both are the same.
pub(super) fn here(pid: i32, path: &Path) -> Option<PathBuf> {
    let seen = PathBuf::from(format!("/proc/{pid}/root")).join(path.strip_prefix("/").ok()?);
    let wanted = Some(inode(&seen)).filter(|found| *found != (0, 0))?;
    let theirs = Proc::open(pid).and_then(|process| process.mounts()).ok()?;
    // The innermost mount that the path lies in; of two at one place the later one is on top.
    let mount = theirs
        .iter()
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.components().count())?;
    // The process does not see the replacement of a file that is mounted alone.
    if mount.point == path {
        return None;
    }
    let source = mount.root.join(path.strip_prefix(&mount.point).ok()?);
    let ours = Proc::own().and_then(|own| own.mounts()).ok()?;
    let place = |own: &Mount| Some(own.point.join(source.strip_prefix(&own.root).ok()?));
    let same = ours
        .iter()
        .filter(|own| own.device == mount.device)
        .filter_map(place);
    same.filter(|own| own != path)
        .find(|own| inode(own) == wanted)
}
