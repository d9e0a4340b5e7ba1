//! One run at a time for each directory that holds a target.
//!
//! Two locks say so. The first is a file that other users cannot open: `/run/hello/lock/DEV-INO`
//! for root, and `$XDG_RUNTIME_DIR/hello/lock/DEV-INO` for another user. The second is `flock` on
//! the directory itself, which any user may take that may read the directory. So only a holder that
//! may write the target counts there. The kernel drops both with the run. Files of the first lock
//! are never removed: another run may be about to lock them.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::{
    fs::{self, FlockOperation, Mode, OFlags},
    io::Errno,
};
use tokio::time::Instant;

use self::holders::Holders;
use crate::trust::ResolvedPath;

pub(crate) mod holders;

/// Between two tries of a lock that another run holds.
const PAUSE: Duration = Duration::from_millis(20);

/// How often a lock may be free when its holder is looked for, and taken again right after, before
/// that is told as a run's.
const LOOKS: usize = 100;

/// Why a directory is not locked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// Another run holds it.
    #[error("another run holds the lock of `{}`{}", .0.display(), .1)]
    Busy(PathBuf, String),
    /// It is reached by a symbolic link that was not there when the path was resolved.
    #[error("`{}` leads elsewhere than when it was looked at: somebody put a symbolic link on the \
             way", .0.display())]
    Swapped(PathBuf),
    /// The system said no.
    #[error("`{}`: {}", .0.display(), .1)]
    Io(PathBuf, io::Error),
}

/// What the run is about to do in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// It may install something there.
    Install,
    /// It takes over what is there already.
    Adopt,
}

/// How a directory is locked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LockRequest<'a> {
    /// Until when another run's lock is waited for: one moment for all locks of a run.
    pub(crate) until: Instant,
    /// What the run is about to do there.
    pub(crate) intent: Intent,
    /// Names of the targets in the directory.
    pub(crate) names: &'a [&'a std::ffi::OsStr],
}

/// A directory, locked as long as this lives.
#[derive(Debug)]
pub(crate) struct Locked {
    /// The first lock, where this user has a place for it.
    _first: Option<OwnedFd>,
    /// A holder of the second lock that may not write the target, and so was ignored.
    pub(crate) foreign: Option<String>,
}

/// Opens a directory by its resolved path, along no symbolic link.
///
/// # Errors
/// `Swapped` when the path is not the resolved one any more.
pub(crate) fn open(path: &Path) -> Result<(ResolvedPath, Arc<OwnedFd>), LockError> {
    let io = |e: io::Error| LockError::Io(path.into(), e);
    let way = ResolvedPath::of(path).map_err(io)?;
    if way.has_links() {
        return Err(LockError::Swapped(path.into()));
    }
    if !way.is_directory() {
        return Err(io(Errno::NOTDIR.into()));
    }
    let dir = way.open().map_err(io)?;
    Ok((way, Arc::new(dir)))
}

