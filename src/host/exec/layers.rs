//! Layers over every filesystem that a command may write to. All writes go to memory, at most 64
//! MiB, and are discarded when the command ends.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::MsFlags,
    unistd::{chroot, fchdir},
};
use rustix::{
    fs::{
        Access, AtFlags, Mode, OFlags, StatVfsMountFlags, accessat, fstat, fstatvfs, mkdirat, open,
        openat,
    },
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags, fsconfig_create,
        fsconfig_set_string, fsmount, fsopen,
    },
};

use super::{
    error::LayerError,
    mount_calls::{
        PATH_ONLY, attach, clone_mount, copy_access, mount_id, open_path, overlay, remount,
    },
    mounts::{Mount, Use, visible},
    numbers::Numbers,
};

mod files;
mod root;

/// The most memory that the writes of one command may take, in the syntax of tmpfs. Validators
/// write some KiB; a log that they open counts as a whole.
const SIZE: &str = "64m";
/// The most files and directories that one command may create or change.
const INODES: &str = "65536";

/// The most components of a path at which directories of this user are searched below directories
/// of other users: enough for `/var/lib/NAME`.
const DEPTH: usize = 3;

/// The effect of setuid bits in a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setuid {
    /// As in the filesystem below.
    AsBelow,
    Never,
}

/// The layers of one command. The working directory of its process must be `/proc/self/fd`.
#[derive(Debug)]
pub(super) struct Layers<'a> {
    numbers: &'a Numbers,
    /// The filesystem in memory.
    pub(super) store: OwnedFd,
    /// The mount ids of the layers.
    made: Vec<u64>,
    /// The mounts before the first layer.
    mounts: Vec<Mount>,
    /// Directories in which `hello` itself writes.
    wanted: Vec<PathBuf>,
    /// The working directory, if another user can change what its path leads to. After
    /// [`Self::cover`], the layer over it.
    pub(super) cwd: Option<(PathBuf, OwnedFd)>,
    /// The number of files that replace others.
    files: usize,
}

impl<'a> Layers<'a> {
    /// Creates the filesystem in memory, mounted where no path leads to it.
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
        attach(&store, &open("/", PATH_ONLY, Mode::empty())?)?;
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

    /// Covers every directory that this user can write to, and each of `wanted`. It changes the
    /// root directory of this process.
    ///
    /// # Errors
    /// Fails if a writable directory cannot be covered.
    pub(super) fn cover(&mut self, wanted: Vec<PathBuf>) -> Result<(), LayerError> {
        self.wanted = wanted;
        // No command of this user can reach a mount that the user itself cannot.
        let reached = std::mem::take(&mut self.mounts)
            .into_iter()
            .filter_map(|mount| open_path(&mount.path).ok().map(|fd| (mount, fd)));
        let held: Vec<(Mount, OwnedFd)> = reached.collect();
        let root = open("/", PATH_ONLY, Mode::empty())
            .map_err(|e| LayerError::Io("/".into(), e.into()))?;
        match self.layer(&root, Setuid::AsBelow) {
            Ok(layer) => self.cover_root(&layer, &held),
            // Mounts that come from another user namespace are locked together
            // (mount_namespaces(7)), so `/` has no layer without them.
            Err(_) => {
                let mounts: Vec<&Mount> = held.iter().map(|(mount, _)| mount).collect();
                self.cover_parts(Path::new("/"), &mounts)?;
                self.cover_cwd(&mounts)
            }
        }
    }

    /// Covers the working directory, if it is held.
    fn cover_cwd(&mut self, mounts: &[&Mount]) -> Result<(), LayerError> {
        let Some((path, dir)) = self.cwd.take() else {
            return Ok(());
        };
        if mounts.iter().any(|mount| mount.path.starts_with(&path)) {
            return Err(LayerError::MountInside(path));
        }
        let how = |e: io::Error| LayerError::Io(path.to_owned(), e);
        let layer = self.layer(&dir, Setuid::AsBelow).map_err(how)?;
        attach(&layer, &open_path(&path).map_err(how)?).map_err(how)?;
        self.cwd = Some((path, layer));
        Ok(())
    }

