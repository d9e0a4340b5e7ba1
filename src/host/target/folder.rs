//! Folders of this program below `/run/hello`, or in the runtime directory of another user.

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

/// The name of a folder below `hello`, and its mode.
type Named = (&'static str, Mode);

/// A folder, open, with its path.
pub(super) struct Folder {
    pub(super) fd: OwnedFd,
    pub(super) path: PathBuf,
}

impl Folder {
    /// Opens a folder of this user, and creates it if it is missing. Returns none if this user has
    /// no directory that it could be in.
    pub(super) fn of_user(named: Named) -> Result<Option<Self>, FolderError> {
        let me = rustix::process::geteuid();
        if me.is_root() {
            let run = Path::new("/run");
            return Self::below(run, ("hello", Mode::from_raw_mode(0o755)), named).map(Some);
        }
        let runtime = std::env::var_os("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute());
        let usual = PathBuf::from(format!("/run/user/{me}"));
        runtime
            .into_iter()
            .chain([usual])
            .find(|parent| is_private(parent))
            .map(|parent| Self::below(&parent, ("hello", Mode::RWXU), named))
            .transpose()
    }

    /// As [`Self::of_user`]. A user without such a directory gets a folder below the one for
    /// temporary files.
    pub(super) fn of_user_or_temporary(named: Named) -> Result<Self, FolderError> {
        if let Some(folder) = Self::of_user(named)? {
            return Ok(folder);
        }
        let me = rustix::process::geteuid();
        let outer = format!("hello-{me}");
        Self::below(&std::env::temp_dir(), (&outer, Mode::RWXU), named)
    }

    fn below(parent: &Path, outer: (&str, Mode), inner: Named) -> Result<Self, FolderError> {
        let path = parent.join(outer.0).join(inner.0);
        match open_or_create(parent, outer, inner) {
            Ok(fd) => Ok(Self { fd, path }),
            Err(e) => Err((path, e)),
        }
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

/// Opens the inner folder in the outer one below `parent`, and creates both if they are missing.
/// Both must belong to this user, and no other user may have more rights than their modes give.
fn open_or_create(parent: &Path, outer: (&str, Mode), inner: Named) -> io::Result<OwnedFd> {
    let resolved = ResolvedPath::of(parent)?;
    let stat = resolved.stat();
    let is_sticky = stat.st_mode & 0o1000 != 0 && stat.st_uid == 0;
    // In a sticky directory of root no other user can replace what this user created.
    if !is_sticky {
        resolved.writable_only_by_us()?;
    }
    let mut dir = resolved.open()?;
    for (name, mode) in [outer, inner] {
        match fs::mkdirat(&dir, name, mode) {
            Ok(()) => {
                // A mask of the caller must not hide what the mode shows.
                let made = open_folder(&dir, name)?;
                fs::fchmod(&made, mode)?;
            }
            Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        dir = open_folder(&dir, name)?;
        let stat = fs::fstat(&dir)?;
        let is_closed = stat.st_mode & 0o077 & !mode.bits() == 0;
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

fn open_folder(dir: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(fs::openat(dir, name, flags, Mode::empty())?)
}
