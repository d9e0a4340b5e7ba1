//! A target that is a directory. What it was stays beside it under a hidden name until the run ends: the way back writes nothing.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self, AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Statx, StatxAttributes, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};

use super::{InstallError, LISTS, Spot, copy_xattrs, fixed, kind};
use crate::{
    config::ReadError,
    step::Blob,
    tree::{MAX_DEPTH, Node, Tree, names, open, shown, status},
};

/// Up to so many entries each file is synced by itself, which waits for no other file of a busy disk.
const SYNCED_SINGLY: usize = 100;

/// A directory to replace.
#[derive(Debug)]
pub(in crate::host) struct TreeTarget {
    pub(super) spot: Spot,
}

impl TreeTarget {
    pub(super) fn new(spot: Spot) -> Self {
        Self { spot }
    }

    pub(super) fn read(&self) -> Result<Blob, InstallError> {
        let no = |e: ReadError| self.spot.refused(e.to_string());
        let dir = open(&self.spot.dir, &self.spot.name).map_err(|e| no(ReadError::Io(e.into())))?;
        let tree = look(&dir, |_| None).map_err(no)?;
        Blob::of(tree).map_err(|e| self.spot.io(e))
    }

    pub(super) fn digest(&self) -> Option<String> {
        digest_of(&self.spot.dir, &self.spot.name)
    }

    pub(super) fn stage(&mut self, to: &Blob, run: &str) -> Result<PathBuf, InstallError> {
        let Some(wanted) = &to.tree else { return Err(self.spot.refused("it is a directory, and would become a file")) };
        let stat = self.spot.status().map_err(|e| self.spot.io(e))?;
        self.spot.guard(&stat)?;
        let live = open(&self.spot.dir, &self.spot.name).map_err(|e| self.spot.io(e))?;
        let now = look(&live, fixed).map_err(|e| self.spot.refused(e.to_string()))?;
        self.spot.sweep();
        let name = self.spot.beside(run);
        self.spot.staged = Some(name.clone());
        let said = self.write(&name, wanted, &live, &now).and_then(|()| match digest_of(&self.spot.dir, &name) {
            Some(digest) if digest == to.sha256 => Ok(()),
            _ => Err(self.spot.refused("its filesystem does not keep names, modes or links as they are")),
        });
        match said {
            Ok(()) => Ok(self.spot.path.with_file_name(name)),
            Err(e) => {
                self.spot.unstage();
                Err(e)
            }
        }
    }

    fn write(&self, name: &OsStr, wanted: &Tree, live: &OwnedFd, now: &Tree) -> Result<(), InstallError> {
        let dir = &*self.spot.dir;
        let mut probe = OsString::from(name);
        probe.push("-probe");
        for name in [name, &probe] {
            fs::mkdirat(dir, name, Mode::RWXU).map_err(|e| self.spot.unstaged(e))?;
        }
        // Both are empty yet, so it does not matter which is which.
        let exchanged = fs::renameat_with(dir, name, dir, &*probe, RenameFlags::EXCHANGE);
        fs::unlinkat(dir, &*probe, AtFlags::REMOVEDIR).map_err(|e| self.spot.unstaged(e))?;
        match exchanged {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => return Err(self.spot.refused("its filesystem cannot exchange two directories in one step")),
            Err(e) => return Err(self.spot.unstaged(e)),
        }
        let singly = wanted.size().0 <= SYNCED_SINGLY;
        let filled = || -> io::Result<()> {
            let staged = open(dir, name)?;
            fill(wanted, &staged, Some((live, now)), (Uid::ROOT, Gid::ROOT), singly)?;
            if singly { Ok(()) } else { Ok(fs::syncfs(&staged)?) }
        };
        filled().map_err(|e| self.spot.unstaged(e))
    }

    pub(super) fn install(&mut self, from: &str, to: &Blob, run: &str) -> Result<bool, InstallError> {
        match self.digest() {
            Some(now) if now == to.sha256 => return Ok(false),
            Some(now) if now == from => {}
            _ => return Err(self.spot.drifted()),
        }
        let staged = match self.spot.staged.clone() {
            Some(staged) if digest_of(&self.spot.dir, &staged).as_ref() == Some(&to.sha256) => staged,
            // Somebody was in what stood beside it: it is written anew.
            _ => {
                self.spot.unstage();
                let run = format!("{run}-again");
                self.stage(to, &run)?;
                self.spot.beside(&run)
            }
        };
        match self.spot.exchange(&staged, from, digest_of)? {
            Ok(()) => Ok(true),
            Err(e) => Err(self.spot.io(e)),
        }
    }
}

/// Reads a directory of the fleet; what is mounted in it would be taken along, or deleted, and what `more` says something of is refused.
fn look(dir: &OwnedFd, more: impl Fn(&Statx) -> Option<&'static str>) -> Result<Tree, ReadError> {
    let device = |stat: &Statx| (stat.stx_dev_major, stat.stx_dev_minor);
    let outer = status(dir, OsStr::new("")).map(|stat| device(&stat)).map_err(io::Error::from)?;
    let check = |path: &Path, stat: &Statx| {
        // Of files, layered filesystems tell the device of a layer.
        let foreign = kind(stat) == FileType::Directory && device(stat) != outer;
        let mounted = foreign || stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
        let why = if mounted { Some("is a mount point") } else { more(stat) };
        let who = if path.as_os_str().is_empty() { "it".to_owned() } else { format!("`{}` in it", shown(path)) };
        why.map_or(Ok(()), |why| Err(format!("{who} {why}")))
    };
    Tree::read(dir, &mut { check })
}

