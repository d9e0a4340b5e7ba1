//! One run at a time: an exclusive `flock` on the directory that holds a target. The same for every user and state folder, dropped by the kernel with its owner.

use std::{
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use rustix::{
    fs::{self, FlockOperation, Mode, OFlags, ResolveFlags},
    io::Errno,
};
use tokio::time::Instant;

/// Why a directory is not locked.
#[derive(Debug, thiserror::Error)]
pub(super) enum LockError {
    /// Another run holds it.
    #[error("another run holds the lock of `{}`{}", .0.display(), .1)]
    Busy(PathBuf, String),
    /// It is reached by a symbolic link that was not there when the path was resolved.
    #[error("`{}` leads elsewhere than when it was looked at: somebody put a symbolic link on the way", .0.display())]
    Swapped(PathBuf),
    /// The system said no.
    #[error("`{}`: {}", .0.display(), .1)]
    Io(PathBuf, io::Error),
}

/// Opens a directory by its resolved path, along no symbolic link; with a `wait`, locks it.
///
/// # Errors
/// `Busy` when another run holds it past `wait`; `Swapped` when the path is not the resolved one any more.
pub(super) async fn open(path: &Path, wait: Option<Duration>) -> Result<Arc<OwnedFd>, LockError> {
    let io = |e: Errno| LockError::Io(path.into(), e.into());
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let dir = fs::openat2(fs::CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS).map_err(|e| match e {
        Errno::LOOP => LockError::Swapped(path.into()),
        e => io(e),
    })?;
    let Some(wait) = wait else { return Ok(Arc::new(dir)) };
    let deadline = Instant::now() + wait;
    loop {
        match fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(Arc::new(dir)),
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(Errno::WOULDBLOCK) => return Err(LockError::Busy(path.into(), owner(&dir))),
            Err(e) => return Err(io(e)),
        }
    }
}

/// Who holds the lock, from `/proc/locks`: ": pid 17 of uid 0, since 3 s: hello broadcast".
pub(super) fn owner(dir: &OwnedFd) -> String {
    let Ok(stat) = fs::fstat(dir) else { return String::new() };
    let (major, minor) = (fs::major(stat.st_dev), fs::minor(stat.st_dev));
    let id = format!("{major:02x}:{minor:02x}:{}", stat.st_ino);
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let holder = |ending: &str| {
        locks.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            (fields.get(1) == Some(&"FLOCK") && fields.get(5)?.ends_with(ending)).then(|| fields[4].parse::<i32>().ok())?
        })
    };
    // Some filesystems (btrfs) tell another device number here than stat does.
    let pid = holder(&id).or_else(|| holder(&format!(":{}", stat.st_ino)));
    let Some(pid) = pid else { return String::new() };
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    let process = procfs::process::Process::new(pid);
    let user = process.as_ref().ok().and_then(|p| p.status().ok()).map_or(String::new(), |s| format!(" of uid {}", s.euid));
    let age = process.ok().and_then(|p| Some(super::guard::age(&p)?.as_secs())).map_or(String::new(), |s| format!(", running for {s} s"));
    format!(": pid {pid}{user}{age}: {}", command.trim())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[tokio::test]
    async fn a_link_on_the_way_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        std::fs::create_dir_all(dir.join("real/conf")).unwrap();
        open(&dir.join("real/conf"), None).await.unwrap();
        std::os::unix::fs::symlink(dir.join("real"), dir.join("link")).unwrap();
        assert!(matches!(open(&dir.join("link/conf"), None).await, Err(LockError::Swapped(_))));
        std::os::unix::fs::symlink(dir.join("real/conf"), dir.join("last")).unwrap();
        assert!(matches!(open(&dir.join("last"), None).await, Err(LockError::Swapped(_) | LockError::Io(..))));
    }
}
