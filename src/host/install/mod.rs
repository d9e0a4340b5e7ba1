//! Replaces one file or directory so that no reader ever sees half of it and nothing of its attributes is lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::fs::{self, AtFlags, FileType, Statx, StatxAttributes};

use self::{file::FileTarget, late::Late, spot::Spot, tree::TreeTarget};
use crate::{runs::Staging, step::Blob};

mod entries;
mod file;
pub(super) mod late;
mod spot;
mod tree;

/// Why a target cannot be staged or installed.
#[derive(Debug, thiserror::Error)]
pub(super) enum InstallError {
    /// A guard said no.
    #[error("`{}` cannot be installed: {}", .0.display(), .1)]
    Refused(PathBuf, String),
    /// It is not what was surveyed; it was left alone.
    #[error("`{}` was changed by somebody else meanwhile; left alone", .0.display())]
    Drifted(PathBuf),
    /// An attribute of it is not what was surveyed, or installed; it was left alone.
    #[error("`{}` was changed by another process meanwhile ({}); left alone", .0.display(), .1)]
    Changed(PathBuf, String),
    /// The state directory said no.
    #[error("what is staged cannot be written down: {0}")]
    Record(io::Error),
    /// The system said no.
    #[error("`{}`: {}", .0.display(), .1)]
    Io(PathBuf, io::Error),
}

/// Above so many in one run, files and directories are put on the disk all at once; up to so many each by itself, which waits for no other file
/// of a busy disk.
const SYNCED_SINGLY: usize = 100;

/// When what is staged is put on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    /// At once.
    Singly,
    /// By [`sync_all`], before anything is installed.
    Together,
}

impl Sync {
    /// For so many targets.
    pub(super) fn of(targets: usize) -> Self {
        if targets > SYNCED_SINGLY { Self::Together } else { Self::Singly }
    }
}

/// Puts everything that was staged for `targets` on the disk.
///
/// # Errors
/// `Io` when a filesystem cannot write it.
pub(super) fn sync_all<'a>(targets: impl Iterator<Item = &'a Target>) -> Result<(), InstallError> {
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
pub(super) fn sync_names<'a>(targets: impl Iterator<Item = &'a Target>) -> Result<(), InstallError> {
    let dirs: BTreeMap<*const OwnedFd, &Target> = targets.map(|target| (Arc::as_ptr(&target.spot().dir), target)).collect();
    if Sync::of(dirs.len()) == Sync::Together {
        return sync_all(dirs.into_values());
    }
    dirs.into_values().map(Target::spot).try_for_each(|spot| fs::fsync(&*spot.dir).map_err(|e| spot.io(e)))
}

/// What is to be replaced, under a held descriptor of the directory that it stands in.
#[derive(Debug)]
pub(super) enum Target {
    File(FileTarget),
    Directory(TreeTarget),
}

impl Target {
    /// What stands at `path` (resolved), in its directory `dir`; what is no directory is looked at as a file.
    #[must_use]
    pub(super) fn new(path: &Path, dir: Arc<OwnedFd>) -> Self {
        let spot = Spot::new(path, dir);
        match spot.status() {
            Ok(stat) if kind(&stat) == FileType::Directory => Self::Directory(TreeTarget::new(spot)),
            _ => Self::File(FileTarget::new(spot)),
        }
    }

    #[must_use]
    pub(super) fn is_directory(&self) -> bool {
        matches!(self, Self::Directory(_))
    }

    /// What stands there now.
    ///
    /// # Errors
    /// When it is neither file nor directory, too large, or unreadable.
    pub(super) fn read(&self) -> Result<Blob, InstallError> {
        match self {
            Self::File(file) => file.read(),
            Self::Directory(tree) => tree.read(),
        }
    }

    /// What stands there now, which must be that, attribute by attribute, until this run exchanges it.
    ///
    /// # Errors
    /// As [`Target::read`].
    pub(super) fn survey(&mut self) -> Result<Blob, InstallError> {
        match self {
            Self::File(file) => file.survey(),
            Self::Directory(tree) => tree.survey(),
        }
    }

    /// Whether everybody may read `now`, which was read there; when not, its content is a secret.
    #[must_use]
    pub(super) fn is_public(&self, now: &Blob) -> bool {
        match (self, &now.tree) {
            (_, Some(tree)) => tree.is_public(),
            (Self::File(file), None) => file.is_public(),
            (Self::Directory(_), None) => false,
        }
    }

    /// Digest of what stands there now.
    #[must_use]
    pub(super) fn digest(&self) -> Option<String> {
        match self {
            Self::File(file) => file.digest(),
            Self::Directory(tree) => tree.digest(),
        }
    }

    /// Tells whether that content stands there now.
    #[must_use]
    pub(super) fn holds(&self, content: &Blob) -> bool {
        self.digest().as_ref() == Some(&content.sha256)
    }

    /// Its last change of any kind, in nanoseconds since 1970; of a directory, that of its newest entry.
    #[must_use]
    pub(super) fn ctime(&self) -> Option<i128> {
        match self {
            Self::File(file) => file.spot.status().ok().map(|stat| ctime(&stat)),
            Self::Directory(tree) => tree.ctime(),
        }
    }

