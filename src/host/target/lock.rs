//! One run at a time for each directory that holds a target.
//!
//! A run takes two locks. The first is on a file that other users cannot open:
//! `/run/hello/lock/DEV-INO` for root, and `$XDG_RUNTIME_DIR/hello/lock/DEV-INO` for another user.
//! The second is a `flock` on the directory itself. Any user that may read the directory can take
//! it, so only a holder that may write the target counts. The kernel releases both when the run
//! ends. Files of the first lock are never removed: another run may be about to lock them. Such a
//! file says which operator a run over hosts works for.

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

use self::{
    holders::{Holder, Holders},
    note::{note_of, write_note},
};
use crate::{
    host::target::{access::check_may_create, folder::Folder},
    trust::ResolvedPath,
};

pub(crate) mod holders;
mod note;

/// The folder of the first locks. No other user can enter it.
const FOLDER: (&str, Mode) = ("lock", Mode::RWXU);

/// The pause between two attempts to take a lock that another run holds.
const PAUSE: Duration = Duration::from_millis(20);

/// The most times that a lock may be free while its holder is searched, and taken again right
/// after. Then it counts as a run's. A process that takes and releases it all the time is found at
/// one of so many searches.
const MAX_FREE: usize = 100;

/// The reason that a directory is not locked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LockError {
    /// Another run holds it.
    #[error("another run holds the lock of `{}`{}", .0.display(), .1)]
    Busy(PathBuf, String),
    /// Its path has a symbolic link that did not exist when the path was resolved.
    #[error("`{}` leads elsewhere now: since the survey a symbolic link was created on its path",
            .0.display())]
    Swapped(PathBuf),
    /// The system's error.
    #[error("`{}`: {}", .0.display(), .1)]
    Io(PathBuf, io::Error),
}

/// The operation that a run locks a directory for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    /// To install content.
    Install,
    /// To adopt the content that is there already.
    Adopt,
}

/// The request for a lock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LockRequest<'a> {
    /// The end of the wait for another run's lock; the same for all locks of a run.
    pub(crate) until: Instant,
    pub(crate) intent: Intent,
    /// The names of the targets in the directory.
    pub(crate) names: &'a [&'a std::ffi::OsStr],
    /// What a run that finds the lock held says of this one; empty if there is nothing to say.
    pub(crate) note: &'a str,
}

/// A locked directory. A drop releases the first lock; the second is released with the descriptor
/// of the directory.
#[derive(Debug)]
pub(crate) struct Locked {
    /// The first lock; none if this user has no directory for it.
    _first: Option<OwnedFd>,
    /// A holder of the second lock that was ignored, because it may not write the target.
    pub(crate) foreign: Option<String>,
}

/// Opens a directory by its resolved path, which has no symbolic link.
///
/// # Errors
/// Fails with `Swapped` if the path has a link now.
pub(crate) fn open(path: &Path) -> Result<(ResolvedPath, Arc<OwnedFd>), LockError> {
    let io = |e: io::Error| LockError::Io(path.into(), e);
    let resolved = ResolvedPath::of(path).map_err(io)?;
    if resolved.has_links() {
        return Err(LockError::Swapped(path.into()));
    }
    if !resolved.is_directory() {
        return Err(io(Errno::NOTDIR.into()));
    }
    let dir = resolved.open().map_err(io)?;
    Ok((resolved, Arc::new(dir)))
}

/// Takes both locks of the directory `dir` at `path`.
///
/// # Errors
/// Fails with `Busy` if another run holds one until the wait ends.
pub(crate) async fn lock(
    dir: &OwnedFd,
    path: &Path,
    request: LockRequest<'_>,
    holders: &mut Holders,
) -> Result<Locked, LockError> {
    let first = take_first(dir, path, request, holders).await?;
    // To adopt content, the first lock is enough in a directory that this user may not write.
    let needs_second =
        first.is_none() || request.intent == Intent::Install || check_may_create(dir).is_ok();
    let foreign = if needs_second {
        take_second(dir, path, request, holders).await?
    } else {
        None
    };
    Ok(Locked {
        _first: first,
        foreign,
    })
}

