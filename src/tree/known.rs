//! Removes only what is known: by inode, owner and time, never by name alone. A name can stand for
//! another user's choice.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self, AtFlags, FileType, Mode, Statx, StatxAttributes},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use super::{MAX_DEPTH, bits, names, open, shown, status};

/// One file, link or directory: device, inode, owner, birth, and of what is no directory its last
/// change of content, both in nanoseconds since 1970. An inode that is used again was born later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity(u64, u64, u32, i64, i64);

impl Identity {
    /// Of what the kernel told.
    #[must_use]
    pub fn of(stat: &Statx) -> Self {
        let nanos = |at: &fs::StatxTimestamp| {
            at.tv_sec
                .saturating_mul(1_000_000_000)
                .saturating_add(at.tv_nsec.into())
        };
        let changed = if kind(stat) == FileType::Directory {
            0
        } else {
            nanos(&stat.stx_mtime)
        };
        let device = fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
        Self(
            device,
            stat.stx_ino,
            stat.stx_uid,
            nanos(&stat.stx_btime),
            changed,
        )
    }

    /// The same while it is written: whatever is in it.
    #[must_use]
    pub fn unwritten(self) -> Self {
        Self(self.0, self.1, self.2, self.3, 0)
    }

    /// The same once it belongs to another user.
    #[must_use]
    pub fn owned_by(self, uid: u32) -> Self {
        Self(self.0, self.1, uid, self.3, self.4)
    }
}

/// What may be removed.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// These.
    pub whole: BTreeSet<Identity>,
    /// These as long as no other user can enter them, with whatever is in them: they were being
    /// written.
    pub sealed: BTreeSet<Identity>,
    /// What has nothing in it: a name that was about to be made.
    pub empty: bool,
}

/// Why something stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotRemoved {
    /// It is not what was known.
    #[error("`{}` is not what a run has left there; remove it by hand if it may go", shown(.0))]
    Unknown(PathBuf),
    /// The system's reason.
    #[error("`{}`: {}", shown(.0), .1)]
    Io(PathBuf, Errno),
}

impl Known {
    fn has(&self, stat: &Statx) -> bool {
        let identity = Identity::of(stat);
        self.whole.contains(&identity) || self.is_sealed(stat)
    }

    fn is_sealed(&self, stat: &Statx) -> bool {
        let closed = stat.stx_uid == rustix::process::geteuid().as_raw() && bits(stat) & 0o077 == 0;
        closed && self.sealed.contains(&Identity::of(stat).unwritten())
    }

    /// Removes what stands in `dir` under this name, at `path`, as far as it is known; links are
    /// not followed, mounts not entered. What is gone already is as it was wanted.
    ///
    /// # Errors
    /// Fails at the first thing that stays; everything else is gone then.
    pub fn remove(&self, dir: &OwnedFd, name: &OsStr, path: &Path) -> Result<(), NotRemoved> {
        let io = |e: Errno| NotRemoved::Io(path.into(), e);
        match status(dir, name) {
            Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(io(e)),
            Ok(stat) if kind(&stat) == FileType::Directory => {
                let said = open(dir, name)
                    .map_err(io)
                    .and_then(|inner| self.empty_out(dir, name, &inner, path, false, 0));
                let bare = || self.empty && fs::unlinkat(dir, name, AtFlags::REMOVEDIR).is_ok();
                said.or_else(|why| if bare() { Ok(()) } else { Err(why) })
            }
            Ok(stat) => {
                let is_bare = stat.stx_uid == rustix::process::geteuid().as_raw()
                    && stat.stx_size == 0
                    && stat.stx_nlink == 1;
                if !(self.has(&stat) || (self.empty && is_bare)) {
                    return Err(NotRemoved::Unknown(path.into()));
                }
                unlink(dir, name).map_err(io)
            }
        }
    }

    /// Removes a directory that is open, and before it all that is known in it; `sealed` is whether
    /// all of that is.
    fn empty_out(
        &self,
        dir: &OwnedFd,
        name: &OsStr,
        inner: &OwnedFd,
        path: &Path,
        sealed: bool,
        depth: usize,
    ) -> Result<(), NotRemoved> {
        let io = |e: Errno| NotRemoved::Io(path.into(), e);
        let stat = status(inner, OsStr::new("")).map_err(io)?;
        // Who can write beside the target could make it as deep as they like.
        if depth > 2 * MAX_DEPTH || stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            return Err(io(Errno::BUSY));
        }
        if !(sealed || self.has(&stat)) {
            return Err(NotRemoved::Unknown(path.into()));
        }
        let sealed = sealed || self.is_sealed(&stat);
        // One that its owner may not write keeps its entries from anybody but root.
        let _ = fs::fchmod(inner, Mode::RWXU);
        let mut stays = Ok(());
        for entry in names(inner, usize::MAX).map_err(io)? {
            let at = path.join(&entry);
            let said = match status(inner, &entry) {
                Err(Errno::NOENT) => Ok(()),
                Err(e) => Err(NotRemoved::Io(at, e)),
                Ok(stat) if kind(&stat) == FileType::Directory => open(inner, &entry)
                    .map_err(|e| NotRemoved::Io(at.clone(), e))
                    .and_then(|deeper| {
                        self.empty_out(inner, &entry, &deeper, &at, sealed, depth + 1)
                    }),
                Ok(stat) if sealed || self.has(&stat) => {
                    unlink(inner, &entry).map_err(|e| NotRemoved::Io(at, e))
                }
                Ok(_) => Err(NotRemoved::Unknown(at)),
            };
            stays = stays.and(said);
        }
        stays?;
        fs::unlinkat(dir, name, AtFlags::REMOVEDIR).map_err(io)
    }
}

