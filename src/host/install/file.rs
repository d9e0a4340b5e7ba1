//! A target that is a file.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
};

use rustix::{
    fs::{self, AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid},
    io::Errno,
};

use super::{InstallError, Spot, Sync, copy_xattrs, kind};
use crate::{
    config::{self, MAX_TARGET},
    step::Blob,
};

/// A file to replace.
#[derive(Debug)]
pub(in crate::host) struct FileTarget {
    pub(super) spot: Spot,
    /// The way back: the old bytes in a file without a name, so that a disk that fills meanwhile cannot stop an undo.
    reserve: Option<OwnedFd>,
}

impl FileTarget {
    pub(super) fn new(spot: Spot) -> Self {
        Self { spot, reserve: None }
    }

    pub(super) fn read(&self) -> Result<Blob, InstallError> {
        // Through the held directory, and along no link: somebody may have put one there since the path was resolved.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = fs::openat(&*self.spot.dir, &*self.spot.name, flags, Mode::empty()).map_err(|e| match e {
            Errno::LOOP => self.spot.refused("it is a symbolic link by now"),
            e => self.spot.refused(e.to_string()),
        })?;
        config::read_fd(fd, MAX_TARGET).map(Blob::new).map_err(|e| self.spot.refused(e.to_string()))
    }

    pub(super) fn is_public(&self) -> bool {
        self.spot.status().is_ok_and(|s| s.stx_mode & 0o004 != 0)
    }

    pub(super) fn digest(&self) -> Option<String> {
        digest_of(&self.spot.dir, &self.spot.name)
    }

    pub(super) fn stage(&mut self, bytes: &[u8], run: &str, sync: Sync) -> Result<PathBuf, InstallError> {
        self.guard()?;
        let staged = self.spot.beside(run);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = fs::openat(&*self.spot.dir, &*staged, flags, Mode::RUSR | Mode::WUSR).map_err(|e| self.spot.unstaged(e))?;
        self.spot.staged = Some(staged.clone());
        if let Err(e) = self.fill(fd, bytes, false, sync) {
            self.spot.unstage();
            return Err(self.spot.unstaged(e));
        }
        Ok(self.spot.path.with_file_name(staged))
    }

    /// Writes the bytes of the way back into a file without a name: their place on the disk is taken before anything is touched.
    /// A filesystem that has no such files is no trouble: the way back is then staged when it is needed.
    pub(super) fn reserve(&mut self, bytes: &[u8], sync: Sync) -> Result<(), InstallError> {
        let fd = match fs::openat(&*self.spot.dir, ".", OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => fd,
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => return Ok(()),
            Err(e) => return Err(self.spot.unstaged(e)),
        };
        self.reserve = Some(self.fill(fd, bytes, true, sync).map_err(|e| self.spot.unstaged(e))?);
        Ok(())
    }

    pub(super) fn install(&mut self, from: &str, to: &Blob, run: &str) -> Result<bool, InstallError> {
        if self.spot.is_done(self.digest(), from, to)? {
            return Ok(false);
        }
        let staged = match self.spot.staged.clone() {
            Some(staged) if digest_of(&self.spot.dir, &staged).as_ref() == Some(&to.sha256) => staged,
            _ => self.restage(to, run)?,
        };
        if self.spot.exchange(&staged, from, digest_of)?.is_err() {
            self.replace(&staged, from)?;
        }
        // The old bytes are in the run already, so what came out can go.
        self.spot.unstage();
        Ok(true)
    }

    /// Without an exchange: the old file keeps a second name until what was replaced is known to be it.
    fn replace(&mut self, staged: &OsStr, from: &str) -> Result<(), InstallError> {
        let Spot { dir, name, .. } = &self.spot;
        let mut old = OsString::from(staged);
        old.push("-old");
        fs::linkat(&**dir, &**name, &**dir, &*old, AtFlags::empty()).map_err(|e| self.spot.io(e))?;
        let known = digest_of(dir, &old).as_deref() == Some(from);
        let renamed = if known { fs::renameat(&**dir, staged, &**dir, &**name).map_err(|e| self.spot.io(e)) } else { Err(self.spot.drifted()) };
        // A second name that cannot go is swept by the next run.
        let _ = fs::unlinkat(&**dir, &*old, AtFlags::empty());
        renamed?;
        self.spot.exchanged = true;
        Ok(())
    }

    /// Gives the way back its name; what was not reserved is written now.
    fn restage(&mut self, to: &Blob, run: &str) -> Result<OsString, InstallError> {
        self.spot.unstage();
        let name = self.spot.beside(&format!("{run}-undo"));
        if let Some(file) = &self.reserve {
            let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
            if fs::linkat(fs::CWD, &*nameless, &*self.spot.dir, &*name, AtFlags::SYMLINK_FOLLOW).is_ok() {
                self.spot.staged = Some(name.clone());
                if digest_of(&self.spot.dir, &name).as_ref() == Some(&to.sha256) {
                    self.reserve = None;
                    return Ok(name);
                }
                self.spot.unstage();
            }
        }
        // What could not be removed is in the way now.
        self.spot.sweep(&self.spot.names());
        self.stage(&to.bytes, &format!("{run}-undo"), Sync::Singly)?;
        Ok(name)
    }

    /// Writes the bytes, and gives the file what the live one has; `as_old` also its time.
    fn fill(&self, fd: OwnedFd, bytes: &[u8], as_old: bool, sync: Sync) -> io::Result<OwnedFd> {
        let mut file = File::from(fd);
        file.write_all(bytes)?;
        let fd = OwnedFd::from(file);
        let live = fs::openat(&*self.spot.dir, &*self.spot.name, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK, Mode::empty())?;
        let stat = fs::fstat(&live)?;
        let mine = fs::fstat(&fd)?;
        // The owner first: a change of owner clears mode bits.
        if (mine.st_uid, mine.st_gid) != (stat.st_uid, stat.st_gid) {
            fs::fchown(&fd, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
        }
        copy_xattrs(&live, &fd)?;
        fs::fchmod(&fd, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        // Who knows a file by its size and whole seconds, as Python's cache of compiled files does, must see that it is another one.
        let later = (!as_old && mine.st_mtime == stat.st_mtime).then_some(stat.st_mtime + 1);
        if let Some(tv_sec) = later.or(as_old.then_some(stat.st_mtime)) {
            let last_modification = Timespec { tv_sec, tv_nsec: stat.st_mtime_nsec.try_into().unwrap_or_default() };
            fs::futimens(&fd, &Timestamps { last_access: last_modification, last_modification })?;
        }
        if sync == Sync::Singly {
            fs::fsync(&fd)?;
        }
        Ok(fd)
    }

    pub(super) fn guard(&self) -> Result<(), InstallError> {
        let stat = self.spot.status().map_err(|e| self.spot.io(e))?;
        match kind(&stat) {
            FileType::RegularFile => self.spot.guard(&stat),
            _ => Err(self.spot.refused("it is not a regular file")),
        }
    }
}

fn digest_of(dir: &OwnedFd, name: &OsStr) -> Option<String> {
    let fd = fs::openat(dir, name, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK, Mode::empty()).ok()?;
    // Room for most, so that one read takes all of it.
    let mut bytes = Vec::with_capacity(4096);
    File::from(fd).take(MAX_TARGET + 1).read_to_end(&mut bytes).ok()?;
    Some(config::digest(&bytes))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::sync::Arc;

    use super::{super::Target, *};

    fn target(bytes: &[u8]) -> (tempfile::TempDir, PathBuf, FileTarget) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("web.toml");
        std::fs::write(&path, bytes).unwrap();
        let fd = File::open(dir.path()).unwrap().into();
        let Target::File(target) = Target::new(&path, Arc::new(fd)) else { panic!("it is a file") };
        (dir, path, target)
    }

    #[test]
    fn what_was_not_surveyed_is_left_alone() {
        let (dir, path, mut target) = target(b"surveyed");
        let to = Blob::new(b"new".to_vec());
        target.stage(&to.bytes, "1", Sync::Singly).unwrap();
        std::fs::write(&path, b"somebody else").unwrap();
        assert!(matches!(target.install(&config::digest(b"surveyed"), &to, "1"), Err(InstallError::Drifted(_))));
        drop(target);
        assert_eq!(std::fs::read(&path).unwrap(), b"somebody else");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing staged is left");
    }

    #[test]
    fn what_is_new_has_another_second() {
        let (_dir, path, mut target) = target(b"old");
        let seconds = |path: &std::path::Path| std::os::unix::fs::MetadataExt::mtime(&path.metadata().unwrap());
        let old = seconds(&path);
        let staged = target.stage(b"new", "1", Sync::Singly).unwrap();
        assert!(seconds(&staged) > old);
    }

    #[test]
    fn there_and_back_again_from_what_was_reserved() {
        let (dir, path, mut target) = target(b"old");
        let (from, to) = (Blob::new(b"old".to_vec()), Blob::new(b"new".to_vec()));
        std::fs::write(dir.path().join(".web.toml.hello-dead"), b"left by a dead run").unwrap();
        let before = path.metadata().unwrap().modified().unwrap();
        target.spot.sweep(&target.spot.names());
        target.stage(&to.bytes, "1", Sync::Singly).unwrap();
        target.reserve(&from.bytes, Sync::Singly).unwrap();
        assert!(target.install(&from.sha256, &to, "1").unwrap() && !target.install(&from.sha256, &to, "1").unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert!(target.install(&to.sha256, &from, "1").unwrap());
        assert_eq!((std::fs::read(&path).unwrap(), path.metadata().unwrap().modified().unwrap()), (b"old".to_vec(), before));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "neither staged files nor those of a dead run are left");
    }

    #[test]
    fn without_an_exchange_the_old_file_is_known_before_it_is_replaced() {
        let (dir, path, mut target) = target(b"old");
        target.stage(b"new", "1", Sync::Singly).unwrap();
        let staged = target.spot.beside("1");
        assert!(matches!(target.replace(&staged, "another digest"), Err(InstallError::Drifted(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        target.replace(&staged, &config::digest(b"old")).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"new");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_link_is_not_read() {
        let (dir, path, target) = target(b"old");
        assert_eq!(*target.read().unwrap().bytes, *b"old");
        std::fs::rename(&path, dir.path().join("other")).unwrap();
        std::os::unix::fs::symlink("other", &path).unwrap();
        assert!(target.read().unwrap_err().to_string().contains("link by now"));
    }

    #[test]
    fn a_hard_link_is_refused() {
        let (dir, path, mut target) = target(b"old");
        std::fs::hard_link(&path, dir.path().join("other")).unwrap();
        assert!(matches!(target.stage(b"new", "1", Sync::Singly), Err(InstallError::Refused(..))));
    }
}
