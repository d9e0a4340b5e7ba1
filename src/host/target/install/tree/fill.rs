//! Writes the entries of a staged directory, with the attributes of the live ones.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
    path::Path,
};

use rustix::{
    fs::{
        self, AtFlags, FileType, Gid, Mode, OFlags, Statx, Timespec, Timestamps, Uid, XattrFlags,
    },
    io::Errno,
};

use crate::{
    host::target::install::entries::{ACL_XATTRS, Entries, copy_xattrs},
    tree::{Node, Tree, open, open_file, status},
};

/// The owner and group of an entry.
pub(super) type Owner = (Uid, Gid);

/// The live directory that gives a staged one its attributes: its descriptor and its content.
type LiveDirectory<'a> = (&'a OwnedFd, &'a Tree);

/// The live entry of the same name, with its directory.
type LiveEntry<'a> = Option<(&'a OwnedFd, &'a Node)>;

/// Writes the content of a staged directory.
pub(super) struct Filler<'a> {
    /// The attributes of the live entries at the survey.
    expected: Option<&'a Entries>,
    /// The attributes of the live entries now.
    pub(super) live: Entries,
    /// True if each entry of the survey still exists.
    pub(super) is_complete: bool,
    /// True if each entry is synced by itself.
    syncs: bool,
}

impl<'a> Filler<'a> {
    pub(super) fn new(expected: Option<&'a Entries>, syncs: bool) -> Self {
        Self {
            expected,
            live: Entries::default(),
            is_complete: true,
            syncs,
        }
    }

    /// Writes the entries of `to` into `staged`, which no other user can enter before all is done.
    /// The live entry of the same name and type gives its owner, its xattrs and, if nothing
    /// changed, its time. A new entry gets the owner of its directory; at the top that is
    /// `parent_owner`.
    ///
    /// Returns the owner that `staged` must get. After [`copy_metadata`], the last step, that owner
    /// can enter it.
    pub(super) fn directory(
        &mut self,
        to: &Tree,
        staged: &OwnedFd,
        live: Option<LiveDirectory<'_>>,
        parent_owner: Owner,
        path: &Path,
    ) -> io::Result<Owner> {
        let live_dir = live.map(|(dir, _)| dir);
        self.add_open(path, FileType::Directory, live_dir)?;
        let owner = live_dir.map_or(Ok(parent_owner), owner_of)?;
        if let Some(dir) = live_dir {
            copy_default_acl(dir, staged)?;
        }
        for (name, node) in &to.entries {
            let live = live.and_then(|(dir, tree)| Some((dir, tree.entries.get(name)?)));
            let path = path.join(name);
            match node {
                Node::Tree(inner) => {
                    self.inner_directory((staged, name), inner, live, owner, &path)?
                }
                Node::File(mode, bytes) => {
                    self.file((staged, name), (*mode, bytes), live, owner, &path)?
                }
                Node::Link(target) => self.link((staged, name), target, live, owner, &path)?,
            }
        }
        Ok(owner)
    }

    fn inner_directory(
        &mut self,
        (staged, name): (&OwnedFd, &OsStr),
        to: &Tree,
        live: LiveEntry<'_>,
        owner: Owner,
        path: &Path,
    ) -> io::Result<()> {
        fs::mkdirat(staged, name, Mode::RWXU)?;
        let dir = open(staged, name)?;
        let live = match live {
            Some((live, Node::Tree(tree))) => Some((open(live, name)?, tree)),
            _ => None,
        };
        let model = live.as_ref().map(|(dir, tree)| (dir, *tree));
        let owner = self.directory(to, &dir, model, owner, path)?;
        copy_metadata(&dir, live.as_ref().map(|(dir, _)| dir), owner, to.mode)?;
        self.sync(&dir)
    }