    /// Device and inode of what is staged, and of what is live; what is not staged is the live one.
    #[must_use]
    pub(super) fn inodes(&self) -> Option<[(u64, u64); 2]> {
        let spot = self.spot();
        let inode = |name: &OsStr| fs::statat(&*spot.dir, name, AtFlags::SYMLINK_NOFOLLOW).ok().map(|stat| (stat.st_dev, stat.st_ino));
        Some([inode(spot.staged.as_ref().map_or(&spot.name, |staged| &staged.name))?, inode(&spot.name)?])
    }

    /// Whether a run could replace it, as far as can be told while nothing is written.
    ///
    /// # Errors
    /// As [`Target::stage`].
    pub(super) fn replaceable(&self) -> Result<(), InstallError> {
        match self {
            Self::File(file) => file.guard()?,
            Self::Directory(tree) => drop(tree.guard()?),
        }
        self.spot().writable()
    }

    /// Writes `to` beside what is live, with its owners, modes and xattrs, synced; refuses what install could not replace. Answers the path.
    ///
    /// # Errors
    /// `Refused` by a guard; `Io` on a full or read-only filesystem.
    pub(super) fn stage(&mut self, to: &Blob, run: &str, sync: Sync) -> Result<PathBuf, InstallError> {
        match self {
            Self::File(file) => file.stage(&to.bytes, run, sync),
            Self::Directory(tree) => tree.stage(to, run),
        }
    }

    /// Writes down in `staging` what it stages, before it has a name.
    pub(super) fn record_in(&mut self, staging: &Arc<Staging>) {
        self.spot_mut().staging = staging.clone();
    }

    /// Whether what comes out of an exchange stays open, to be looked at once more.
    pub(super) fn hold(&mut self, hold: bool) {
        self.spot_mut().hold = hold;
    }

    /// Hidden names in its directory that are beside it as a run's are, and that this run has not made, of `names`.
    pub(super) fn strange<'a>(&self, names: &'a BTreeSet<OsString>) -> impl Iterator<Item = &'a OsString> {
        self.spot().strange(names)
    }

    /// What stands in its directory that a run may have left.
    #[must_use]
    pub(super) fn names(&self) -> BTreeSet<OsString> {
        self.spot().names()
    }

    /// Looks once more at everything that this run has exchanged away: edits that arrived there since.
    pub(super) fn late(&mut self) -> Vec<Late> {
        match self {
            Self::File(file) => file.late(),
            Self::Directory(tree) => tree.late(),
        }
    }

    /// Removes what stands beside it; answers what stays, with the reason.
    pub(super) fn clear(&mut self) -> Vec<(PathBuf, String)> {
        let spot = self.spot_mut();
        spot.unstage();
        std::mem::take(&mut spot.stays)
    }

    fn spot_mut(&mut self) -> &mut Spot {
        match self {
            Self::File(FileTarget { spot, .. }) | Self::Directory(TreeTarget { spot, .. }) => spot,
        }
    }

    fn spot(&self) -> &Spot {
        match self {
            Self::File(FileTarget { spot, .. }) | Self::Directory(TreeTarget { spot, .. }) => spot,
        }
    }

    /// Takes the place on the disk that the way back needs.
    ///
    /// # Errors
    /// As [`Target::stage`].
    pub(super) fn reserve(&mut self, from: &Blob, sync: Sync) -> Result<(), InstallError> {
        match self {
            Self::File(file) => file.reserve(&from.bytes, sync),
            // The old directory itself is the way back.
            Self::Directory(_) => Ok(()),
        }
    }

    /// Makes it `to`: it is `from`: exchange, and what came out must be `from`, else it goes straight back; it is `to` already: nothing.
    /// Answers whether it was exchanged; it is on the disk after [`sync_names`].
    ///
    /// # Errors
    /// `Drifted` when it is neither; it is then as it was found.
    pub(super) fn install(&mut self, from: &str, to: &Blob, run: &str) -> Result<bool, InstallError> {
        match self {
            Self::File(file) => file.install(from, to, run),
            Self::Directory(tree) => tree.install(from, to, run),
        }
    }

    /// Whether it was ever exchanged, also where what followed went wrong.
    #[must_use]
    pub(super) fn is_exchanged(&self) -> bool {
        self.spot().exchanged
    }
}

fn ctime(stat: &Statx) -> i128 {
    i128::from(stat.stx_ctime.tv_sec) * 1_000_000_000 + i128::from(stat.stx_ctime.tv_nsec)
}

fn kind(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

/// Why nobody may replace it; none when one may.
fn fixed(stat: &Statx) -> Option<&'static str> {
    let is = |flag: StatxAttributes| stat.stx_attributes.contains(flag);
    if is(StatxAttributes::MOUNT_ROOT) {
        return Some("is a mount point; change the file it is bound from");
    }
    if is(StatxAttributes::IMMUTABLE) || is(StatxAttributes::APPEND) {
        return Some("is immutable or append-only (chattr)");
    }
    if kind(stat) != FileType::Directory && stat.stx_nlink > 1 {
        return Some("has more than one hard link, and the other names would keep the old bytes");
    }
    None
}
