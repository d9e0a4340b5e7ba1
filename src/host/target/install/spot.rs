//! Where a target stands, and what stands beside it until the run ends.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{self, Access, AtFlags, FileType, RenameFlags, Statx},
    io::Errno,
};

use super::{
    entries::Entries,
    error::InstallError,
    stat::{fixed, kind},
};
use crate::{
    runs::{Stage, Staging},
    step::Content,
    tree::{Identity, Known, Tree, status},
};

/// A file or directory as it is: its digest, its attributes, and what it was read from.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) sha256: String,
    pub(super) entries: Entries,
    pub(super) fd: OwnedFd,
    /// Of a directory.
    pub(super) tree: Option<Arc<Tree>>,
}

/// Reads what has a name in a directory; none where there is no such thing.
pub(super) type LookAtTarget = fn(&OwnedFd, &OsStr) -> Option<Seen>;

/// What stands beside a target.
#[derive(Debug, Default)]
pub(super) struct Beside {
    pub(super) name: OsString,
    /// What this run made there, or exchanged away: nothing else is removed.
    pub(super) known: Known,
    /// What was exchanged away, as it was then.
    pub(super) was: Option<(Arc<Tree>, Entries)>,
}

/// First what the target becomes stands beside it, and once that is installed what it was.
#[derive(Debug)]
pub(super) struct TargetSlot {
    pub(super) path: PathBuf,
    pub(super) dir: Arc<OwnedFd>,
    pub(super) name: OsString,
    pub(super) staged: Option<Beside>,
    /// What cannot be installed again, and may have been edited: it goes at the end.
    pub(super) old: Vec<Beside>,
    pub(super) exchanged: bool,
    /// The attributes that what stands there must have: those of the survey, then those of what was
    /// installed.
    pub(super) expects: Option<Entries>,
    pub(super) staging: Arc<Staging>,
    pub(super) hold: bool,
    /// What could not be removed, and why.
    pub(super) stays: Vec<(PathBuf, String)>,
}

impl TargetSlot {
    pub(super) fn new(path: &Path, dir: Arc<OwnedFd>) -> Self {
        let name = path.file_name().unwrap_or_default().into();
        let (staged, old, expects, staging, stays) = Default::default();
        Self {
            path: path.into(),
            dir,
            name,
            staged,
            old,
            exchanged: false,
            expects,
            staging,
            hold: true,
            stays,
        }
    }

    pub(super) fn status(&self) -> Result<Statx, Errno> {
        status(&self.dir, &self.name)
    }

    pub(super) fn io(&self, e: impl Into<io::Error>) -> InstallError {
        InstallError::Io(self.path.clone(), e.into())
    }

    pub(super) fn refused(&self, why: impl Into<String>) -> InstallError {
        InstallError::Refused(self.path.clone(), why.into())
    }

    pub(super) fn drifted(&self) -> InstallError {
        InstallError::Drifted(self.path.clone())
    }

    /// Whether what stands there is `to` already; what is neither that nor `from`, or has other
    /// attributes than it must, is another program's.
    pub(super) fn is_done(
        &self,
        now: Option<&Seen>,
        from: &str,
        to: &Content,
    ) -> Result<bool, InstallError> {
        match now {
            Some(now) if now.sha256 == to.sha256 => Ok(true),
            Some(now) if now.sha256 == from => self.is_expected(now).map(|()| false),
            _ => Err(self.drifted()),
        }
    }

    pub(super) fn is_expected(&self, now: &Seen) -> Result<(), InstallError> {
        self.has_expected(&now.entries)
    }

    /// Whether what is there has the attributes that it must have.
    pub(super) fn has_expected(&self, now: &Entries) -> Result<(), InstallError> {
        match self
            .expects
            .as_ref()
            .and_then(|before| before.difference(now))
        {
            Some(what) => Err(InstallError::Changed(self.path.clone(), what)),
            None => Ok(()),
        }
    }

    /// What went wrong while something was written beside it.
    pub(super) fn staging_error(&self, e: impl Into<io::Error>) -> InstallError {
        let e = e.into();
        let why = format!("staging beside it: {e}");
        match e.kind() {
            io::ErrorKind::PermissionDenied => self.refused(why),
            _ => self.io(io::Error::new(e.kind(), why)),
        }
    }

    /// A leading dot and a foreign ending hide it from `include *` and from `*.yml`.
    pub(super) fn staging_name(&self, run: &str) -> OsString {
        let mut name = OsString::from(".");
        name.push(&self.name);
        name.push(format!(".hello-{run}"));
        name
    }

    /// Writes down what is about to stand under this name. On the way back nothing waits for a full
    /// disk.
    pub(super) fn note(
        &self,
        name: &OsStr,
        stage: Stage,
        entries: Vec<Identity>,
    ) -> Result<(), InstallError> {
        match self
            .staging
            .note(&self.dir, &self.path.with_file_name(name), stage, entries)
        {
            Err(e) if !self.exchanged => Err(InstallError::Record(e)),
            _ => Ok(()),
        }
    }

