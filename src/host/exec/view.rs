//! A mount namespace in which every candidate stands at its live path.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{Gid, Uid, chdir, chroot, fchdir},
};
use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatVfsMountFlags, fstat, fstatvfs, open, openat, openat2, statat},
    mount::{MoveMountFlags, OpenTreeFlags, move_mount, open_tree},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::request::Bind;

/// This process's descriptors by number, for the system calls that take nothing but a path. It is opened before another
/// root is entered, in which `/proc` may be something else.
pub(super) struct Numbers(OwnedFd);

impl Numbers {
    pub(super) fn open() -> Result<Self, String> {
        let all = open("/proc/self/fd", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        all.map(Self).map_err(|e| format!("`/proc/self/fd`: {e}"))
    }
}

/// Whether a user namespace may be used where this user may not mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Users {
    Own,
    Callers,
}

/// Makes each of `binds` stand at its live path, for this process and its children alone, where no file gives another user or
/// group to the program that it is executed as.
///
/// # Errors
/// A sentence: no such view is to be had, or a path does not lead to what was surveyed.
pub(super) fn build(binds: &[Bind], numbers: &Numbers, users: Users, other_root: bool) -> Result<(), String> {
    let none = |e: Errno| format!("no mount namespace in which the new config could stand at its live path: {}", io::Error::from(e));
    match unshare(CloneFlags::CLONE_NEWNS) {
        Err(Errno::EPERM) if users == Users::Own => own_users().map_err(none)?,
        said => said.map_err(none)?,
    }
    keep_to_itself(numbers, other_root).map_err(|e| none(Errno::from_raw(e.raw_os_error().unwrap_or_default())))?;
    // All of them first: what is staged beside a live directory may be hidden by what is bound there.
    let staged = binds.iter().map(|bind| hold(&bind.from, bind.staged)).collect::<Result<Vec<_>, _>>()?;
    for (bind, staged) in binds.iter().zip(&staged) {
        let live = hold(&bind.to, bind.live)?;
        put(staged, &live, numbers).map_err(|e| none(Errno::from_raw(e.raw_os_error().unwrap_or_default())))?;
    }
    Ok(())
}

/// Makes no other namespace see what is mounted in this one from here on. The root directory of this process may be no mount
/// point: for that it enters the one that it is in once more, which leads to the root of all.
fn keep_to_itself(numbers: &Numbers, other_root: bool) -> io::Result<()> {
    let private = || mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>);
    if !other_root {
        return Ok(private()?);
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let (root, cwd) = (open("/", flags, Mode::empty())?, open(".", flags, Mode::empty())?);
    let space = openat(&numbers.0, "../ns/mnt", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Mount))?;
    private()?;
    fchdir(&root)?;
    chroot(".")?;
    Ok(fchdir(&cwd)?)
}

/// Opens what stands at a path that has no link in it, if it is the inode that was surveyed.
fn hold(path: &Path, inode: (u64, u64)) -> Result<OwnedFd, String> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let said = |why: String| format!("`{}`: {why}", path.display());
    let held = openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS).map_err(|e| said(e.to_string()))?;
    let stat = fstat(&held).map_err(|e| said(e.to_string()))?;
    if (stat.st_dev, stat.st_ino) != inode {
        return Err(said("is not what was surveyed".into()));
    }
    Ok(held)
}

/// Mounts `staged` on `live`, by descriptor alone.
fn put(staged: &OwnedFd, live: &OwnedFd, numbers: &Numbers) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(staged, "", flags)?;
    move_mount(&tree, "", live, "", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH)?;
    let has = fstatvfs(&tree)?.f_flag;
    let mut kept = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NOSUID;
    for (flag, same) in
        [(StatVfsMountFlags::RDONLY, MsFlags::MS_RDONLY), (StatVfsMountFlags::NODEV, MsFlags::MS_NODEV), (StatVfsMountFlags::NOEXEC, MsFlags::MS_NOEXEC)]
    {
        kept.set(same, has.contains(flag));
    }
    let here = open(".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    fchdir(&numbers.0)?;
    let mounted = mount(None::<&str>, tree.as_raw_fd().to_string().as_str(), None::<&str>, kept, None::<&str>);
    fchdir(&here)?;
    Ok(mounted?)
}

/// Enters the working directory once more: by its path where `binds` may have replaced it, since inside a directory that was
/// replaced the old one would still be seen. This user must be allowed to.
///
/// # Errors
/// A sentence: it may not be entered, or has no path here.
pub(super) fn enter_again(binds: &[Bind]) -> Result<(), String> {
    let failed = |path: &Path, e: Errno| format!("working directory `{}`: {}", path.display(), io::Error::from(e));
    let by_descriptor = || chdir(".").map_err(|e| failed(Path::new("."), e));
    if binds.is_empty() {
        return by_descriptor();
    }
    match rustix::process::getcwd(Vec::new()) {
        Ok(path) => {
            let path = PathBuf::from(OsString::from_vec(path.into_bytes()));
            if !path.is_absolute() {
                return Err(format!("its working directory `{}` has no path here", path.display()));
            }
            let place =
                || statat(CWD, ".", AtFlags::empty()).map(|stat| (stat.st_dev, stat.st_ino)).map_err(|e| failed(&path, Errno::from_raw(e.raw_os_error())));
            let held = place()?;
            chdir(&path).map_err(|e| failed(&path, e))?;
            // Its name may stand for another directory since it was asked for; only one that is bound is meant to be another.
            if binds.iter().any(|bind| path.starts_with(&bind.to)) || place()? == held {
                Ok(())
            } else {
                Err(format!("another directory stands at its working directory `{}` by now", path.display()))
            }
        }
        // It was removed: nothing can be in it any more, neither old nor new.
        Err(rustix::io::Errno::NOENT) => by_descriptor(),
        Err(e) => Err(format!("working directory: {e}")),
    }
}

/// A user namespace in which this user is itself, for a mount namespace that it may fill.
fn own_users() -> Result<(), Errno> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    // The kernel gives the files of a process that is closed to others to root.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable).map_err(|e| Errno::from_raw(e.raw_os_error()))?;
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
    let write = |path: &str, text: String| std::fs::write(path, text).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or_default()));
    // A process that has not given up changing groups may not name its own.
    write("/proc/self/setgroups", "deny".into())?;
    write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    write("/proc/self/uid_map", format!("{uid} {uid} 1"))
}
