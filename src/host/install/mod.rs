//! Replaces one file or directory so that no reader ever sees half of it and nothing of its attributes is lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{self, Access, AtFlags, FileType, RenameFlags, Statx, StatxAttributes, XattrFlags},
    io::Errno,
};

use self::{file::FileTarget, tree::TreeTarget};
use crate::{step::Blob, tree::status};

mod file;
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
        let spot = Spot { path: path.into(), name: path.file_name().unwrap_or_default().into(), dir, staged: None, exchanged: false };
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
        Some([inode(spot.staged.as_deref().unwrap_or(&spot.name))?, inode(&spot.name)?])
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

    /// Removes what runs that were killed left beside it, of what [`Target::names`] has read. Only for who holds the lock: then nobody else's is in use.
    pub(super) fn sweep(&self, names: &BTreeSet<OsString>) {
        self.spot().sweep(names);
    }

    /// What stands in its directory that a run may have left.
    #[must_use]
    pub(super) fn names(&self) -> BTreeSet<OsString> {
        self.spot().names()
    }

    fn spot(&self) -> &Spot {
        match self {
            Self::File(FileTarget { spot, .. }) | Self::Directory(TreeTarget { spot }) => spot,
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

/// Where a target stands, and what stands beside it until the run ends: first what it becomes, and once that is installed what it was.
#[derive(Debug)]
struct Spot {
    path: PathBuf,
    dir: Arc<OwnedFd>,
    name: OsString,
    staged: Option<OsString>,
    exchanged: bool,
}

impl Spot {
    fn status(&self) -> Result<Statx, Errno> {
        status(&self.dir, &self.name)
    }

    fn io(&self, e: impl Into<io::Error>) -> InstallError {
        InstallError::Io(self.path.clone(), e.into())
    }

    fn refused(&self, why: impl Into<String>) -> InstallError {
        InstallError::Refused(self.path.clone(), why.into())
    }

    fn drifted(&self) -> InstallError {
        InstallError::Drifted(self.path.clone())
    }

    /// Whether `now`, its digest, is that of `to` already; what is neither that nor `from` is somebody else's.
    fn is_done(&self, now: Option<String>, from: &str, to: &Blob) -> Result<bool, InstallError> {
        match now {
            Some(now) if now == to.sha256 => Ok(true),
            Some(now) if now == from => Ok(false),
            _ => Err(self.drifted()),
        }
    }

    /// What went wrong while something was written beside it.
    fn unstaged(&self, e: impl Into<io::Error>) -> InstallError {
        let e = e.into();
        let why = format!("staging beside it: {e}");
        match e.kind() {
            io::ErrorKind::PermissionDenied => self.refused(why),
            _ => self.io(io::Error::new(e.kind(), why)),
        }
    }

    /// A leading dot and a foreign ending hide it from `include *` and from `*.yml`.
    fn beside(&self, run: &str) -> OsString {
        let mut name = OsString::from(".");
        name.push(&self.name);
        name.push(format!(".hello-{run}"));
        name
    }

    /// What nobody may replace, whatever it is.
    fn guard(&self, stat: &Statx) -> Result<(), InstallError> {
        fixed(stat).map_or(Ok(()), |why| Err(self.refused(format!("it {why}"))))?;
        let dir = fs::fstat(&*self.dir).map_err(|e| self.io(e))?;
        let me = rustix::process::geteuid();
        if dir.st_mode & 0o1000 != 0 && !me.is_root() && ![dir.st_uid, stat.stx_uid].contains(&me.as_raw()) {
            return Err(self.refused("its directory is sticky, and neither is yours"));
        }
        Ok(())
    }

    /// Whether this user could write beside it what has the same owner.
    fn writable(&self) -> Result<(), InstallError> {
        let (owner, me) = (self.status().map_err(|e| self.io(e))?.stx_uid, rustix::process::geteuid());
        if !me.is_root() && owner != me.as_raw() {
            return Err(self.refused(format!("it belongs to uid {owner}, and only root could put in its place what does so too")));
        }
        match fs::accessat(&*self.dir, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
            // An old kernel does not tell it of the effective user.
            Ok(()) | Err(Errno::NOSYS) => Ok(()),
            Err(e) => Err(self.unstaged(e)),
        }
    }

    /// Exchanges the target with `staged`, which [`sync_names`] puts on the disk; what came out must be `from`, as `digest` reads it, else it goes straight back.
    /// Answers the kernel's reason when there is no exchange on this filesystem.
    fn exchange(&mut self, staged: &OsStr, from: &str, digest: impl Fn(&OwnedFd, &OsStr) -> Option<String>) -> Result<Result<(), Errno>, InstallError> {
        let exchange = || fs::renameat_with(&*self.dir, staged, &*self.dir, &*self.name, RenameFlags::EXCHANGE);
        match exchange() {
            Ok(()) => {}
            // The last is what a layered filesystem says of a directory of a lower layer.
            Err(e @ (Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::XDEV)) => return Ok(Err(e)),
            Err(e) => return Err(self.io(e)),
        }
        if digest(&self.dir, staged).as_deref() == Some(from) {
            self.exchanged = true;
            return Ok(Ok(()));
        }
        match exchange() {
            Ok(()) => Err(self.drifted()),
            Err(e) => {
                // It is somebody else's, and must outlive this run.
                (self.staged, self.exchanged) = (None, true);
                Err(self.io(io::Error::other(format!("was changed by somebody else, and what they wrote stands at `{}` now: {e}", staged.display()))))
            }
        }
    }

    /// Removes what stands beside it, if anything does.
    fn unstage(&mut self) {
        if let Some(staged) = self.staged.take() {
            self.remove(&staged);
        }
    }

    /// As [`Target::names`].
    fn names(&self) -> BTreeSet<OsString> {
        let mut names = crate::tree::names(&self.dir, usize::MAX).unwrap_or_default();
        names.retain(|name| name.as_encoded_bytes().starts_with(b"."));
        names
    }

    /// As [`Target::sweep`].
    fn sweep(&self, names: &BTreeSet<OsString>) {
        let prefix = self.beside("");
        for name in names.range(prefix.clone()..).take_while(|name| name.as_encoded_bytes().starts_with(prefix.as_encoded_bytes())) {
            self.remove(name);
        }
    }

    /// What is gone already is as it was wanted; what is not ours to remove stays, and hurts nobody.
    fn remove(&self, name: &OsStr) {
        if fs::unlinkat(&*self.dir, name, AtFlags::empty()) == Err(Errno::ISDIR) {
            let _ = tree::remove(&self.dir, name, 0);
        }
    }
}

impl Drop for Spot {
    fn drop(&mut self) {
        self.unstage();
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

/// Access-control lists that a new entry has from its directory; they stay only where the live one has them too.
const LISTS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// Makes the xattrs of `to` those of `from`.
fn copy_xattrs(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let names = xattrs(from)?;
    for name in &names {
        let value = sized(|value| fs::fgetxattr(from, &**name, value))?;
        match fs::fsetxattr(to, &**name, &value, XattrFlags::empty()) {
            // Labels that only the system may set are set by it.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(e) => return Err(e.into()),
        }
    }
    for name in xattrs(to)?.iter().filter(|name| LISTS.contains(&name.as_slice()) && !names.contains(name)) {
        fs::fremovexattr(to, &**name)?;
    }
    Ok(())
}

fn xattrs(file: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    match sized(|names| fs::flistxattr(file, names)) {
        Ok(names) => Ok(names.split(|b| *b == 0).filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect()),
        Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
        Err(e) => Err(e.into()),
    }
}

/// What the kernel writes into a buffer that is large enough: most need little, and none more than 64 KiB.
fn sized(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; 256];
    let length = match read(&mut bytes) {
        Err(Errno::RANGE) => {
            bytes.resize(64 << 10, 0);
            read(&mut bytes)?
        }
        said => said?,
    };
    bytes.truncate(length);
    Ok(bytes)
}
