//! The folder of the first lock, which no other user can enter.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self, Mode, OFlags, Stat},
    io::Errno,
};

use crate::trust::{ResolvedPath, only_us_can_write};

/// An error of the folder at this path.
pub(super) type FolderError = (PathBuf, io::Error);

/// The folder, open, with its path.
pub(super) struct LockFolder {
    fd: OwnedFd,
    path: PathBuf,
}

impl LockFolder {
    /// Opens the folder of this user, and creates it if it is missing. Returns none if this user
    /// has no directory that it could be in.
    pub(super) fn of_user() -> Result<Option<Self>, FolderError> {
        let me = rustix::process::geteuid();
        if me.is_root() {
            return Self::below(Path::new("/run"), Mode::from_raw_mode(0o755)).map(Some);
        }
        let named = std::env::var_os("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute());
        let usual = PathBuf::from(format!("/run/user/{me}"));
        named
            .into_iter()
            .chain([usual])
            .find(|parent| is_private(parent))
            .map(|parent| Self::below(&parent, Mode::RWXU))
            .transpose()
    }

    fn below(parent: &Path, outer_mode: Mode) -> Result<Self, FolderError> {
        let path = parent.join("hello/lock");
        match open_or_create(parent, outer_mode) {
            Ok(fd) => Ok(Self { fd, path }),
            Err(e) => Err((path, e)),
        }
    }

    /// Opens the file of the lock on `dir`, and creates it if it is missing.
    pub(super) fn create(&self, dir: &OwnedFd) -> Result<OwnedFd, FolderError> {
        self.open_file(dir, OFlags::RDWR | OFlags::CREATE)
            .map_err(|e| (self.path.clone(), e))
    }

    /// Opens the file of the lock on `dir`, if there is one.
    pub(super) fn open(&self, dir: &OwnedFd) -> Option<OwnedFd> {
        self.open_file(dir, OFlags::RDONLY).ok()
    }

    fn open_file(&self, dir: &OwnedFd, flags: OFlags) -> io::Result<OwnedFd> {
        let stat = fs::fstat(dir)?;
        let name = format!("{}-{}", stat.st_dev, stat.st_ino);
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(fs::openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR)?)
    }
}

/// Tells whether a path is a directory of this user that no other user can enter.
fn is_private(path: &Path) -> bool {
    ResolvedPath::of(path).is_ok_and(|resolved| {
        resolved.is_directory()
            && belongs_to_caller(resolved.stat())
            && resolved.stat().st_mode & 0o777 == 0o700
            && resolved.writable_only_by_us().is_ok()
    })
}

fn belongs_to_caller(stat: &Stat) -> bool {
    stat.st_uid == rustix::process::geteuid().as_raw()
}

/// Opens `hello/lock` below `parent`, and creates it if it is missing. Both directories must belong
/// to this user, and no other user may enter the inner one.
fn open_or_create(parent: &Path, outer_mode: Mode) -> io::Result<OwnedFd> {
    let resolved = ResolvedPath::of(parent)?;
    resolved.writable_only_by_us()?;
    let mut dir = resolved.open()?;
    for (name, mode) in [("hello", outer_mode), ("lock", Mode::RWXU)] {
        match fs::mkdirat(&dir, name, mode) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        dir = fs::openat(&dir, name, flags, Mode::empty())?;
        let stat = fs::fstat(&dir)?;
        let is_closed = name != "lock" || stat.st_mode & 0o077 == 0;
        let is_own = belongs_to_caller(&stat) && only_us_can_write(stat.st_uid, stat.st_mode);
        if !(is_own && is_closed) {
            return Err(io::Error::other(format!(
                "`{name}` belongs to uid {} with mode {:o}; remove it",
                stat.st_uid,
                stat.st_mode & 0o7777
            )));
        }
    }
    Ok(dir)
}
