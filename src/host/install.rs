//! Replaces one file so that no reader ever sees half of it and nothing of its attributes is lost.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{self, AtFlags, Gid, Mode, OFlags, RenameFlags, StatxAttributes, StatxFlags, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};

use crate::{
    config::{self, MAX_TARGET},
    step::Blob,
};

/// Why a target cannot be staged or installed.
#[derive(Debug, thiserror::Error)]
pub(super) enum InstallError {
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

/// A file to replace, under a held descriptor of its directory.
#[derive(Debug)]
pub(super) struct Target {
    path: PathBuf,
    dir: Arc<OwnedFd>,
    name: OsString,
    staged: Option<OsString>,
    /// The way back: the old bytes in a file without a name, so that a disk that fills meanwhile cannot stop an undo.
    reserve: Option<File>,
}

impl Target {
    /// The file `path` (resolved) in its directory `dir`.
    #[must_use]
    pub(super) fn new(path: &Path, dir: Arc<OwnedFd>) -> Self {
        let name = path.file_name().unwrap_or_default().into();
        Self { path: path.into(), dir, name, staged: None, reserve: None }
    }

    /// The bytes that stand there now.
    ///
    /// # Errors
    /// When it is no regular file, too large, or unreadable.
    pub(super) fn read(&self) -> Result<Blob, InstallError> {
        config::read(&self.path, MAX_TARGET).map(Blob::new).map_err(|e| InstallError::Refused(self.path.clone(), e.to_string()))
    }

    /// Whether everybody may read the file; when not, its content is a secret.
    #[must_use]
    pub(super) fn is_public(&self) -> bool {
        fs::statat(&*self.dir, &*self.name, AtFlags::empty()).is_ok_and(|s| s.st_mode & 0o004 != 0)
    }

    /// Digest of what stands there now.
    #[must_use]
    pub(super) fn digest(&self) -> Option<String> {
        self.digest_of(&self.name)
    }

    /// Writes `bytes` beside the live file, with its owner, mode and xattrs, synced; refuses what install could not replace. Answers the path.
    ///
    /// # Errors
    /// `Refused` by a guard; `Io` on a full or read-only filesystem.
    pub(super) fn stage(&mut self, bytes: &[u8], run: &str) -> Result<PathBuf, InstallError> {
        self.guard()?;
        self.sweep();
        let staged = self.beside(run);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = fs::openat(&*self.dir, &*staged, flags, Mode::RUSR | Mode::WUSR).map_err(|e| self.fail(e.into()))?;
        self.staged = Some(staged.clone());
        if let Err(e) = self.fill(&File::from(fd), bytes, false) {
            self.unstage();
            return Err(self.fail(e));
        }
        Ok(self.path.with_file_name(staged))
    }

    /// Writes the bytes of the way back into a file without a name: their place on the disk is taken before anything is touched.
    ///
    /// # Errors
    /// As [`Target::stage`]; a filesystem that has no such files is none: the way back is then staged when it is needed.
    pub(super) fn reserve(&mut self, bytes: &[u8]) -> Result<(), InstallError> {
        let fd = match fs::openat(&*self.dir, ".", OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => File::from(fd),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => return Ok(()),
            Err(e) => return Err(self.fail(e.into())),
        };
        self.fill(&fd, bytes, true).map_err(|e| self.fail(e))?;
        self.reserve = Some(fd);
        Ok(())
    }

