//! Replaces a file, a directory or the value of a key in one step: no reader sees a part of it.
//! Every attribute of a file is kept.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{self, FileType};

pub(crate) use self::{error::InstallError, sync::Sync};
use self::{
    file::FileTarget, key::KeyTarget, late_edit::LateEdit, slot::TargetSlot, stat::ctime,
    tree::TreeTarget,
};
use crate::{
    fleet::Key,
    runs::Staging,
    step::Content,
    tree::{kind, status},
};

mod entries;
mod error;
mod file;
mod guard;
mod key;
mod late_edit;
mod slot;
mod stat;
mod sync;
mod tree;

/// Writes everything that was staged for `targets` to the disk, with one syncfs per filesystem.
///
/// # Errors
/// Fails with `Io` if a filesystem cannot write it.
pub(crate) fn sync_all<'a>(targets: impl Iterator<Item = &'a Target>) -> Result<(), InstallError> {
    let mut synced = BTreeSet::new();
    for slot in targets.filter_map(Target::slot) {
        let device = fs::fstat(&*slot.dir).map_err(|e| slot.io(e))?.st_dev;
        if synced.insert(device) {
            fs::syncfs(&*slot.dir).map_err(|e| slot.io(e))?;
        }
    }
    Ok(())
}

/// Writes the new names of `targets` to the disk, each directory once.
///
/// # Errors
/// Fails with `Io` if a filesystem cannot write it.
pub(crate) fn sync_names<'a>(
    targets: impl Iterator<Item = &'a Target>,
) -> Result<(), InstallError> {
    let dirs: BTreeMap<*const OwnedFd, &Target> = targets
        .filter_map(|target| Some((Arc::as_ptr(&target.slot()?.dir), target)))
        .collect();
    if Sync::of(dirs.len()) == Sync::Together {
        return sync_all(dirs.into_values());
    }
    dirs.into_values()
        .filter_map(Target::slot)
        .try_for_each(|slot| fs::fsync(&*slot.dir).map_err(|e| slot.io(e)))
}

/// A file or directory to replace, through a held descriptor of its directory; or a key.
#[derive(Debug)]
pub(crate) enum Target {
    File(FileTarget),
    Directory(TreeTarget),
    Key(Box<KeyTarget>),
}

impl Target {
    /// Returns the target at the resolved `path`, in its directory `dir`. Anything but a directory
    /// is treated as a file.
    #[must_use]
    pub(crate) fn new(path: &Path, dir: Arc<OwnedFd>) -> Self {
        let slot = TargetSlot::new(path, dir);
        match slot.status() {
            Ok(stat) if kind(&stat) == FileType::Directory => {
                Self::Directory(TreeTarget::new(slot))
            }
            _ => Self::File(FileTarget::new(slot)),
        }
    }

    /// Returns the target that is a key. `reader` is the user of a process that reads it.
    #[must_use]
    pub(crate) fn of_key(key: &Key, reader: Option<u32>) -> Self {
        Self::Key(Box::new(KeyTarget::new(key, reader)))
    }