fn unlink(dir: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    match fs::unlinkat(dir, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        said => said,
    }
}

fn kind(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::os::unix::fs::symlink;

    use super::*;

    fn identity(dir: &OwnedFd, name: &str) -> Identity {
        Identity::of(&status(dir, OsStr::new(name)).unwrap())
    }

    #[test]
    fn what_is_not_known_stays_with_the_directories_above_it() {
        let place = tempfile::tempdir().unwrap();
        let at = |name: &str| place.path().join(name);
        let dir = OwnedFd::from(std::fs::File::open(place.path()).unwrap());
        std::fs::create_dir_all(at("tree/sub")).unwrap();
        for name in ["tree/a", "tree/sub/b", "file", "other"] {
            std::fs::write(at(name), name).unwrap();
        }
        symlink(at("other"), at("tree/link")).unwrap();
        let all =
            ["tree", "tree/a", "tree/sub", "tree/link", "file"].map(|name| identity(&dir, name));
        let known = Known {
            whole: all.into(),
            ..Known::default()
        };
        let remove = |name: &str| known.remove(&dir, OsStr::new(name), Path::new(name));
        assert_eq!(
            remove("tree"),
            Err(NotRemoved::Unknown("tree/sub/b".into()))
        );
        assert!(!at("tree/a").exists() && at("tree/sub/b").exists() && at("other").exists());
        assert_eq!(remove("other"), Err(NotRemoved::Unknown("other".into())));
        assert_eq!(
            (remove("file"), remove("file"), at("file").exists()),
            (Ok(()), Ok(()), false)
        );
        // Another directory under a name that is known.
        std::fs::rename(at("tree"), at("moved")).unwrap();
        std::fs::create_dir(at("tree")).unwrap();
        assert_eq!(remove("tree"), Err(NotRemoved::Unknown("tree".into())));
        std::fs::remove_file(at("moved/sub/b")).unwrap();
        assert_eq!((remove("moved"), at("moved").exists()), (Ok(()), false));
    }

    #[test]
    fn what_was_edited_is_not_what_was_known() {
        let place = tempfile::tempdir().unwrap();
        let dir = OwnedFd::from(std::fs::File::open(place.path()).unwrap());
        let file = place.path().join("file");
        std::fs::write(&file, "1").unwrap();
        let known = Known {
            whole: [identity(&dir, "file")].into(),
            ..Known::default()
        };
        let later = std::time::SystemTime::now() + std::time::Duration::from_secs(5);
        std::fs::File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_modified(later)
            .unwrap();
        assert!(
            known
                .remove(&dir, OsStr::new("file"), Path::new("file"))
                .is_err()
                && file.exists()
        );
    }

    #[test]
    fn one_that_was_being_written_goes_with_all_that_is_in_it_as_long_as_it_is_closed() {
        use std::os::unix::fs::PermissionsExt;
        let place = tempfile::tempdir().unwrap();
        let dir = OwnedFd::from(std::fs::File::open(place.path()).unwrap());
        std::fs::create_dir_all(place.path().join("tree/sub")).unwrap();
        let mode = |mode: u32| {
            std::fs::set_permissions(
                place.path().join("tree"),
                std::fs::Permissions::from_mode(mode),
            )
            .unwrap()
        };
        let known = Known {
            sealed: [identity(&dir, "tree").unwritten()].into(),
            ..Known::default()
        };
        let remove = || known.remove(&dir, OsStr::new("tree"), Path::new("tree"));
        mode(0o755);
        assert!(remove().is_err());
        mode(0o700);
        assert_eq!(remove(), Ok(()));
        // A name that was about to be made: nothing is in it.
        let known = Known {
            empty: true,
            ..Known::default()
        };
        let remove = || known.remove(&dir, OsStr::new("tree"), Path::new("tree"));
        std::fs::create_dir_all(place.path().join("tree/sub")).unwrap();
        assert!(remove().is_err());
        std::fs::remove_dir(place.path().join("tree/sub")).unwrap();
        assert_eq!(remove(), Ok(()));
    }
}