    /// Makes the file `to`: it is `from`: exchange, and what came out must be `from`, else it goes straight back; it is `to` already: nothing.
    /// Answers whether it was exchanged.
    ///
    /// # Errors
    /// `Drifted` when it is neither; it is then as it was found.
    pub(super) fn install(&mut self, from: &str, to: &Blob, run: &str) -> Result<bool, InstallError> {
        match self.digest() {
            Some(now) if now == to.sha256 => return Ok(false),
            Some(now) if now == from => {}
            _ => return Err(InstallError::Drifted(self.path.clone())),
        }
        let staged = match self.staged.clone() {
            Some(staged) if self.digest_of(&staged).as_ref() == Some(&to.sha256) => staged,
            _ => self.restage(to, run)?,
        };
        let io = |e: Errno| InstallError::Io(self.path.clone(), e.into());
        let exchange = || fs::renameat_with(&*self.dir, &*staged, &*self.dir, &*self.name, RenameFlags::EXCHANGE);
        match exchange() {
            Ok(()) if self.digest_of(&staged).as_deref() == Some(from) => {}
            Ok(()) => {
                exchange().map_err(io)?;
                return Err(InstallError::Drifted(self.path.clone()));
            }
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => self.replace(&staged, from)?,
            Err(e) => return Err(io(e)),
        }
        fs::fsync(&*self.dir).map_err(io)?;
        // The old bytes are in the run already, so what came out can go.
        self.unstage();
        Ok(true)
    }

    /// Without an exchange: the old file keeps a second name until what was replaced is known to be it.
    fn replace(&self, staged: &OsStr, from: &str) -> Result<(), InstallError> {
        let io = |e: Errno| InstallError::Io(self.path.clone(), e.into());
        let mut old = OsString::from(staged);
        old.push("-old");
        fs::linkat(&*self.dir, &*self.name, &*self.dir, &*old, AtFlags::empty()).map_err(io)?;
        let known = self.digest_of(&old).as_deref() == Some(from);
        let renamed = if known { fs::renameat(&*self.dir, staged, &*self.dir, &*self.name).map_err(io) } else { Err(InstallError::Drifted(self.path.clone())) };
        // A second name that cannot go is swept by the next run.
        let _ = fs::unlinkat(&*self.dir, &*old, AtFlags::empty());
        renamed
    }

    /// Gives the way back its name; what was not reserved is written now.
    fn restage(&mut self, to: &Blob, run: &str) -> Result<OsString, InstallError> {
        self.unstage();
        let name = self.beside(&format!("{run}-undo"));
        if let Some(file) = &self.reserve {
            let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
            if fs::linkat(fs::CWD, &*nameless, &*self.dir, &*name, AtFlags::SYMLINK_FOLLOW).is_ok() {
                self.staged = Some(name.clone());
                if self.digest_of(&name).as_ref() == Some(&to.sha256) {
                    self.reserve = None;
                    return Ok(name);
                }
                self.unstage();
            }
        }
        self.stage(&to.bytes, &format!("{run}-undo"))?;
        Ok(name)
    }

    /// A leading dot and a foreign ending hide it from `include *` and from `*.yml`.
    fn beside(&self, run: &str) -> OsString {
        let mut name = OsString::from(".");
        name.push(&self.name);
        name.push(format!(".hello-{run}"));
        name
    }

    /// Removes what a run that was killed left beside the file: this run holds the lock, so nobody else's is in use.
    fn sweep(&self) {
        let prefix = self.beside("");
        for entry in std::fs::read_dir(self.path.parent().unwrap_or(Path::new("/"))).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(prefix.as_encoded_bytes()) {
                // One that is not ours to remove stays, and hurts nobody.
                let _ = fs::unlinkat(&*self.dir, entry.file_name(), AtFlags::empty());
            }
        }
    }

    fn fail(&self, e: io::Error) -> InstallError {
        match e.kind() {
            io::ErrorKind::PermissionDenied => InstallError::Refused(self.path.clone(), format!("staging beside it: {e}")),
            _ => InstallError::Io(self.path.clone(), io::Error::new(e.kind(), format!("staging beside it: {e}"))),
        }
    }