/// Takes the first lock. Returns none if this user has no directory for it.
async fn take_first(
    dir: &OwnedFd,
    path: &Path,
    request: LockRequest<'_>,
    holders: &mut Holders,
) -> Result<Option<OwnedFd>, LockError> {
    let opened = Folder::of_user(FOLDER).and_then(|folder| {
        let create = |folder: Folder| {
            let flags = OFlags::RDWR | OFlags::CREATE;
            open_file(&folder, dir, flags).map_err(|e| (folder.path, e))
        };
        folder.map(create).transpose()
    });
    let Some(file) = opened.map_err(|(path, e)| LockError::Io(path, e))? else {
        return Ok(None);
    };
    while !try_lock(&file).map_err(|e| LockError::Io(path.into(), e))? {
        if Instant::now() >= request.until {
            let holder = holders.of(&file).into_iter().next();
            return Err(busy(path, holder.map(|holder| with_note(holder, &file))));
        }
        tokio::time::sleep(PAUSE).await;
    }
    write_note(&file, request.note);
    Ok(Some(file))
}

/// Takes the second lock, or returns the holder that was ignored.
async fn take_second(
    dir: &OwnedFd,
    path: &Path,
    request: LockRequest<'_>,
    holders: &mut Holders,
) -> Result<Option<String>, LockError> {
    let io = |e: io::Error| LockError::Io(path.into(), e);
    let mut free = 0;
    loop {
        if try_lock(dir).map_err(io)? {
            return Ok(None);
        }
        let holder = holders.deciding(dir, request.names);
        // The holder may have released it during the search.
        if try_lock(dir).map_err(io)? {
            return Ok(None);
        }
        match holder {
            Some(holder) if !holder.counts => return Ok(Some(holder.text)),
            // The lock was free in between.
            None if free < MAX_FREE => free += 1,
            holder if Instant::now() >= request.until => return Err(busy(path, holder)),
            _ => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// Adds what the holder of a first lock has written into its file.
fn with_note(holder: Holder, file: &OwnedFd) -> Holder {
    let text = match note_of(file, holder.pid) {
        Some(note) => format!("{}; {note}", holder.text),
        None => holder.text,
    };
    Holder { text, ..holder }
}

fn busy(path: &Path, holder: Option<Holder>) -> LockError {
    let text = holder.map_or_else(String::new, |holder| holder.text);
    LockError::Busy(path.into(), text)
}

/// Returns the run that would keep another run from locking the directory now: ": pid 17 of uid 0,
/// started 3 s ago: hello broadcast".
pub(crate) fn blocked(dir: &OwnedFd, names: &[&std::ffi::OsStr]) -> Option<String> {
    let mut holders = Holders::default();
    let folder = Folder::of_user(FOLDER).ok().flatten();
    let first = folder.and_then(|folder| open_file(&folder, dir, OFlags::RDONLY).ok());
    if let Some(file) = first
        && let Some(holder) = holders.of(&file).into_iter().next()
    {
        return Some(with_note(holder, &file).text);
    }
    holders
        .deciding(dir, names)
        .filter(|holder| holder.counts)
        .map(|holder| holder.text)
}

/// Opens the file of the first lock on the directory `dir`.
fn open_file(folder: &Folder, dir: &OwnedFd, flags: OFlags) -> io::Result<OwnedFd> {
    let stat = fs::fstat(dir)?;
    let name = format!("{}-{}", stat.st_dev, stat.st_ino);
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(fs::openat(
        &folder.fd,
        name,
        flags,
        Mode::RUSR | Mode::WUSR,
    )?)
}

/// Takes the lock if it is free. Returns whether it was.
fn try_lock(file: &OwnedFd) -> io::Result<bool> {
    match fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn a_path_with_a_link_is_refused() {
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
