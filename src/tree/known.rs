//! Removal of what a run made. An entry is identified by inode, owner and time, never by its name
//! alone: another user may have chosen what has the name.

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

use super::{MAX_DEPTH, bits, kind, names, open, shown, status};

/// The identity of a file, link or directory: device, inode, owner, birth, and the last change of
/// content. Both times are in nanoseconds since 1970; the last is 0 for a directory. An inode that
/// is used again has a later birth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity(u64, u64, u32, i64, i64);

impl Identity {
    /// Returns the identity that a status shows.
    #[must_use]
    pub fn of(stat: &Statx) -> Self {
        let nanoseconds = |time: &fs::StatxTimestamp| {
            time.tv_sec
                .saturating_mul(1_000_000_000)
                .saturating_add(time.tv_nsec.into())
        };
        let changed = if kind(stat) == FileType::Directory {
            0
        } else {
            nanoseconds(&stat.stx_mtime)
        };
        let device = fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
        Self(
            device,
            stat.stx_ino,
            stat.stx_uid,
            nanoseconds(&stat.stx_btime),
            changed,
        )
    }

    /// Returns the identity without the time of the last change, for a file that is being written.
    #[must_use]
    pub fn unwritten(self) -> Self {
        Self(self.0, self.1, self.2, self.3, 0)
    }

    /// Returns the identity after a change of owner.
    #[must_use]
    pub fn owned_by(self, uid: u32) -> Self {
        Self(self.0, self.1, uid, self.3, self.4)
    }
}

/// The entries that a run made, and so may remove.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    /// Entries that are complete.
    pub whole: BTreeSet<Identity>,
    /// Entries that were being written, without the time of the last change. They may be removed
    /// with everything in them while no other user can enter them.
    pub sealed: BTreeSet<Identity>,
    /// True if an empty file or directory of the name may be removed: the run was about to create
    /// one.
    pub empty: bool,
}

/// The reason that an entry was not removed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotRemoved {
    /// It is not one that the run made.
    #[error("`{}` is not what the run left there; remove it by hand if it is not needed",
            shown(.0))]
    Unknown(PathBuf),
    /// The system's error.
    #[error("`{}`: {}", shown(.0), .1)]
    Io(PathBuf, Errno),
}

/// An entry to remove, with its directory.
struct Place<'a> {
    dir: &'a OwnedFd,
    name: &'a OsStr,
    path: &'a Path,
}