    fn fill(&self, mut file: &File, bytes: &[u8], as_old: bool) -> io::Result<()> {
        file.write_all(bytes)?;
        let live = fs::openat(&*self.dir, &*self.name, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK, Mode::empty())?;
        let stat = fs::fstat(&live)?;
        let mine = fs::fstat(file)?;
        // The owner first: a change of owner clears mode bits.
        if (mine.st_uid, mine.st_gid) != (stat.st_uid, stat.st_gid) {
            fs::fchown(file, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
        }
        fs::fchmod(file, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        copy_xattrs(&live, file)?;
        if as_old {
            let last_modification = Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec.try_into().unwrap_or_default() };
            fs::futimens(file, &Timestamps { last_access: last_modification, last_modification })?;
        }
        file.sync_all()
    }

    fn guard(&self) -> Result<(), InstallError> {
        let refuse = |why: &str| Err(InstallError::Refused(self.path.clone(), why.into()));
        let io = |e: Errno| InstallError::Io(self.path.clone(), e.into());
        let stat = fs::statx(&*self.dir, &*self.name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS).map_err(io)?;
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
        let dir = fs::fstat(&*self.dir).map_err(io)?;
        let me = rustix::process::geteuid();
        if dir.st_mode & 0o1000 != 0 && !me.is_root() && ![dir.st_uid, stat.stx_uid].contains(&me.as_raw()) {
            return refuse("its directory is sticky, and neither is yours");
        }
        Ok(())
    }

    fn digest_of(&self, name: &OsStr) -> Option<String> {
        let fd = fs::openat(&*self.dir, name, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK, Mode::empty()).ok()?;
        let mut bytes = Vec::new();
        File::from(fd).take(MAX_TARGET + 1).read_to_end(&mut bytes).ok()?;
        Some(config::digest(&bytes))
    }

    /// Removes the staged file, if there is one.
    pub(super) fn unstage(&mut self) {
        if let Some(staged) = self.staged.take() {
            // A file that is gone already is what was wanted.
            let _ = fs::unlinkat(&*self.dir, &*staged, AtFlags::empty());
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.unstage();
    }
}

fn copy_xattrs(from: &OwnedFd, to: &File) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    fn target(bytes: &[u8]) -> (tempfile::TempDir, PathBuf, Target) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("web.toml");
        std::fs::write(&path, bytes).unwrap();
        let fd = File::open(dir.path()).unwrap().into();
        let target = Target::new(&path, Arc::new(fd));
        (dir, path, target)
    }

    #[test]
    fn what_was_not_surveyed_is_left_alone() {
        let (dir, path, mut target) = target(b"surveyed");
        let to = Blob::new(b"new".to_vec());
        target.stage(&to.bytes, "1").unwrap();
        std::fs::write(&path, b"somebody else").unwrap();
        assert!(matches!(target.install(&config::digest(b"surveyed"), &to, "1"), Err(InstallError::Drifted(_))));
        drop(target);
        assert_eq!(std::fs::read(&path).unwrap(), b"somebody else");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing staged is left");
    }

    #[test]
    fn there_and_back_again_from_what_was_reserved() {
        let (dir, path, mut target) = target(b"old");
        let (from, to) = (Blob::new(b"old".to_vec()), Blob::new(b"new".to_vec()));
        std::fs::write(dir.path().join(".web.toml.hello-dead"), b"left by a dead run").unwrap();
        let before = path.metadata().unwrap().modified().unwrap();
        target.stage(&to.bytes, "1").unwrap();
        target.reserve(&from.bytes).unwrap();
        assert!(target.install(&from.sha256, &to, "1").unwrap() && !target.install(&from.sha256, &to, "1").unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert!(target.install(&to.sha256, &from, "1").unwrap());
        assert_eq!((std::fs::read(&path).unwrap(), path.metadata().unwrap().modified().unwrap()), (b"old".to_vec(), before));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "neither staged files nor those of a dead run are left");
    }

    #[test]
    fn without_an_exchange_the_old_file_is_known_before_it_is_replaced() {
        let (dir, path, mut target) = target(b"old");
        target.stage(b"new", "1").unwrap();
        let staged = target.beside("1");
        assert!(matches!(target.replace(&staged, "another digest"), Err(InstallError::Drifted(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        target.replace(&staged, &config::digest(b"old")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_hard_link_is_refused() {
        let (dir, path, mut target) = target(b"old");
        std::fs::hard_link(&path, dir.path().join("other")).unwrap();
        assert!(matches!(target.stage(b"new", "1"), Err(InstallError::Refused(..))));
    }
}
