//! The path in this mount namespace of a file in another one.

use std::path::{Path, PathBuf};

use procfs::process::{MountInfo, Process};

use crate::host::exec::placeholders::inode;

/// Returns this host's path of the file that the process `pid` sees at `path`; none if there is
/// none, or if both are the same.
pub(super) fn here(pid: i32, path: &Path) -> Option<PathBuf> {
    let seen = PathBuf::from(format!("/proc/{pid}/root")).join(path.strip_prefix("/").ok()?);
    let wanted = Some(inode(&seen)).filter(|found| *found != (0, 0))?;
    let theirs: Vec<MountInfo> = Process::new(pid)
        .ok()?
        .mountinfo()
        .ok()?
        .into_iter()
        .collect();
    // The innermost mount that the path lies in; of two at one place the later one is on top.
    let mount = theirs
        .iter()
        .filter(|mount| path.starts_with(&mount.mount_point))
        .max_by_key(|mount| mount.mount_point.components().count())?;
    // The process does not see the replacement of a file that is mounted alone.
    if mount.mount_point == path {
        return None;
    }
    let source = Path::new(&mount.root).join(path.strip_prefix(&mount.mount_point).ok()?);
    let ours: Vec<MountInfo> = Process::myself()
        .ok()?
        .mountinfo()
        .ok()?
        .into_iter()
        .collect();
    let place = |own: &MountInfo| Some(own.mount_point.join(source.strip_prefix(&own.root).ok()?));
    let same = ours
        .iter()
        .filter(|own| own.majmin == mount.majmin)
        .filter_map(place);
    same.filter(|own| own != path)
        .find(|own| inode(own) == wanted)
}