impl Place<'_> {
    fn failed(&self) -> impl Fn(Errno) -> NotRemoved {
        |e| NotRemoved::Io(self.path.into(), e)
    }

    /// Removes a file or link; it may be gone already.
    fn unlink(&self) -> Result<(), NotRemoved> {
        match fs::unlinkat(self.dir, self.name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(self.failed()(e)),
        }
    }

    /// Removes an empty directory.
    fn remove_directory(&self) -> Result<(), NotRemoved> {
        fs::unlinkat(self.dir, self.name, AtFlags::REMOVEDIR).map_err(self.failed())
    }
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

    /// Removes the entry `name` in `dir`, at `path`, and everything in it, as far as it is known.
    /// Links are not followed, and mounts are not entered. An entry that is missing is no error.
    ///
    /// # Errors
    /// Fails with the first entry that is not removed; every other known entry is gone then.
    pub(crate) fn remove(
        &self,
        dir: &OwnedFd,
        name: &OsStr,
        path: &Path,
    ) -> Result<(), NotRemoved> {
        let place = Place { dir, name, path };
        match status(dir, name) {
            Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(place.failed()(e)),
            Ok(stat) if kind(&stat) == FileType::Directory => {
                self.remove_tree(&place, false, 0).or_else(|why| {
                    if self.empty && place.remove_directory().is_ok() {
                        Ok(())
                    } else {
                        Err(why)
                    }
                })
            }
            Ok(stat) => {
                let is_new_and_empty = stat.stx_uid == rustix::process::geteuid().as_raw()
                    && stat.stx_size == 0
                    && stat.stx_nlink == 1;
                if !(self.has(&stat) || (self.empty && is_new_and_empty)) {
                    return Err(NotRemoved::Unknown(path.into()));
                }
                place.unlink()
            }
        }
    }

    /// Removes a directory after all that is known in it. If `sealed`, everything in it is known.
    fn remove_tree(&self, place: &Place<'_>, sealed: bool, depth: usize) -> Result<(), NotRemoved> {
        let inner = open(place.dir, place.name).map_err(place.failed())?;
        let stat = status(&inner, OsStr::new("")).map_err(place.failed())?;
        // A user that can write next to the target could nest directories without a limit.
        if depth > 2 * MAX_DEPTH || stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
            return Err(place.failed()(Errno::BUSY));
        }
        if !(sealed || self.has(&stat)) {
            return Err(NotRemoved::Unknown(place.path.into()));
        }
        let sealed = sealed || self.is_sealed(&stat);
        // Without write permission on a directory, only root can remove its entries.
        let _ = fs::fchmod(&inner, Mode::RWXU);
        let mut result = Ok(());
        for name in names(&inner, usize::MAX).map_err(place.failed())? {
            let path = place.path.join(&name);
            let entry = Place {
                dir: &inner,
                name: &name,
                path: &path,
            };
            result = result.and(self.remove_entry(&entry, sealed, depth));
        }
        result?;
        place.remove_directory()
    }

    fn remove_entry(
        &self,
        entry: &Place<'_>,
        sealed: bool,
        depth: usize,
    ) -> Result<(), NotRemoved> {
        match status(entry.dir, entry.name) {
            Err(Errno::NOENT) => Ok(()),
            Err(e) => Err(entry.failed()(e)),
            Ok(stat) if kind(&stat) == FileType::Directory => {
                self.remove_tree(entry, sealed, depth + 1)
            }
            Ok(stat) if sealed || self.has(&stat) => entry.unlink(),
            Ok(_) => Err(NotRemoved::Unknown(entry.path.into())),
        }
    }
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
    fn an_unknown_entry_stays_with_the_directories_above_it() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        let dir = OwnedFd::from(std::fs::File::open(place.path()).unwrap());
        std::fs::create_dir_all(path("tree/sub")).unwrap();
        for name in ["tree/a", "tree/sub/b", "file", "other"] {
            std::fs::write(path(name), name).unwrap();
        }
        symlink(path("other"), path("tree/link")).unwrap();
        let made =
            ["tree", "tree/a", "tree/sub", "tree/link", "file"].map(|name| identity(&dir, name));
        let known = Known {
            whole: made.into(),
            ..Known::default()
        };
        let remove = |name: &str| known.remove(&dir, OsStr::new(name), Path::new(name));
        assert_eq!(
            remove("tree"),
            Err(NotRemoved::Unknown("tree/sub/b".into()))
        );
        assert!(!path("tree/a").exists());
        assert!(path("tree/sub/b").exists());
        assert!(path("other").exists());
        assert_eq!(remove("other"), Err(NotRemoved::Unknown("other".into())));
        assert_eq!(remove("file"), Ok(()));
        assert_eq!(remove("file"), Ok(()), "a missing entry is no error");
        assert!(!path("file").exists());
        // Another directory under the name of a known one.
        std::fs::rename(path("tree"), path("moved")).unwrap();
        std::fs::create_dir(path("tree")).unwrap();
        assert_eq!(remove("tree"), Err(NotRemoved::Unknown("tree".into())));
        std::fs::remove_file(path("moved/sub/b")).unwrap();
        assert_eq!(remove("moved"), Ok(()));
        assert!(!path("moved").exists());
    }

    #[test]
    fn an_edited_file_is_not_known() {
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
        let result = known.remove(&dir, OsStr::new("file"), Path::new("file"));
        assert_eq!(result, Err(NotRemoved::Unknown("file".into())));
        assert!(file.exists());
    }

    #[test]
    fn a_sealed_directory_is_removed_with_its_entries_while_others_cannot_enter_it() {
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
        // A directory that a run was about to create is removed only if it is empty.
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