    /// Returns the path of a file or directory, or the URL of a key.
    #[must_use]
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::Key(key) => key.path(),
            Self::File(FileTarget { slot, .. }) | Self::Directory(TreeTarget { slot, .. }) => {
                &slot.path
            }
        }
    }

    /// Returns the revision of a key: that of the survey, or that of this run's write.
    #[must_use]
    pub(crate) fn revision(&self) -> Option<&str> {
        match self {
            Self::Key(key) => key.revision(),
            Self::File(_) | Self::Directory(_) => None,
        }
    }

    #[must_use]
    pub(crate) fn is_directory(&self) -> bool {
        matches!(self, Self::Directory(_))
    }

    /// Reads the live content.
    ///
    /// # Errors
    /// Fails if it is neither file nor directory, too large, or unreadable.
    pub(crate) fn read(&self) -> Result<Content, InstallError> {
        match self {
            Self::File(file) => file.read(),
            Self::Directory(tree) => tree.read(),
            Self::Key(key) => key.read(),
        }
    }

    /// Reads the live content, and remembers its attributes. Content and attributes must stay the
    /// same until this run exchanges the target.
    ///
    /// # Errors
    /// Fails as [`Target::read`] does.
    pub(crate) fn survey(&mut self) -> Result<Content, InstallError> {
        match self {
            Self::File(file) => file.survey(),
            Self::Directory(tree) => tree.survey(),
            Self::Key(key) => key.survey(),
        }
    }

    /// Tells whether every user may read `now`, the live content. If not, the content is a secret.
    #[must_use]
    pub(crate) fn is_public(&self, now: &Content) -> bool {
        match (self, &now.tree) {
            (_, Some(tree)) => tree.is_public(),
            (Self::File(file), None) => file.is_public(),
            (Self::Key(key), None) => key.is_public(),
            (Self::Directory(_), None) => false,
        }
    }

    /// Returns the digest of the live content; none if it cannot be read.
    #[must_use]
    pub(crate) fn digest(&self) -> Option<String> {
        match self {
            Self::File(file) => file.digest(),
            Self::Directory(tree) => tree.digest(),
            Self::Key(key) => key.digest(),
        }
    }

    /// Tells whether the live content is `content`.
    #[must_use]
    pub(crate) fn holds(&self, content: &Content) -> bool {
        self.digest().as_ref() == Some(&content.sha256)
    }

    /// Returns the last change of any kind, in nanoseconds since 1970. For a directory, it is that
    /// of the newest entry. For a key, it is a number that stands for its revision.
    #[must_use]
    pub(crate) fn ctime(&self) -> Option<i128> {
        match self {
            Self::File(file) => file.slot.status().ok().map(|stat| ctime(&stat)),
            Self::Directory(tree) => tree.ctime(),
            Self::Key(key) => key.mark(),
        }
    }

    /// Returns the path of the live content as a file. Of a key it is a copy, which
    /// [`Target::stage`] or [`Target::copy`] has made.
    #[must_use]
    pub(crate) fn live_file(&self) -> Option<&Path> {
        match self {
            Self::Key(key) => key.copies().map(|[now, _]| now.as_path()),
            Self::File(_) | Self::Directory(_) => Some(&self.slot()?.path),
        }
    }

    /// Makes a copy of a key's value for validators; nothing for a file or directory.
    ///
    /// # Errors
    /// Fails if it cannot be written.
    pub(crate) fn copy(
        &mut self,
        now: &Content,
        secret: bool,
        run: &str,
    ) -> Result<(), InstallError> {
        match self {
            Self::Key(key) => key.stage(now, now, secret, run).map(drop),
            Self::File(_) | Self::Directory(_) => Ok(()),
        }
    }

    /// Returns device and inode of the staged and of the live content. If nothing is staged, both
    /// are the live ones.
    #[must_use]
    pub(crate) fn inodes(&self) -> Option<[(u64, u64); 2]> {
        let slot = match self {
            Self::Key(key) => return key.inodes(),
            Self::File(_) | Self::Directory(_) => self.slot()?,
        };
        let inode = |name: &OsStr| {
            let stat = status(&slot.dir, name).ok()?;
            let device = fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
            Some((device, stat.stx_ino))
        };
        let staged = slot.staged.as_ref().map_or(&slot.name, |side| &side.name);
        Some([inode(staged)?, inode(&slot.name)?])
    }

    /// Checks that a run could replace the target, as far as possible without writing.
    ///
    /// # Errors
    /// Fails as [`Target::stage`] does.
    pub(crate) fn replaceable(&self) -> Result<(), InstallError> {
        match self {
            Self::File(file) => file.guard()?,
            Self::Directory(tree) => drop(tree.guard()?),
            Self::Key(key) => key.guard()?,
        }
        self.slot().map_or(Ok(()), TargetSlot::check_writable)
    }

    /// Writes `to` next to the live content, with the owners, modes and xattrs of the live content.
    /// Returns the path of the staged content. The store of a key gets nothing: `to` and `now`, its
    /// present value, become files that only a validator reads.
    ///
    /// # Errors
    /// Fails with `Refused` if the target cannot be replaced, and with `Io` on a full or read-only
    /// filesystem.
    pub(crate) fn stage(
        &mut self,
        (now, to): (&Content, &Content),
        secret: bool,
        run: &str,
        sync: Sync,
    ) -> Result<PathBuf, InstallError> {
        match self {
            Self::File(file) => file.stage(&to.bytes, run, sync),
            Self::Directory(tree) => tree.stage(to, run),
            Self::Key(key) => {
                key.guard()?;
                key.stage(now, to, secret, run)
            }
        }
    }

    /// Makes `staging` the record of what is staged. An entry is recorded before it has a name.
    pub(crate) fn record_in(&mut self, staging: &Arc<Staging>) {
        match self {
            Self::Key(key) => key.staging = staging.clone(),
            Self::File(FileTarget { slot, .. }) | Self::Directory(TreeTarget { slot, .. }) => {
                slot.staging = staging.clone();
            }
        }
    }

    /// Sets whether a file that is exchanged away stays open, to find late edits.
    pub(crate) fn hold(&mut self, hold: bool) {
        if let Some(slot) = self.slot_mut() {
            slot.hold = hold;
        }
    }

    /// Tells whether an exchange leaves an old file that may be held open.
    #[must_use]
    pub(crate) fn is_held(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// Returns those of `names` that a run uses for this target, and that this run did not create.
    pub(crate) fn leftovers<'a>(
        &self,
        names: &'a BTreeSet<OsString>,
    ) -> impl Iterator<Item = &'a OsString> {
        self.slot()
            .into_iter()
            .flat_map(move |slot| slot.leftovers(names))
    }

    /// Returns the hidden names in the directory; the names that runs use are among them.
    #[must_use]
    pub(crate) fn hidden_names(&self) -> BTreeSet<OsString> {
        self.slot()
            .map(TargetSlot::hidden_names)
            .unwrap_or_default()
    }

    /// Returns the edits of everything that this run exchanged away, since it did so.
    pub(crate) fn late_edits(&mut self) -> Vec<LateEdit> {
        match self {
            Self::File(file) => file.late_edits(),
            Self::Directory(tree) => tree.late_edits(),
            // A value that was written later is a change of the key itself.
            Self::Key(_) => Vec::new(),
        }
    }

    /// Removes every entry next to the target. Returns those that could not be removed, with the
    /// reasons.
    pub(crate) fn clear(&mut self) -> Vec<(PathBuf, String)> {
        match self {
            Self::Key(key) => key.clear(),
            Self::File(FileTarget { slot, .. }) | Self::Directory(TreeTarget { slot, .. }) => {
                slot.unstage();
                std::mem::take(&mut slot.not_removed)
            }
        }
    }

    fn slot_mut(&mut self) -> Option<&mut TargetSlot> {
        match self {
            Self::File(FileTarget { slot, .. }) | Self::Directory(TreeTarget { slot, .. }) => {
                Some(slot)
            }
            Self::Key(_) => None,
        }
    }

    /// Returns the place of a file or directory; none of a key.
    fn slot(&self) -> Option<&TargetSlot> {
        match self {
            Self::File(FileTarget { slot, .. }) | Self::Directory(TreeTarget { slot, .. }) => {
                Some(slot)
            }
            Self::Key(_) => None,
        }
    }

    /// Takes the space on the disk that a rollback needs.
    ///
    /// # Errors
    /// Fails as [`Target::stage`] does.
    pub(crate) fn reserve(&mut self, from: &Content, sync: Sync) -> Result<(), InstallError> {
        match self {
            Self::File(file) => file.reserve(&from.bytes, sync),
            // The old directory itself is the rollback content. A store takes no reservation.
            Self::Directory(_) | Self::Key(_) => Ok(()),
        }
    }

    /// Replaces `from` with `to`. If the content that came out of the exchange is not `from`, it is
    /// exchanged again. If the live content is `to` already, nothing happens. The write of a key
    /// expects the revision of the survey, and a rollback that of this run's write.
    ///
    /// Returns whether it was exchanged; [`sync_names`] writes that to the disk.
    ///
    /// # Errors
    /// Fails with `Drifted` if the live content is neither; it is not changed then.
    pub(crate) fn install(
        &mut self,
        from: &str,
        to: &Content,
        run: &str,
    ) -> Result<bool, InstallError> {
        match self {
            Self::File(file) => file.install(from, to, run),
            Self::Directory(tree) => tree.install(from, to, run),
            Self::Key(key) => key.install(from, to),
        }
    }

    /// Tells whether it was ever exchanged, even if a later step failed. A key whose write had no
    /// answer counts, as long as it may take effect.
    #[must_use]
    pub(crate) fn is_exchanged(&self) -> bool {
        match self {
            Self::File(FileTarget { slot, .. }) | Self::Directory(TreeTarget { slot, .. }) => {
                slot.exchanged
            }
            Self::Key(key) => key.exchanged,
        }
    }
}