/// Takes both locks of directory `dir` at `path`.
///
/// # Errors
/// `Busy` when another run holds one past the time that was given.
pub(crate) async fn lock(
    dir: &OwnedFd,
    path: &Path,
    wanted: LockRequest<'_>,
    holders: &mut Holders,
) -> Result<Locked, LockError> {
    let io = |e: io::Error| LockError::Io(path.into(), e);
    let deadline = wanted.until;
    let first = first(dir).map_err(|(at, e)| LockError::Io(at, e))?;
    if let Some(file) = &first {
        while !try_lock(file).map_err(io)? {
            if Instant::now() >= deadline {
                let holder = holders.of(file).first().map(|holder| holder.text.clone());
                return Err(LockError::Busy(path.into(), holder.unwrap_or_default()));
            }
            tokio::time::sleep(PAUSE).await;
        }
        if wanted.intent == Intent::Adopt && !may_write(dir) {
            return Ok(Locked {
                _first: first,
                foreign: None,
            });
        }
    }
    let mut free = 0;
    loop {
        if try_lock(dir).map_err(io)? {
            return Ok(Locked {
                _first: first,
                foreign: None,
            });
        }
        let holder = holders.judge(dir, wanted.names);
        // Perhaps it went meanwhile.
        if try_lock(dir).map_err(io)? {
            return Ok(Locked {
                _first: first,
                foreign: None,
            });
        }
        match holder {
            Some(holder) if !holder.counts => {
                return Ok(Locked {
                    _first: first,
                    foreign: Some(holder.text),
                });
            }
            // It was free in between. A process that takes and drops it all the time is seen at one
            // of the next looks.
            None if free < LOOKS => free += 1,
            holder if Instant::now() >= deadline => {
                return Err(LockError::Busy(
                    path.into(),
                    holder.map_or_else(String::new, |holder| holder.text),
                ));
            }
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// The run that would keep another one from the directory now: ": pid 17 of uid 0, running for 3 s:
/// hello broadcast".
pub(crate) fn blocked(dir: &OwnedFd, names: &[&std::ffi::OsStr]) -> Option<String> {
    let mut holders = Holders::default();
    let first = room().ok().flatten().and_then(|(room, _)| {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        fs::openat(room, name_of(dir).ok()?, flags, Mode::empty()).ok()
    });
    if let Some(holder) = first.and_then(|file| holders.of(&file).into_iter().next()) {
        return Some(holder.text);
    }
    holders
        .judge(dir, names)
        .filter(|holder| holder.counts)
        .map(|holder| holder.text)
}

/// Whether the lock was free, and is this run's now.
fn try_lock(file: &OwnedFd) -> io::Result<bool> {
    match fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

/// Whether this user may make an entry in the directory.
fn may_write(dir: &OwnedFd) -> bool {
    use rustix::fs::{Access, AtFlags};
    // An old kernel does not tell it of the effective user.
    matches!(
        fs::accessat(
            dir,
            ".",
            Access::WRITE_OK | Access::EXEC_OK,
            AtFlags::EACCESS
        ),
        Ok(()) | Err(Errno::NOSYS)
    )
}

/// The file of the first lock, opened and not yet locked; none where this user has no place for it.
fn first(dir: &OwnedFd) -> Result<Option<OwnedFd>, (PathBuf, io::Error)> {
    let Some((room, path)) = room()? else {
        return Ok(None);
    };
    let open = || -> io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(fs::openat(
            &room,
            name_of(dir)?,
            flags,
            Mode::RUSR | Mode::WUSR,
        )?)
    };
    open().map(Some).map_err(|e| (path, e))
}

fn name_of(dir: &OwnedFd) -> io::Result<String> {
    let stat = fs::fstat(dir)?;
    Ok(format!("{}-{}", stat.st_dev, stat.st_ino))
}

/// The folder of the first lock, which no other user can enter; none where this user has no place
/// for one.
fn room() -> Result<Option<(OwnedFd, PathBuf)>, (PathBuf, io::Error)> {
    let me = rustix::process::geteuid();
    if me.is_root() {
        let path = PathBuf::from("/run/hello/lock");
        return folder(Path::new("/run"), Mode::from_raw_mode(0o755))
            .map(|room| Some((room, path.clone())))
            .map_err(|e| (path, e));
    }
    let named = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let usual = PathBuf::from(format!("/run/user/{me}"));
    for place in named.into_iter().chain([usual]) {
        let own = |way: &ResolvedPath| {
            way.is_directory()
                && way.stat().st_uid == me.as_raw()
                && way.stat().st_mode & 0o777 == 0o700
        };
        if !ResolvedPath::of(&place).is_ok_and(|way| own(&way) && way.writable_only_by_us().is_ok())
        {
            continue;
        }
        let path = place.join("hello/lock");
        return folder(&place, Mode::RWXU)
            .map(|room| Some((room, path.clone())))
            .map_err(|e| (path, e));
    }
    Ok(None)
}

/// `hello/lock` in `place`, made where it is not there. It must be this user's alone.
fn folder(place: &Path, outer: Mode) -> io::Result<OwnedFd> {
    let way = ResolvedPath::of(place)?;
    way.writable_only_by_us()?;
    let mut dir = way.open()?;
    for (name, mode) in [("hello", outer), ("lock", Mode::RWXU)] {
        match fs::mkdirat(&dir, name, mode) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        dir = fs::openat(
            &dir,
            name,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let stat = fs::fstat(&dir)?;
        if stat.st_uid != rustix::process::geteuid().as_raw()
            || (name == "lock" && stat.st_mode & 0o077 != 0)
            || stat.st_mode & 0o022 != 0
        {
            return Err(io::Error::other(format!(
                "`{name}` belongs to uid {} with mode {:o}; remove it",
                stat.st_uid,
                stat.st_mode & 0o7777
            )));
        }
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn a_link_on_the_way_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(dir.join("real/conf")).unwrap();
        open(&dir.join("real/conf")).unwrap();
        std::os::unix::fs::symlink(dir.join("real"), dir.join("link")).unwrap();
        assert!(matches!(
            open(&dir.join("link/conf")),
            Err(LockError::Swapped(_))
        ));
        std::os::unix::fs::symlink(dir.join("real/conf"), dir.join("last")).unwrap();
        assert!(matches!(
            open(&dir.join("last")),
            Err(LockError::Swapped(_) | LockError::Io(..))
        ));
    }
}
