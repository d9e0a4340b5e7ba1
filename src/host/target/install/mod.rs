//! Replaces one file or directory so that no reader ever sees half of it and nothing of its
//! attributes is lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{self, AtFlags, FileType};

pub(crate) use self::{error::InstallError, sync::Sync};
use self::{
    file::FileTarget,
    late::Late,
    spot::TargetSlot,
    stat::{ctime, kind},
    tree::TreeTarget,
};
use crate::{runs::Staging, step::Content};

mod entries;
mod error;
mod file;
pub(crate) mod late;
mod spot;
mod stat;
mod sync;
mod tree;

/// Puts everything that was staged for `targets` on the disk.
///
/// # Errors
/// `Io` when a filesystem cannot write it.
pub(crate) fn sync_all<'a>(targets: impl Iterator<Item = &'a Target>) -> Result<(), InstallError> {
    let mut synced = BTreeSet::new();
    for spot in targets.map(Target::spot) {
        let device = fs::fstat(&*spot.dir).map_err(|e| spot.io(e))?.st_dev;
        if synced.insert(device) {
            fs::syncfs(&*spot.dir).map_err(|e| spot.io(e))?;
        }
    }
    Ok(())
}

/// Puts the new names of `targets` on the disk: each directory once.
///
/// # Errors
/// `Io` when a filesystem cannot write it.
pub(crate) fn sync_names<'a>(
    targets: impl Iterator<Item = &'a Target>,
) -> Result<(), InstallError> {
    let dirs: BTreeMap<*const OwnedFd, &Target> = targets
        .map(|target| (Arc::as_ptr(&target.spot().dir), target))
        .collect();
    if Sync::of(dirs.len()) == Sync::Together {
        return sync_all(dirs.into_values());
    }
    dirs.into_values()
        .map(Target::spot)
        .try_for_each(|spot| fs::fsync(&*spot.dir).map_err(|e| spot.io(e)))
}

/// What is to be replaced, under a held descriptor of the directory that it stands in.
#[derive(Debug)]
pub(crate) enum Target {
    File(FileTarget),
    Directory(TreeTarget),
}

impl Target {
    /// What stands at `path` (resolved), in its directory `dir`; what is no directory is looked at
    /// as a file.
    #[must_use]
    pub(crate) fn new(path: &Path, dir: Arc<OwnedFd>) -> Self {
        let spot = TargetSlot::new(path, dir);
        match spot.status() {
            Ok(stat) if kind(&stat) == FileType::Directory => {
                Self::Directory(TreeTarget::new(spot))
            }
            _ => Self::File(FileTarget::new(spot)),
        }
    }

    #[must_use]
    pub(crate) fn is_directory(&self) -> bool {
        matches!(self, Self::Directory(_))
    }

    /// What stands there now.
    ///
    /// # Errors
    /// When it is neither file nor directory, too large, or unreadable.
    pub(crate) fn read(&self) -> Result<Content, InstallError> {
        match self {
            Self::File(file) => file.read(),
            Self::Directory(tree) => tree.read(),
        }
    }

    /// What stands there now, which must be that, attribute by attribute, until this run exchanges
    /// it.
    ///
    /// # Errors
    /// As [`Target::read`].
    pub(crate) fn survey(&mut self) -> Result<Content, InstallError> {
        match self {
            Self::File(file) => file.survey(),
            Self::Directory(tree) => tree.survey(),
        }
    }

    /// Whether everybody may read `now`, which was read there; when not, its content is a secret.
    #[must_use]
    pub(crate) fn is_public(&self, now: &Content) -> bool {
        match (self, &now.tree) {
            (_, Some(tree)) => tree.is_public(),
            (Self::File(file), None) => file.is_public(),
            (Self::Directory(_), None) => false,
        }
    }

    /// Digest of what stands there now.
    #[must_use]
    pub(crate) fn digest(&self) -> Option<String> {
        match self {
            Self::File(file) => file.digest(),
            Self::Directory(tree) => tree.digest(),
        }
    }

    /// Tells whether that content stands there now.
    #[must_use]
    pub(crate) fn holds(&self, content: &Content) -> bool {
        self.digest().as_ref() == Some(&content.sha256)
    }

    /// Its last change of any kind, in nanoseconds since 1970; of a directory, that of its newest
    /// entry.
    #[must_use]
    pub(crate) fn ctime(&self) -> Option<i128> {
        match self {
            Self::File(file) => file.spot.status().ok().map(|stat| ctime(&stat)),
            Self::Directory(tree) => tree.ctime(),
        }
    }