    fn file(
        &mut self,
        (staged, name): (&OwnedFd, &OsStr),
        (mode, bytes): (u32, &[u8]),
        live: LiveEntry<'_>,
        owner: Owner,
        path: &Path,
    ) -> io::Result<()> {
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(fs::openat(staged, name, flags, Mode::RUSR | Mode::WUSR)?);
        file.write_all(bytes)?;
        let file = OwnedFd::from(file);
        let live = match live {
            Some((dir, Node::File(_, old))) => Some((open_file(dir, name)?, **old == *bytes)),
            _ => None,
        };
        let model = live.as_ref().map(|(file, _)| file);
        self.add_open(path, FileType::RegularFile, model)?;
        copy_metadata(&file, model, model.map_or(Ok(owner), owner_of)?, mode)?;
        if let Some((live, true)) = &live {
            fs::futimens(&file, &times_of(&status(live, OsStr::new(""))?))?;
        }
        self.sync(&file)
    }

    fn link(
        &mut self,
        (staged, name): (&OwnedFd, &OsStr),
        target: &OsStr,
        live: LiveEntry<'_>,
        owner: Owner,
        path: &Path,
    ) -> io::Result<()> {
        fs::symlinkat(target, staged, name)?;
        let live = match live {
            Some((dir, Node::Link(old))) => Some((status(dir, name)?, old == target)),
            _ => None,
        };
        let model = live.as_ref().map(|(stat, _)| (stat, None));
        self.add(path, FileType::Symlink, model)?;
        let owner = live.as_ref().map_or(owner, |(stat, _)| owner_in(stat));
        if owner_in(&status(staged, name)?) != owner {
            let (uid, gid) = owner;
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            fs::chownat(staged, name, Some(uid), Some(gid), flags)?;
        }
        if let Some((stat, true)) = &live {
            fs::utimensat(staged, name, &times_of(stat), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }

    /// Adds the live entry at `path`, of this type; none if there is no such entry now.
    fn add(
        &mut self,
        path: &Path,
        kind: FileType,
        live: Option<(&Statx, Option<&OwnedFd>)>,
    ) -> io::Result<()> {
        match live {
            Some((stat, file)) => self.live.add(path, stat, file)?,
            None => {
                self.is_complete &= !self.expected.is_some_and(|entries| entries.has(path, kind));
            }
        }
        Ok(())
    }

    fn add_open(&mut self, path: &Path, kind: FileType, live: Option<&OwnedFd>) -> io::Result<()> {
        let Some(file) = live else {
            return self.add(path, kind, None);
        };
        let stat = status(file, OsStr::new(""))?;
        self.add(path, kind, Some((&stat, Some(file))))
    }

    fn sync(&self, fd: &OwnedFd) -> io::Result<()> {
        if self.syncs {
            fs::fsync(fd)?;
        }
        Ok(())
    }
}

/// Gives the staged directory the default access-control list of the live one, so that new entries
/// get it too.
fn copy_default_acl(live: &OwnedFd, staged: &OwnedFd) -> io::Result<()> {
    let name = ACL_XATTRS[1];
    let mut value = vec![0u8; 64 << 10];
    match fs::fgetxattr(live, name, &mut value[..]) {
        Ok(size) => Ok(fs::fsetxattr(
            staged,
            name,
            &value[..size],
            XattrFlags::empty(),
        )?),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// Sets owner, xattrs and mode. The owner is first: a change of owner clears mode bits (chown(2)).
/// The mode is last: an access-control list changes it too.
pub(super) fn copy_metadata(
    to: &OwnedFd,
    live: Option<&OwnedFd>,
    owner: Owner,
    mode: u32,
) -> io::Result<()> {
    if owner_of(to)? != owner {
        fs::fchown(to, Some(owner.0), Some(owner.1))?;
    }
    if let Some(live) = live {
        copy_xattrs(live, to)?;
    }
    Ok(fs::fchmod(to, Mode::from_raw_mode(mode))?)
}

fn owner_of(fd: &OwnedFd) -> io::Result<Owner> {
    Ok(owner_in(&status(fd, OsStr::new(""))?))
}

fn owner_in(stat: &Statx) -> Owner {
    (Uid::from_raw(stat.stx_uid), Gid::from_raw(stat.stx_gid))
}

fn times_of(stat: &Statx) -> Timestamps {
    let last_modification = Timespec {
        tv_sec: stat.stx_mtime.tv_sec,
        tv_nsec: stat.stx_mtime.tv_nsec.into(),
    };
    Timestamps {
        last_access: last_modification,
        last_modification,
    }
}
