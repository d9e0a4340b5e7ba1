//! Layers over every filesystem that a command may write to: all writes go to memory, at most 64
//! MiB, and end with it.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    unistd::{chroot, fchdir},
};
use rustix::{
    fs::{
        Access, AtFlags, CWD, Gid, Mode, OFlags, ResolveFlags, StatVfsMountFlags, StatxFlags, Uid,
        XattrFlags, accessat, fchmod, fchown, fsetxattr, fstat, fstatvfs, getxattr, mkdirat, open,
        openat, openat2, statx, symlinkat,
    },
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
        fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
    },
};

use super::{
    mounts::{Mount, Use, visible},
    numbers::Numbers,
};

/// The most that the writes of one command may take, as tmpfs reads it.
const SIZE: &str = "64m";
/// The most files and directories that they may make or change.
const INODES: &str = "65536";

/// The most bytes of files in the root directory that are copied; a further one is read-only.
const FILES: u64 = 8 << 20;

/// How deep directories of this user are looked for where the directories above are not its own:
/// `/var/lib/NAME`.
const DEPTH: usize = 3;

/// A directory, or anything, as a place.
pub(super) const PLACE: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// What is allowed of a mount besides what it is mounted over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setuid {
    AsBelow,
    Never,
}

/// The layers of one command. Its process must stand in the directory of its descriptors.
#[derive(Debug)]
pub(super) struct Layers<'a> {
    numbers: &'a Numbers,
    /// The filesystem in memory.
    pub(super) store: OwnedFd,
    /// The number of each mount that discards.
    made: Vec<u64>,
    /// What was mounted before.
    mounts: Vec<Mount>,
    /// Directories in which something is written.
    wanted: Vec<PathBuf>,
    /// The working directory, where its path may lead elsewhere by now; covered, once everything
    /// is.
    pub(super) cwd: Option<(PathBuf, OwnedFd)>,
    /// How many files stand in for others.
    files: usize,
}