fn digest_of(dir: &OwnedFd, name: &OsStr) -> Option<String> {
    let tree = look(&open(dir, name).ok()?, |_| None).ok()?;
    Some(Blob::of(tree).ok()?.sha256)
}

/// Writes the entries of `to` into `staged`, which nobody else can enter before all is done. What the live directory has of the same name and type
/// gives them owner, xattrs and, where nothing changed, time; the owner of a new one is that of its directory.
fn fill(to: &Tree, staged: &OwnedFd, live: Option<(&OwnedFd, &Tree)>, above: (Uid, Gid), singly: bool) -> io::Result<()> {
    let owner = match live {
        Some((dir, _)) => owner_of(dir)?,
        None => above,
    };
    if let Some((dir, _)) = live {
        inherit(dir, staged)?;
    }
    for (name, node) in &to.entries {
        let before = live.and_then(|(dir, tree)| Some((dir, tree.entries.get(name)?)));
        match node {
            Node::Tree(inner) => {
                fs::mkdirat(staged, name, Mode::RWXU)?;
                let dir = open(staged, name)?;
                let before = match before {
                    Some((live, Node::Tree(tree))) => Some((open(live, name)?, tree)),
                    _ => None,
                };
                fill(inner, &dir, before.as_ref().map(|(dir, tree)| (dir, *tree)), owner, singly)?;
            }
            Node::File(mode, bytes) => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut file = File::from(fs::openat(staged, name, flags, Mode::RUSR | Mode::WUSR)?);
                file.write_all(bytes)?;
                let file = OwnedFd::from(file);
                let before = match before {
                    Some((dir, Node::File(_, old))) => {
                        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                        Some((fs::openat(dir, name, flags, Mode::empty())?, old == bytes))
                    }
                    _ => None,
                };
                let live = before.as_ref().map(|(file, _)| file);
                dress(&file, live, live.map_or(Ok(owner), owner_of)?, *mode)?;
                if let Some((live, true)) = &before {
                    fs::futimens(&file, &time_of(&status(live, OsStr::new(""))?))?;
                }
                if singly {
                    fs::fsync(&file)?;
                }
            }
            Node::Link(target) => {
                fs::symlinkat(target, staged, name)?;
                let before = match before {
                    Some((dir, Node::Link(old))) => Some((status(dir, name)?, old == target)),
                    _ => None,
                };
                let (uid, gid) = before.as_ref().map_or(owner, |(stat, _)| (Uid::from_raw(stat.stx_uid), Gid::from_raw(stat.stx_gid)));
                if owner_of_stat(&status(staged, name)?) != (uid, gid) {
                    fs::chownat(staged, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
                }
                if let Some((stat, true)) = &before {
                    fs::utimensat(staged, name, &time_of(stat), AtFlags::SYMLINK_NOFOLLOW)?;
                }
            }
        }
    }
    // Last: from here on its owner can enter it.
    dress(staged, live.map(|(dir, _)| dir), owner, to.mode)?;
    if singly { Ok(fs::fsync(staged)?) } else { Ok(()) }
}

/// New entries have the access-control list that the live directory would give them.
fn inherit(live: &OwnedFd, staged: &OwnedFd) -> io::Result<()> {
    let mut value = vec![0u8; 64 << 10];
    match fs::fgetxattr(live, LISTS[1], &mut value[..]) {
        Ok(size) => Ok(fs::fsetxattr(staged, LISTS[1], &value[..size], XattrFlags::empty())?),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// The owner first: a change of owner clears mode bits. The mode last: a list that is set changes them too.
fn dress(to: &OwnedFd, live: Option<&OwnedFd>, owner: (Uid, Gid), mode: u32) -> io::Result<()> {
    if owner_of(to)? != owner {
        fs::fchown(to, Some(owner.0), Some(owner.1))?;
    }
    if let Some(live) = live {
        copy_xattrs(live, to)?;
    }
    Ok(fs::fchmod(to, Mode::from_raw_mode(mode))?)
}

fn owner_of(fd: &OwnedFd) -> io::Result<(Uid, Gid)> {
    Ok(owner_of_stat(&status(fd, OsStr::new(""))?))
}

fn owner_of_stat(stat: &Statx) -> (Uid, Gid) {
    (Uid::from_raw(stat.stx_uid), Gid::from_raw(stat.stx_gid))
}

fn time_of(stat: &Statx) -> Timestamps {
    let last_modification = Timespec { tv_sec: stat.stx_mtime.tv_sec, tv_nsec: stat.stx_mtime.tv_nsec.into() };
    Timestamps { last_access: last_modification, last_modification }
}

/// Removes the directory `name` and all that is in it, following no link and entering no mount.
pub(super) fn remove(dir: &OwnedFd, name: &OsStr, depth: usize) -> Result<(), Errno> {
    let inner = open(dir, name)?;
    // Whoever can write beside the target could make it as deep as they like.
    if depth > 2 * MAX_DEPTH || status(&inner, OsStr::new(""))?.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
        return Err(Errno::BUSY);
    }
    // One that its owner may not write keeps its entries from anybody but root.
    let _ = fs::fchmod(&inner, Mode::RWXU);
    for name in names(&inner, usize::MAX)? {
        match fs::unlinkat(&inner, &name, AtFlags::empty()) {
            Err(Errno::ISDIR) => remove(&inner, &name, depth + 1)?,
            said => said?,
        }
    }
    fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}
