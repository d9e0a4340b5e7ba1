//! Replaces one file so that no reader ever sees half of it and nothing of its attributes is lost.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::fs::{self, AtFlags, FlockOperation, Gid, Mode, OFlags, RenameFlags, StatxAttributes, StatxFlags, Uid, XattrFlags};

use crate::config::{self, MAX_TARGET};

/// Why a target cannot be locked, staged or installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Another run holds the directory's lock.
    #[error("another run holds the lock of `{}`{}", .0.display(), .1)]
    Busy(PathBuf, String),
    /// A guard said no.
    #[error("`{}` cannot be installed: {}", .0.display(), .1)]
    Refused(PathBuf, String),
    /// The file is not what was surveyed; it was left alone.
    #[error("`{}` was changed by somebody else meanwhile; left alone", .0.display())]
    Drifted(PathBuf),
    /// The system said no.
    #[error("`{}`: {}", .0.display(), .1)]
    Io(PathBuf, io::Error),
}

/// A target under its directory's lock, which is dropped with it, and by the kernel with its owner.
#[derive(Debug)]
pub struct Target {
    /// Resolved path.
    pub path: PathBuf,
    dir: OwnedFd,
    name: OsString,
    staged: Option<OsString>,
}

impl Target {
    /// Locks the directory of `path`; `locked` is false for a look that must not lock.
    ///
    /// # Errors
    /// `Busy` when another run holds it past `wait`.
    pub fn open(path: &Path, locked: bool, wait: Duration) -> Result<Self, InstallError> {
        let io = |e: rustix::io::Errno| InstallError::Io(path.into(), e.into());
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(InstallError::Refused(path.into(), "it is no file".into()));
        };
        let dir = fs::open(parent, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(io)?;
        let deadline = Instant::now() + wait;
        while let (true, lock) = (locked, fs::flock(&dir, FlockOperation::NonBlockingLockExclusive)) {
            match lock {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(20)),
                Err(rustix::io::Errno::WOULDBLOCK) => return Err(InstallError::Busy(parent.into(), owner(&dir))),
                Err(e) => return Err(io(e)),
            }
        }
        Ok(Self { path: path.into(), dir, name: name.into(), staged: None })
    }

    /// The bytes that stand there now.
    ///
    /// # Errors
    /// When it is no regular file, too large, or unreadable.
    pub fn read(&self) -> Result<Vec<u8>, InstallError> {
        config::read(&self.path, MAX_TARGET).map_err(|e| InstallError::Refused(self.path.clone(), e.to_string()))
    }

    /// Whether everybody may read the file; when not, its content is a secret.
    #[must_use]
    pub fn is_public(&self) -> bool {
        fs::statat(&self.dir, &*self.name, AtFlags::empty()).is_ok_and(|s| s.st_mode & 0o004 != 0)
    }

    /// Writes `bytes` beside the live file, with its owner, mode and xattrs, synced; refuses what install could not replace.
    ///
    /// # Errors
    /// `Refused` by a guard; `Io` on a full or read-only filesystem.
    pub fn stage(&mut self, bytes: &[u8], run: &str) -> Result<PathBuf, InstallError> {
        self.guard()?;
        let mut staged = OsString::from(".");
        staged.push(&self.name);
        staged.push(format!(".hello-{run}"));
        let path = self.path.clone();
        let fail = |e: io::Error| match e.kind() {
            io::ErrorKind::PermissionDenied => InstallError::Refused(path.clone(), format!("staging beside it: {e}")),
            _ => InstallError::Io(path.clone(), e),
        };
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = fs::openat(&self.dir, &*staged, flags, Mode::RUSR | Mode::WUSR).map_err(|e| fail(e.into()))?;
        self.staged = Some(staged.clone());
        let result = self.fill(File::from(fd), bytes);
        if let Err(e) = result {
            self.unstage();
            return Err(fail(e));
        }
        Ok(self.path.with_file_name(staged))
    }

    fn fill(&self, mut file: File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)?;
        let live = fs::openat(&self.dir, &*self.name, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?;
        let stat = fs::fstat(&live)?;
        let mine = fs::fstat(&file)?;
        // The owner first: a change of owner clears mode bits.
        if (mine.st_uid, mine.st_gid) != (stat.st_uid, stat.st_gid) {
            fs::fchown(&file, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
        }
        fs::fchmod(&file, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        copy_xattrs(&live, &file)?;
        file.sync_all()
    }

    fn guard(&self) -> Result<(), InstallError> {
        let refuse = |why: &str| Err(InstallError::Refused(self.path.clone(), why.into()));
        let stat =
            fs::statx(&self.dir, &*self.name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS).map_err(|e| InstallError::Io(self.path.clone(), e.into()))?;
        let is = |flag: StatxAttributes| stat.stx_attributes.contains(flag);
        if fs::FileType::from_raw_mode(stat.stx_mode.into()) != fs::FileType::RegularFile {
            return refuse("it is not a regular file");
        }
        if is(StatxAttributes::MOUNT_ROOT) {
            return refuse("it is a mount point; change the file it is bound from");
        }
        if is(StatxAttributes::IMMUTABLE) || is(StatxAttributes::APPEND) {
            return refuse("it is immutable or append-only (chattr)");
        }
        if stat.stx_nlink > 1 {
            return refuse("it has more than one hard link, and the other names would keep the old bytes");
        }
        Ok(())
    }

    /// Exchanges the staged file with the live one; what came out must be what was surveyed, else it goes straight back.
    ///
    /// # Errors
    /// `Drifted` when it was not; the live file is then as it was found.
    pub fn install(&mut self, from: &str) -> Result<(), InstallError> {
        let io = |e: rustix::io::Errno| InstallError::Io(self.path.clone(), e.into());
        let Some(staged) = self.staged.clone() else {
            return Err(InstallError::Refused(self.path.clone(), "nothing is staged".into()));
        };
        let exchange = || fs::renameat_with(&self.dir, &*staged, &self.dir, &*self.name, RenameFlags::EXCHANGE);
        exchange().map_err(io)?;
        if self.digest_of(&staged).as_deref() != Some(from) {
            exchange().map_err(io)?;
            return Err(InstallError::Drifted(self.path.clone()));
        }
        fs::fsync(&self.dir).map_err(io)?;
        // The old bytes are in the run already, so what came out can go.
        self.unstage();
        Ok(())
    }

    fn digest_of(&self, name: &OsStr) -> Option<String> {
        let fd = fs::openat(&self.dir, name, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK, Mode::empty()).ok()?;
        let mut bytes = Vec::new();
        File::from(fd).take(MAX_TARGET + 1).read_to_end(&mut bytes).ok()?;
        Some(config::digest(&bytes))
    }

    /// Digest of what stands there now.
    #[must_use]
    pub fn digest(&self) -> Option<String> {
        self.digest_of(&self.name)
    }

    /// Removes the staged file, if there is one.
    pub fn unstage(&mut self) {
        if let Some(staged) = self.staged.take() {
            // A file that is gone already is what was wanted.
            let _ = fs::unlinkat(&self.dir, &*staged, AtFlags::empty());
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.unstage();
    }
}

fn copy_xattrs(from: &OwnedFd, to: &File) -> io::Result<()> {
    use rustix::io::Errno;
    let mut names = vec![0u8; 64 << 10];
    let length = match fs::flistxattr(from, &mut names[..]) {
        Ok(length) => length,
        Err(Errno::OPNOTSUPP) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    for name in names[..length].split(|b| *b == 0).filter(|n| !n.is_empty()) {
        let mut value = vec![0u8; 64 << 10];
        let size = fs::fgetxattr(from, name, &mut value[..])?;
        match fs::fsetxattr(to, name, &value[..size], XattrFlags::empty()) {
            // Labels that only the system may set are set by it.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Who holds the lock, from `/proc/locks`: ", pid 17 of uid 0: hello broadcast".
fn owner(dir: &OwnedFd) -> String {
    let Ok(stat) = fs::fstat(dir) else { return String::new() };
    let suffix = format!(":{}", stat.st_ino);
    let locks = std::fs::read_to_string("/proc/locks").unwrap_or_default();
    let pid = locks.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.get(1) == Some(&"FLOCK") && fields.get(5)?.ends_with(&suffix)).then(|| fields[4].to_owned())
    });
    let Some(pid) = pid else { return String::new() };
    let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let command = String::from_utf8_lossy(&command).replace('\0', " ");
    let user = procfs::process::Process::new(pid.parse().unwrap_or(0)).and_then(|p| p.status()).map_or(String::new(), |s| format!(" of uid {}", s.euid));
    format!(": pid {pid}{user}: {}", command.trim())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    fn file(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("web.toml");
        std::fs::write(&path, bytes).unwrap();
        (dir, path)
    }

    #[test]
    fn what_was_not_surveyed_goes_straight_back() {
        let (dir, path) = file(b"surveyed");
        let mut target = Target::open(&path, true, Duration::ZERO).unwrap();
        target.stage(b"new", "1").unwrap();
        std::fs::write(&path, b"somebody else").unwrap();
        assert!(matches!(target.install(&config::digest(b"surveyed")), Err(InstallError::Drifted(_))));
        drop(target);
        assert_eq!(std::fs::read(&path).unwrap(), b"somebody else");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing staged is left");
    }

    #[test]
    fn a_second_run_is_busy_and_a_hard_link_is_refused() {
        let (dir, path) = file(b"old");
        let mut target = Target::open(&path, true, Duration::ZERO).unwrap();
        assert!(matches!(Target::open(&path, true, Duration::ZERO), Err(InstallError::Busy(..))));
        std::fs::hard_link(&path, dir.path().join("other")).unwrap();
        assert!(matches!(target.stage(b"new", "1"), Err(InstallError::Refused(..))));
    }
}