    /// Covers the root directory with `root`, and mounts a layer over each mount below it.
    fn cover_root(&mut self, root: &OwnedFd, held: &[(Mount, OwnedFd)]) -> Result<(), LayerError> {
        let failed = |e: io::Error| LayerError::Io("/".into(), e);
        // The mount is attached where no path leads; only this process makes it its root.
        mkdirat(&self.store, "root", Mode::RWXU).map_err(|e| failed(e.into()))?;
        let handle =
            openat(&self.store, "root", PATH_ONLY, Mode::empty()).map_err(|e| failed(e.into()))?;
        attach(root, &handle).map_err(failed)?;
        let mut kept = Vec::new();
        for (mount, fd) in held
            .iter()
            .filter(|(mount, _)| mount.path != Path::new("/"))
        {
            let how = |e: io::Error| LayerError::Io(mount.path.clone(), e);
            let layer = if mount.used == Use::Covered {
                self.layer(fd, Setuid::AsBelow).ok()
            } else {
                None
            };
            kept.push(match layer {
                Some(layer) => (mount.path.as_path(), layer, Use::Covered),
                None => (
                    mount.path.as_path(),
                    clone_mount(fd, OpenTreeFlags::empty()).map_err(how)?,
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
            let how = |e: io::Error| LayerError::Io(path.to_owned(), e);
            let layer = self.layer(dir, Setuid::AsBelow).map_err(how)?;
            self.cwd = Some((path.clone(), layer.try_clone().map_err(how)?));
            // It must be attached before the mounts inside it.
            let index = kept
                .iter()
                .position(|(mount, ..)| mount.starts_with(path) && mount != path)
                .unwrap_or(kept.len());
            kept.insert(index, (path, layer, Use::Covered));
        }
        self.enter_root(root).map_err(failed)?;
        for (path, tree, used) in kept {
            let how = |e: io::Error| LayerError::Io(path.to_owned(), e);
            attach(&tree, &open_path(path).map_err(how)?).map_err(how)?;
            if used == Use::ReadOnly {
                self.read_only(&tree).map_err(how)?;
            }
        }
        Ok(())
    }

    /// Makes `root` the root directory of this process.
    fn enter_root(&self, root: &OwnedFd) -> io::Result<()> {
        fchdir(root)?;
        chroot(".")?;
        Ok(fchdir(&self.numbers.0)?)
    }

    /// Covers every directory below `path` that has no mount inside. A directory beside mounts
    /// becomes read-only if this user could write to it.
    fn cover_parts(&mut self, path: &Path, mounts: &[&Mount]) -> Result<(), LayerError> {
        let how = |e: io::Error| LayerError::Io(path.to_owned(), e);
        let below: Vec<&Mount> = mounts
            .iter()
            .filter(|mount| mount.path != path && mount.path.starts_with(path))
            .copied()
            .collect();
        let used = match mounts.iter().find(|mount| mount.path == path) {
            Some(mount) => mount.used,
            // A layer of an ordinary user does not show devices.
            None if path == Path::new("/dev") => Use::Kept,
            None => Use::Covered,
        };
        let Ok(fd) = open_path(path) else {
            return Ok(());
        };
        let writable =
            accessat(&fd, ".", Access::WRITE_OK, AtFlags::EACCESS).is_ok() || used == Use::ReadOnly;
        match (used, below.is_empty()) {
            (Use::Kept, _) => return self.cover_next(path, Vec::new(), &below),
            (Use::Covered, true) => match self.cover_nested(path, &fd) {
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
                self.root_in_memory(&fd).map_err(how)?;
                let names = directories(path);
                return self.cover_next(path, names, &below);
            }
            let tree = clone_mount(&fd, OpenTreeFlags::AT_RECURSIVE).map_err(how)?;
            attach(&tree, &fd).map_err(how)?;
            self.read_only(&tree).map_err(how)?;
        }
        if below.is_empty() {
            return Ok(());
        }
        self.cover_next(path, directories(path), &below)
    }

    /// Covers a directory, and each directory in it that this user may write to. A layer over a
    /// directory of another user does not let this user change what is in it.
    fn cover_nested(&mut self, path: &Path, fd: &OwnedFd) -> io::Result<()> {
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
            .filter_map(|dir| open_path(&dir).ok().map(|fd| (dir, fd)))
            .collect();
        attach(&self.layer(fd, Setuid::AsBelow)?, fd)?;
        for (dir, fd) in own {
            // If this fails, the layer above covers the directory.
            if let Ok(layer) = self.layer(&fd, Setuid::AsBelow) {
                attach(&layer, &open_path(&dir)?)?;
            }
        }
        Ok(())
    }

    /// Covers each of `inside`, and the directories that lead to the mounts `below`.
    fn cover_next(
        &mut self,
        path: &Path,
        mut inside: Vec<PathBuf>,
        below: &[&Mount],
    ) -> Result<(), LayerError> {
        let depth = path.components().count();
        inside.extend(
            below
                .iter()
                .map(|mount| mount.path.components().take(depth + 1).collect::<PathBuf>()),
        );
        inside.sort_unstable();
        inside.dedup();
        inside
            .iter()
            .try_for_each(|next| self.cover_parts(next, below))
    }

    /// Returns a layer over the directory `lower`, not yet attached.
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
        copy_access(&dirs[0], lower)?;
        let layer = overlay([lower, &dirs[0], &dirs[1]], false)
            .or_else(|_| overlay([lower, &dirs[0], &dirs[1]], true))?;
        let present = fstatvfs(lower)?.f_flag;
        let mut attributes = MountAttrFlags::empty();
        for (flag, same) in [
            (StatVfsMountFlags::RDONLY, MountAttrFlags::MOUNT_ATTR_RDONLY),
            (StatVfsMountFlags::NODEV, MountAttrFlags::MOUNT_ATTR_NODEV),
            (StatVfsMountFlags::NOEXEC, MountAttrFlags::MOUNT_ATTR_NOEXEC),
            (StatVfsMountFlags::NOSUID, MountAttrFlags::MOUNT_ATTR_NOSUID),
        ] {
            attributes.set(same, present.contains(flag));
        }
        if setuid == Setuid::Never {
            attributes |= MountAttrFlags::MOUNT_ATTR_NOSUID;
        }
        let mounted = fsmount(&layer, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
        self.made.push(mount_id(&mounted)?);
        Ok(mounted)
    }

    /// Tells whether writes to the file or directory are discarded.
    pub(super) fn covers(&self, fd: &OwnedFd) -> bool {
        mount_id(fd).is_ok_and(|number| self.made.contains(&number))
    }

    /// Makes a mount read-only.
    pub(super) fn read_only(&self, tree: &OwnedFd) -> io::Result<()> {
        remount(tree, MsFlags::MS_RDONLY)
    }
}

/// Returns the directories in `path`, if this user may read it.
fn directories(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Tells whether this user owns a directory, or may write to it.
fn is_own(dir: &OwnedFd) -> bool {
    let owner = fstat(dir).map(|stat| stat.st_uid);
    owner == Ok(rustix::process::geteuid().as_raw())
        || accessat(dir, ".", Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

/// Finds the topmost directories below `path` that this user owns or may write to, down to
/// [`DEPTH`] components.
fn own_below(path: &Path, own: &mut Vec<PathBuf>) {
    if path.components().count() > DEPTH {
        return;
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    for dir in entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
    {
        match open_path(&dir) {
            Ok(fd) if is_own(&fd) => own.push(dir),
            Ok(_) => own_below(&dir, own),
            Err(_) => {}
        }
    }
}
