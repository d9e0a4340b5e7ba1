//! The system calls of mounts and overlay filesystems.

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use nix::mount::{MsFlags, mount};
use rustix::{
    fs::{
        Access, AtFlags, CWD, Gid, Mode, OFlags, ResolveFlags, StatVfsMountFlags, StatxFlags, Uid,
        XattrFlags, accessat, fchmod, fchown, fsetxattr, fstat, fstatvfs, getxattr, openat2, statx,
    },
    mount::{
        FsOpenFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
        fsconfig_set_string, fsopen, move_mount, open_tree,
    },
};

/// The flags that open a file of any kind to mount on it or to name it, not to read it.
pub(super) const PATH_ONLY: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Adds the flags `added` to those of a mount. The working directory of this process must be
/// `/proc/self/fd`.
pub(super) fn remount(tree: &OwnedFd, added: MsFlags) -> io::Result<()> {
    let present = fstatvfs(tree)?.f_flag;
    let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | added;
    for (flag, same) in [
        (StatVfsMountFlags::RDONLY, MsFlags::MS_RDONLY),
        (StatVfsMountFlags::NODEV, MsFlags::MS_NODEV),
        (StatVfsMountFlags::NOEXEC, MsFlags::MS_NOEXEC),
        (StatVfsMountFlags::NOSUID, MsFlags::MS_NOSUID),
    ] {
        flags.set(same, present.contains(flag) || added.contains(same));
    }
    Ok(mount(
        None::<&str>,
        tree.as_raw_fd().to_string().as_str(),
        None::<&str>,
        flags,
        None::<&str>,
    )?)
}

/// Opens the file at a path that has no link in it.
pub(super) fn open_path(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat2(
        CWD,
        path,
        PATH_ONLY,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )?)
}

/// Returns another mount of the same file or directory, not yet attached.
pub(super) fn clone_mount(source: &OwnedFd, flags: OpenTreeFlags) -> io::Result<OwnedFd> {
    Ok(open_tree(
        source,
        "",
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | flags,
    )?)
}

/// Attaches a mount to a file or directory.
pub(super) fn attach(tree: &OwnedFd, handle: &OwnedFd) -> io::Result<()> {
    Ok(move_mount(
        tree,
        "",
        handle,
        "",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )?)
}

/// Creates an overlay filesystem of a lower, an upper and a work directory.
///
/// In a user namespace the kernel may set user extended attributes only, so `user_attributes`
/// stores the marks of the overlay in these (`userxattr`, Documentation/filesystems/overlayfs).
pub(super) fn overlay(dirs: [&OwnedFd; 3], user_attributes: bool) -> io::Result<OwnedFd> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, "source", "hello")?;
    for (key, dir) in ["lowerdir", "upperdir", "workdir"].into_iter().zip(dirs) {
        // The number is a path relative to `/proc/self/fd`, and leads to the open directory.
        fsconfig_set_string(&fs, key, dir.as_raw_fd().to_string())?;
    }
    if user_attributes {
        fsconfig_set_flag(&fs, "userxattr")?;
    }
    fsconfig_create(&fs)?;
    Ok(fs)
}

/// Gives the directory `upper` the owners, mode and access control lists of `lower`.
pub(super) fn copy_access(upper: &OwnedFd, lower: &OwnedFd) -> io::Result<()> {
    let stat = fstat(lower)?;
    let mut mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    if fchown(
        upper,
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )
    .is_err()
    {
        // The directory then belongs to this user, which must not gain access.
        for (access, bits) in [
            (Access::WRITE_OK, 0o222),
            (Access::READ_OK, 0o444),
            (Access::EXEC_OK, 0o111),
        ] {
            let may = accessat(lower, ".", access, AtFlags::EACCESS).is_ok();
            mode = if may {
                mode | Mode::from_raw_mode(bits & 0o700)
            } else {
                mode - Mode::from_raw_mode(bits)
            };
        }
    }
    fchmod(upper, mode)?;
    for name in ["system.posix_acl_access", "system.posix_acl_default"] {
        let mut value = vec![0; 64 << 10];
        if let Ok(length) = getxattr(lower.as_raw_fd().to_string(), name, value.as_mut_slice()) {
            let _ = fsetxattr(upper, name, &value[..length], XattrFlags::empty());
        }
    }
    Ok(())
}

/// Returns the id of the mount that the file is opened through.
pub(super) fn mount_id(fd: &OwnedFd) -> io::Result<u64> {
    let stat = statx(
        fd,
        OsStr::from_bytes(b""),
        AtFlags::EMPTY_PATH,
        StatxFlags::MNT_ID,
    )?;
    if stat.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        return Err(io::Error::other(
            "this kernel does not report the mount of a file",
        ));
    }
    Ok(stat.stx_mnt_id)
}