    /// What no run may replace, whatever it is.
    pub(super) fn guard(&self, stat: &Statx) -> Result<(), InstallError> {
        fixed(stat).map_or(Ok(()), |why| Err(self.refused(format!("it {why}"))))?;
        let dir = fs::fstat(&*self.dir).map_err(|e| self.io(e))?;
        let me = rustix::process::geteuid();
        if dir.st_mode & 0o1000 != 0
            && !me.is_root()
            && ![dir.st_uid, stat.stx_uid].contains(&me.as_raw())
        {
            return Err(self.refused("its directory is sticky, and neither is yours"));
        }
        Ok(())
    }

    /// Whether this user could write beside it what has the same owner.
    pub(super) fn writable(&self) -> Result<(), InstallError> {
        let (owner, me) = (
            self.status().map_err(|e| self.io(e))?.stx_uid,
            rustix::process::geteuid(),
        );
        if !me.is_root() && owner != me.as_raw() {
            return Err(self.refused(format!(
                "it belongs to uid {owner}, and only root could put in its place what does so too"
            )));
        }
        match fs::accessat(
            &*self.dir,
            ".",
            Access::WRITE_OK | Access::EXEC_OK,
            AtFlags::EACCESS,
        ) {
            // An old kernel does not tell it of the effective user.
            Ok(()) | Err(Errno::NOSYS) => Ok(()),
            Err(e) => Err(self.staging_error(e)),
        }
    }

    /// Exchanges the target with `staged`, which [`super::sync_names`] puts on the disk; what came
    /// out must be `from` with the attributes that it must have, else it goes straight back.
    /// Answers what came out, or the kernel's reason when there is no exchange on this filesystem.
    pub(super) fn exchange(
        &mut self,
        staged: &OsStr,
        from: &str,
        look: LookAtTarget,
    ) -> Result<Result<Seen, Errno>, InstallError> {
        let exchange = || {
            fs::renameat_with(
                &*self.dir,
                staged,
                &*self.dir,
                &*self.name,
                RenameFlags::EXCHANGE,
            )
        };
        match exchange() {
            Ok(()) => {}
            // The last is what a layered filesystem says of a directory of a lower layer.
            Err(e @ (Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::XDEV)) => {
                return Ok(Err(e));
            }
            Err(e) => return Err(self.io(e)),
        }
        let came = look(&self.dir, staged)
            .filter(|came| came.sha256 == from)
            .ok_or_else(|| self.drifted());
        match came.and_then(|came| self.is_expected(&came).map(|()| came)) {
            Ok(came) => {
                self.exchanged = true;
                Ok(Ok(came))
            }
            Err(why) => {
                match exchange() {
                    Ok(()) => Err(why),
                    Err(e) => {
                        // It is another program's, and must outlive this run.
                        self.staging.gone(&self.path.with_file_name(staged));
                        (self.staged, self.exchanged) = (None, true);
                        Err(self.io(io::Error::other(format!(
                            "was changed by somebody else, and \
                            what they wrote stands at `{}` now: {e}",
                            staged.display()
                        ))))
                    }
                }
            }
        }
    }

    /// Removes what stands beside it, if anything does.
    pub(super) fn unstage(&mut self) {
        let all: Vec<Beside> = self
            .staged
            .take()
            .into_iter()
            .chain(std::mem::take(&mut self.old))
            .collect();
        for beside in all {
            self.remove(&beside);
        }
    }

    /// As [`super::Target::names`].
    pub(super) fn names(&self) -> BTreeSet<OsString> {
        let mut names = crate::tree::names(&self.dir, usize::MAX).unwrap_or_default();
        names.retain(|name| name.as_encoded_bytes().starts_with(b"."));
        names
    }

    /// As [`super::Target::strange`].
    pub(super) fn strange<'a>(
        &self,
        names: &'a BTreeSet<OsString>,
    ) -> impl Iterator<Item = &'a OsString> {
        let prefix = self.staging_name("").into_encoded_bytes();
        let own: Vec<OsString> = self
            .staged
            .iter()
            .chain(&self.old)
            .map(|beside| beside.name.clone())
            .collect();
        names
            .iter()
            .filter(move |name| name.as_encoded_bytes().starts_with(&prefix) && !own.contains(name))
    }

    /// Removes it as far as it is known. What stays is named.
    pub(super) fn remove(&mut self, beside: &Beside) {
        let place = self.path.with_file_name(&beside.name);
        match beside.known.remove(&self.dir, &beside.name, &place) {
            Ok(()) => self.staging.gone(&place),
            Err(why) => self.stays.push((place, why.to_string())),
        }
    }
}

impl Drop for TargetSlot {
    fn drop(&mut self) {
        self.unstage();
    }
}

/// Whether it is a regular file.
pub(super) fn is_file(stat: &Statx) -> bool {
    kind(stat) == FileType::RegularFile
}