    /// Device and inode of what is staged, and of what is live; what is not staged is the live one.
    #[must_use]
    pub(crate) fn inodes(&self) -> Option<[(u64, u64); 2]> {
        let spot = self.spot();
        let inode = |name: &OsStr| {
            fs::statat(&*spot.dir, name, AtFlags::SYMLINK_NOFOLLOW)
                .ok()
                .map(|stat| (stat.st_dev, stat.st_ino))
        };
        Some([
            inode(
                spot.staged
                    .as_ref()
                    .map_or(&spot.name, |staged| &staged.name),
            )?,
            inode(&spot.name)?,
        ])
    }

    /// Whether a run could replace it, as far as can be told while nothing is written.
    ///
    /// # Errors
    /// As [`Target::stage`].
    pub(crate) fn replaceable(&self) -> Result<(), InstallError> {
        match self {
            Self::File(file) => file.guard()?,
            Self::Directory(tree) => drop(tree.guard()?),
        }
        self.spot().writable()
    }

    /// Writes `to` beside what is live, with its owners, modes and xattrs, synced; refuses what
    /// install could not replace. Answers the path.
    ///
    /// # Errors
    /// `Refused` by a guard; `Io` on a full or read-only filesystem.
    pub(crate) fn stage(
        &mut self,
        to: &Content,
        run: &str,
        sync: Sync,
    ) -> Result<PathBuf, InstallError> {
        match self {
            Self::File(file) => file.stage(&to.bytes, run, sync),
            Self::Directory(tree) => tree.stage(to, run),
        }
    }

    /// Writes down in `staging` what it stages, before it has a name.
    pub(crate) fn record_in(&mut self, staging: &Arc<Staging>) {
        self.spot_mut().staging = staging.clone();
    }

    /// Whether what comes out of an exchange stays open, to be looked at once more.
    pub(crate) fn hold(&mut self, hold: bool) {
        self.spot_mut().hold = hold;
    }

    /// Hidden names in its directory that are beside it as a run's are, and that this run has not
    /// made, of `names`.
    pub(crate) fn strange<'a>(
        &self,
        names: &'a BTreeSet<OsString>,
    ) -> impl Iterator<Item = &'a OsString> {
        self.spot().strange(names)
    }

    /// What stands in its directory that a run may have left.
    #[must_use]
    pub(crate) fn names(&self) -> BTreeSet<OsString> {
        self.spot().names()
    }

    /// Looks once more at everything that this run has exchanged away: edits that arrived there
    /// since.
    pub(crate) fn late(&mut self) -> Vec<Late> {
        match self {
            Self::File(file) => file.late(),
            Self::Directory(tree) => tree.late(),
        }
    }

    /// Removes what stands beside it; answers what stays, with the reason.
    pub(crate) fn clear(&mut self) -> Vec<(PathBuf, String)> {
        let spot = self.spot_mut();
        spot.unstage();
        std::mem::take(&mut spot.stays)
    }

    fn spot_mut(&mut self) -> &mut TargetSlot {
        match self {
            Self::File(FileTarget { spot, .. }) | Self::Directory(TreeTarget { spot, .. }) => spot,
        }
    }

    fn spot(&self) -> &TargetSlot {
        match self {
            Self::File(FileTarget { spot, .. }) | Self::Directory(TreeTarget { spot, .. }) => spot,
        }
    }

    /// Takes the place on the disk that the way back needs.
    ///
    /// # Errors
    /// As [`Target::stage`].
    pub(crate) fn reserve(&mut self, from: &Content, sync: Sync) -> Result<(), InstallError> {
        match self {
            Self::File(file) => file.reserve(&from.bytes, sync),
            // The old directory itself is the way back.
            Self::Directory(_) => Ok(()),
        }
    }

    /// Makes it `to`: it is `from`: exchange, and what came out must be `from`, else it goes
    /// straight back; it is `to` already: nothing. Answers whether it was exchanged; it is on the
    /// disk after [`sync_names`].
    ///
    /// # Errors
    /// `Drifted` when it is neither; it is then as it was found.
    pub(crate) fn install(
        &mut self,
        from: &str,
        to: &Content,
        run: &str,
    ) -> Result<bool, InstallError> {
        match self {
            Self::File(file) => file.install(from, to, run),
            Self::Directory(tree) => tree.install(from, to, run),
        }
    }

    /// Whether it was ever exchanged, also where what followed went wrong.
    #[must_use]
    pub(crate) fn is_exchanged(&self) -> bool {
        self.spot().exchanged
    }
}