impl<'a> Layers<'a> {
    /// Makes the filesystem in memory, and hides it behind the root directory.
    ///
    /// # Errors
    /// Fails if this process may not mount.
    pub(super) fn new(numbers: &'a Numbers) -> io::Result<Self> {
        let mounts = visible(&numbers.0)?;
        let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, value) in [("size", SIZE), ("nr_inodes", INODES), ("mode", "0700")] {
            fsconfig_set_string(&fs, key, value)?;
        }
        fsconfig_create(&fs)?;
        let store = fsmount(
            &fs,
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV,
        )?;
        attach(&store, &open("/", PLACE, Mode::empty())?)?;
        Ok(Self {
            numbers,
            store,
            made: Vec::new(),
            mounts,
            wanted: Vec::new(),
            cwd: None,
            files: 0,
        })
    }

    /// Covers everything that can be written to; something is written in each of the directories
    /// `wanted`. The root directory of this process is another one afterwards.
    ///
    /// # Errors
    /// Fails if something can be written to and not be covered.
    pub(super) fn cover(&mut self, wanted: Vec<PathBuf>) -> Result<(), String> {
        self.wanted = wanted;
        // One that this user cannot reach, no command of it can.
        let reached = std::mem::take(&mut self.mounts)
            .into_iter()
            .filter_map(|mount| at(&mount.path).ok().map(|fd| (mount, fd)));
        let held: Vec<(Mount, OwnedFd)> = reached.collect();
        let root = open("/", PLACE, Mode::empty()).map_err(|e| format!("`/`: {e}"))?;
        match self.layer(&root, Setuid::AsBelow) {
            Ok(layer) => self.whole(&layer, &held),
            // Mounts of another user namespace can only be seen together.
            Err(_) => {
                let mounts: Vec<&Mount> = held.iter().map(|(mount, _)| mount).collect();
                self.parts(Path::new("/"), &mounts)?;
                self.part_of_cwd(&mounts)
            }
        }
    }

    /// Puts a layer over the working directory, where it is held.
    fn part_of_cwd(&mut self, mounts: &[&Mount]) -> Result<(), String> {
        let Some((path, dir)) = self.cwd.take() else {
            return Ok(());
        };
        if mounts.iter().any(|mount| mount.path.starts_with(&path)) {
            return Err(format!(
                "`{}`: its path can be led elsewhere, and something is mounted inside it",
                path.display()
            ));
        }
        let how = |e: io::Error| format!("`{}`: {e}", path.display());
        let layer = self.layer(&dir, Setuid::AsBelow).map_err(how)?;
        attach(&layer, &at(&path).map_err(how)?).map_err(how)?;
        self.cwd = Some((path, layer));
        Ok(())
    }

    /// Puts a layer over the root directory, and over each mount in its place below that.
    fn whole(&mut self, root: &OwnedFd, held: &[(Mount, OwnedFd)]) -> Result<(), String> {
        let failed = |e: io::Error| format!("`/`: {e}");
        // Attached out of sight: this process alone makes it its root.
        mkdirat(&self.store, "root", Mode::RWXU).map_err(|e| failed(e.into()))?;
        let place =
            openat(&self.store, "root", PLACE, Mode::empty()).map_err(|e| failed(e.into()))?;
        attach(root, &place).map_err(failed)?;
        let mut kept = Vec::new();
        for (mount, fd) in held
            .iter()
            .filter(|(mount, _)| mount.path != Path::new("/"))
        {
            let how = |e: io::Error| format!("`{}`: {e}", mount.path.display());
            let layer = if mount.used == Use::Covered {
                self.layer(fd, Setuid::AsBelow).ok()
            } else {
                None
            };
            kept.push(match layer {
                Some(layer) => (mount.path.as_path(), layer, Use::Covered),
                None => (
                    mount.path.as_path(),
                    copy(fd, OpenTreeFlags::empty()).map_err(how)?,
                    if mount.used == Use::Kept {
                        Use::Kept
                    } else {
                        Use::ReadOnly
                    },
                ),
            });
        }
        let cwd = self.cwd.take();
        if let Some((path, dir)) = &cwd {
            let how = |e: io::Error| format!("`{}`: {e}", path.display());
            let layer = self.layer(dir, Setuid::AsBelow).map_err(how)?;
            self.cwd = Some((path.clone(), layer.try_clone().map_err(how)?));
            // Before whatever is mounted inside it.
            let place = kept
                .iter()
                .position(|(mount, ..)| mount.starts_with(path) && mount != path)
                .unwrap_or(kept.len());
            kept.insert(place, (path, layer, Use::Covered));
        }
        self.step_into(root).map_err(failed)?;
        for (path, tree, used) in kept {
            let how = |e: io::Error| format!("`{}`: {e}", path.display());
            attach(&tree, &at(path).map_err(how)?).map_err(how)?;
            if used == Use::ReadOnly {
                self.read_only(&tree).map_err(how)?;
            }
        }
        Ok(())
    }

    fn step_into(&self, root: &OwnedFd) -> io::Result<()> {
        fchdir(root)?;
        chroot(".")?;
        Ok(fchdir(&self.numbers.0)?)
    }

    /// Puts a layer over every directory below `path` that no mount stands in; what lies beside
    /// mounts becomes read-only, as far as this user could write to it at all.
    fn parts(&mut self, path: &Path, mounts: &[&Mount]) -> Result<(), String> {
        let how = |e: io::Error| format!("`{}`: {e}", path.display());
        let below: Vec<&Mount> = mounts
            .iter()
            .filter(|mount| mount.path != path && mount.path.starts_with(path))
            .copied()
            .collect();
        let used = match mounts.iter().find(|mount| mount.path == path) {
            Some(mount) => mount.used,
            // Devices are no files in a layer of an ordinary user.
            None if path == Path::new("/dev") => Use::Kept,
            None => Use::Covered,
        };
        let Ok(fd) = at(path) else { return Ok(()) };
        let writable =
            accessat(&fd, ".", Access::WRITE_OK, AtFlags::EACCESS).is_ok() || used == Use::ReadOnly;
        match (used, below.is_empty()) {
            (Use::Kept, _) => return self.next_parts(path, Vec::new(), &below),
            (Use::Covered, true) => match self.nested(path, &fd) {
                Ok(()) => return Ok(()),
                Err(e) if e.raw_os_error() == Some(Errno::EACCES as i32) && !writable => {
                    return Ok(());
                }
                Err(_) => {}
            },
            _ => {}
        }
        if writable || below.is_empty() {
            if path == Path::new("/") {
                self.own_root(&fd).map_err(how)?;
                let names = directories(path);
                return self.next_parts(path, names, &below);
            }
            let tree = copy(&fd, OpenTreeFlags::AT_RECURSIVE).map_err(how)?;
            attach(&tree, &fd).map_err(how)?;
            self.read_only(&tree).map_err(how)?;
        }
        if below.is_empty() {
            return Ok(());
        }
        self.next_parts(path, directories(path), &below)
    }

    /// Makes a directory in memory the root of this process. What stands in the root directory
    /// until now stands in it.
    fn own_root(&mut self, root: &OwnedFd) -> io::Result<()> {
        mkdirat(&self.store, "root", Mode::RWXU)?;
        let own = openat(
            &self.store,
            "root",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        like(&own, root)?;
        let mut files = 0;
        for entry in std::fs::read_dir("/")?.flatten() {
            let (name, kind, from) = (entry.file_name(), entry.file_type()?, at(&entry.path()));
            if kind.is_symlink() {
                symlinkat(std::fs::read_link(entry.path())?, &own, &name)?;
                continue;
            }
            // What this user cannot reach is not missed.
            let Ok(from) = from else { continue };
            if kind.is_dir() {
                mkdirat(&own, &name, Mode::RWXU)?;
            } else {
                openat(
                    &own,
                    &name,
                    OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC,
                    Mode::RUSR,
                )?;
            }
            let size = u64::try_from(fstat(&from)?.st_size).unwrap_or(u64::MAX);
            if kind.is_file() && files + size <= FILES {
                files += size;
                self.copied(&from, &own, &name)?;
                continue;
            }
            let tree = copy(&from, OpenTreeFlags::AT_RECURSIVE)?;
            attach(&tree, &openat(&own, &name, PLACE, Mode::empty())?)?;
            if kind.is_file() {
                self.read_only(&tree)?;
            }
        }
        self.made.push(mount_of(&own)?);
        self.step_into(&own)
    }

    /// Writes what is in the file `from` to the file `name` in `dir`, with the same owners and mode
    /// as far as this user may.
    fn copied(&self, from: &OwnedFd, dir: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let stat = fstat(from)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let into = openat(dir, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut mode = Mode::from_raw_mode(stat.st_mode & 0o777);
        match openat(
            &self.numbers.0,
            from.as_raw_fd().to_string(),
            flags,
            Mode::empty(),
        ) {
            Ok(content) => {
                _ = io::copy(&mut File::from(content), &mut File::from(into.try_clone()?))?
            }
            // This user may not read it, and no command of it can.
            Err(_) => mode = Mode::empty(),
        }
        let _ = fchown(
            &into,
            Some(Uid::from_raw(stat.st_uid)),
            Some(Gid::from_raw(stat.st_gid)),
        );
        Ok(fchmod(&into, mode)?)
    }

    /// Puts a layer over a directory, and one over each directory in it that this user may write
    /// to: what stands in a directory of another user cannot be changed in a layer of that.
    fn nested(&mut self, path: &Path, fd: &OwnedFd) -> io::Result<()> {
        let mut own = Vec::new();
        if !is_own(fd) {
            own_below(path, &mut own);
        }
        own.extend(
            self.wanted
                .iter()
                .filter(|dir| *dir != path && dir.starts_with(path))
                .cloned(),
        );
        own.sort_unstable();
        own.dedup();
        let own: Vec<(PathBuf, OwnedFd)> = own
            .into_iter()
            .filter_map(|dir| at(&dir).ok().map(|fd| (dir, fd)))
            .collect();
        attach(&self.layer(fd, Setuid::AsBelow)?, fd)?;
        for (dir, fd) in own {
            // Without one of its own it is covered by the layer above.
            if let Ok(layer) = self.layer(&fd, Setuid::AsBelow) {
                attach(&layer, &at(&dir)?)?;
            }
        }
        Ok(())
    }

    /// The same of `inside`, and of what leads to the mounts `below`.
    fn next_parts(
        &mut self,
        path: &Path,
        mut inside: Vec<PathBuf>,
        below: &[&Mount],
    ) -> Result<(), String> {
        let depth = path.components().count();
        inside.extend(
            below
                .iter()
                .map(|mount| mount.path.components().take(depth + 1).collect::<PathBuf>()),
        );
        inside.sort_unstable();
        inside.dedup();
        inside.iter().try_for_each(|next| self.parts(next, below))
    }

    /// A layer over the directory `lower`, not yet attached.
    ///
    /// # Errors
    /// Fails if the filesystem cannot be covered, or this process may not.
    pub(super) fn layer(&mut self, lower: &OwnedFd, setuid: Setuid) -> io::Result<OwnedFd> {
        let made = (self.made.len() + 1).to_string();
        let names = [format!("{made}.upper"), format!("{made}.work")];
        let mut dirs = Vec::new();
        for name in &names {
            match mkdirat(&self.store, name.as_str(), Mode::RWXU) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(e) => return Err(e.into()),
            }
            dirs.push(openat(
                &self.store,
                name.as_str(),
                OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )?);
        }
        like(&dirs[0], lower)?;
        let layer = overlay([lower, &dirs[0], &dirs[1]], false)
            .or_else(|_| overlay([lower, &dirs[0], &dirs[1]], true))?;
        let has = fstatvfs(lower)?.f_flag;
        let mut attributes = MountAttrFlags::empty();
        for (flag, same) in [
            (StatVfsMountFlags::RDONLY, MountAttrFlags::MOUNT_ATTR_RDONLY),
            (StatVfsMountFlags::NODEV, MountAttrFlags::MOUNT_ATTR_NODEV),
            (StatVfsMountFlags::NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC),
            (StatVfsMountFlags::NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID),
        ] {
            attributes.set(same, has.contains(flag));
        }
        if setuid == Setuid::Never {
            attributes |= MountAttrFlags::MOUNT_ATTR_NOSUID;
        }
        let mounted = fsmount(&layer, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        self.made.push(mount_of(&mounted)?);
        Ok(mounted)
    }

    /// Whether what is written to this is discarded.
    pub(super) fn covers(&self, fd: &OwnedFd) -> bool {
        mount_of(fd).is_ok_and(|number| self.made.contains(&number))
    }

    /// Opens for writing what stands at `path` now, empty; only where that is discarded.
    ///
    /// # Errors
    /// Fails if it is not covered, is no regular file, or may not be written.
    pub(super) fn emptied(&self, path: &Path) -> io::Result<OwnedFd> {
        let place = at(path)?;
        if !self.covers(&place) {
            return Err(io::Error::other("is not covered"));
        }
        if rustix::fs::FileType::from_raw_mode(fstat(&place)?.st_mode)
            != rustix::fs::FileType::RegularFile
        {
            return Err(io::Error::other("is no file"));
        }
        let flags =
            OFlags::WRONLY | OFlags::TRUNC | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(openat(
            &self.numbers.0,
            place.as_raw_fd().to_string(),
            flags,
            Mode::empty(),
        )?)
    }

    /// Opens a file for writing that stands at `path` for this process alone, empty, where what
    /// stands there cannot be emptied: a user namespace does not know its group.
    ///
    /// # Errors
    /// Fails if nothing covers what stands there.
    pub(super) fn replaced(&mut self, path: &Path) -> io::Result<OwnedFd> {
        if let Ok(file) = self.emptied(path) {
            return Ok(file);
        }
        let place = at(path)?;
        if !self.covers(&place) {
            return Err(io::Error::other("is not covered"));
        }
        self.files += 1;
        let name = format!("{}.file", self.files);
        let file = openat(
            &self.store,
            name.as_str(),
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::RUSR | Mode::WUSR,
        )?;
        fchmod(&file, Mode::from_raw_mode(fstat(&place)?.st_mode & 0o777))?;
        attach(
            &copy(
                &openat(&self.store, name.as_str(), PLACE, Mode::empty())?,
                OpenTreeFlags::empty(),
            )?,
            &place,
        )?;
        Ok(file)
    }

    /// Makes a mount of this process alone read-only.
    pub(super) fn read_only(&self, tree: &OwnedFd) -> io::Result<()> {
        remount(tree, MsFlags::MS_RDONLY)
    }
}

/// The directories in one, as far as this user may look into it.
fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Whether this user owns a directory, or may write to it.
fn is_own(dir: &OwnedFd) -> bool {
    let owner = fstat(dir).map(|stat| stat.st_uid);
    owner == Ok(rustix::process::geteuid().as_raw())
        || accessat(dir, ".", Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

/// The topmost directories below `path` that this user owns or may write to, down to `/A/B/C`.
fn own_below(path: &Path, own: &mut Vec<PathBuf>) {
    if path.components().count() > DEPTH {
        return;
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    for dir in entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
    {
        match at(&dir) {
            Ok(fd) if is_own(&fd) => own.push(dir),
            Ok(_) => own_below(&dir, own),
            Err(_) => {}
        }
    }
}

/// Gives a mount further flags beside those that it has. This process stands in the directory of
/// its descriptors.
pub(super) fn remount(tree: &OwnedFd, more: MsFlags) -> io::Result<()> {
    let has = fstatvfs(tree)?.f_flag;
    let mut flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | more;
    for (flag, same) in [
        (StatVfsMountFlags::RDONLY, MsFlags::MS_RDONLY),
        (StatVfsMountFlags::NODEV, MsFlags::MS_NODEV),
        (StatVfsMountFlags::NOEXEC, MsFlags::MS_NOEXEC),
        (StatVfsMountFlags::NOSUID, MsFlags::MS_NOSUID),
    ] {
        flags.set(same, has.contains(flag) || more.contains(same));
    }
    Ok(mount(
        None::<&str>,
        tree.as_raw_fd().to_string().as_str(),
        None::<&str>,
        flags,
        None::<&str>,
    )?)
}

/// What stands at a path that has no link in it.
pub(super) fn at(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat2(
        CWD,
        path,
        PLACE,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )?)
}

/// A mount of the same, not yet attached.
pub(super) fn copy(of: &OwnedFd, more: OpenTreeFlags) -> io::Result<OwnedFd> {
    Ok(open_tree(
        of,
        "",
        OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | more,
    )?)
}

pub(super) fn attach(tree: &OwnedFd, at: &OwnedFd) -> io::Result<()> {
    Ok(move_mount(
        tree,
        "",
        at,
        "",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )?)
}

/// A filesystem of what is below, what is written, and what the kernel needs for that. In a user
/// namespace of its own it keeps its marks in attributes of users.
fn overlay(dirs: [&OwnedFd; 3], marks_of_users: bool) -> io::Result<OwnedFd> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, "source", "hello")?;
    for (key, dir) in ["lowerdir", "upperdir", "workdir"].into_iter().zip(dirs) {
        // Relative to the directory of the descriptors: each leads to what is held open.
        fsconfig_set_string(&fs, key, dir.as_raw_fd().to_string())?;
    }
    if marks_of_users {
        fsconfig_set_flag(&fs, "userxattr")?;
    }
    fsconfig_create(&fs)?;
    Ok(fs)
}

/// Gives the directory `upper` the owners, mode and access lists of `lower`, which it hides.
fn like(upper: &OwnedFd, lower: &OwnedFd) -> io::Result<()> {
    let stat = fstat(lower)?;
    let mut mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    if fchown(
        upper,
        Some(Uid::from_raw(stat.st_uid)),
        Some(Gid::from_raw(stat.st_gid)),
    )
    .is_err()
    {
        // It belongs to this user then, which must not do what it could not do before.
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

fn mount_of(fd: &OwnedFd) -> io::Result<u64> {
    let stat = statx(
        fd,
        OsStr::from_bytes(b""),
        AtFlags::EMPTY_PATH,
        StatxFlags::MNT_ID,
    )?;
    if stat.stx_mask & StatxFlags::MNT_ID.bits() == 0 {
        return Err(io::Error::other(
            "this kernel does not tell through which mount a file is seen",
        ));
    }
    Ok(stat.stx_mnt_id)
}
