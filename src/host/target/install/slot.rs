//! The path of a target, and what is next to it until the run ends.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{self, RenameFlags, Statx},
    io::Errno,
};

use super::{
    entries::Entries,
    error::{InstallError, InstallReason},
};
use crate::{
    refusal::Refusal,
    runs::{Stage, Staging},
    step::Content,
    tree::{Identity, Known, Tree, names, status},
};

/// A file or directory as it was read: its digest, its attributes and its descriptor.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) sha256: String,
    pub(super) entries: Entries,
    pub(super) fd: OwnedFd,
    /// The content of a directory; none for a file.
    pub(super) tree: Option<Arc<Tree>>,
}

/// Reads the entry of a name in a directory; none if there is no such entry.
pub(super) type TakeSnapshot = fn(&OwnedFd, &OsStr) -> Option<Snapshot>;

/// An entry next to a target: the staged content or, after the exchange, the old content.
#[derive(Debug, Default)]
pub(super) struct SideEntry {
    pub(super) name: OsString,
    /// The file that this run created there, or exchanged away. Nothing else is removed.
    pub(super) known: Known,
    /// The content and attributes of a directory when it was exchanged away.
    pub(super) original: Option<(Arc<Tree>, Entries)>,
}

/// A target by its directory and name, with the entries next to it. Before the exchange the new
/// content is next to it, and after the exchange the old content.
#[derive(Debug)]
pub(super) struct TargetSlot {
    pub(super) path: PathBuf,
    pub(super) dir: Arc<OwnedFd>,
    pub(super) name: OsString,
    pub(super) staged: Option<SideEntry>,
    /// Entries that cannot be installed again and may have been edited. They are removed at the
    /// end.
    pub(super) retired: Vec<SideEntry>,
    pub(super) exchanged: bool,
    /// The attributes that the live content must have: those of the survey, then those of what was
    /// installed.
    pub(super) expected: Option<Entries>,
    pub(super) staging: Arc<Staging>,
    /// True if files that are exchanged away stay open, to find late edits.
    pub(super) hold: bool,
    /// The entries that could not be removed, with the reasons.
    pub(super) not_removed: Vec<(PathBuf, String)>,
}

impl TargetSlot {
    pub(super) fn new(path: &Path, dir: Arc<OwnedFd>) -> Self {
        Self {
            path: path.into(),
            dir,
            name: path.file_name().unwrap_or_default().into(),
            staged: None,
            retired: Vec::new(),
            exchanged: false,
            expected: None,
            staging: Arc::default(),
            hold: true,
            not_removed: Vec::new(),
        }
    }

    pub(super) fn status(&self) -> Result<Statx, Errno> {
        status(&self.dir, &self.name)
    }

    pub(super) fn io(&self, e: impl Into<io::Error>) -> InstallError {
        InstallError::Io(self.path.clone(), e.into())
    }

    pub(super) fn refused(&self, why: impl Into<Refusal<InstallReason>>) -> InstallError {
        InstallError::Refused(self.path.clone(), why.into())
    }

    pub(super) fn drifted(&self) -> InstallError {
        InstallError::Drifted(self.path.clone())
    }

    /// Returns the error of a write next to the target.
    pub(super) fn staging_error(&self, e: impl Into<io::Error>) -> InstallError {
        let e = e.into();
        let kind = e.kind();
        let why = InstallReason::NotStaged(e);
        match kind {
            io::ErrorKind::PermissionDenied => self.refused(why),
            _ => self.io(io::Error::new(kind, why.to_string())),
        }
    }

    /// Tells whether the live content is `to` already. Any content but `to` and `from`, and any
    /// unexpected attribute, is another program's.
    pub(super) fn is_done(
        &self,
        now: Option<&Snapshot>,
        from: &str,
        to: &Content,
    ) -> Result<bool, InstallError> {
        match now {
            Some(now) if now.sha256 == to.sha256 => Ok(true),
            Some(now) if now.sha256 == from => self.check_attributes(&now.entries).map(|()| false),
            _ => Err(self.drifted()),
        }
    }

    /// Checks that the attributes are the expected ones.
    pub(super) fn check_attributes(&self, now: &Entries) -> Result<(), InstallError> {
        match self
            .expected
            .as_ref()
            .and_then(|expected| expected.difference(now))
        {
            Some(what) => Err(InstallError::Changed(self.path.clone(), what)),
            None => Ok(()),
        }
    }

    /// Returns the name of an entry that a run stages next to the target. The leading dot and the
    /// ending hide it from `include *` and from `*.yml`.
    pub(super) fn staging_name(&self, run: &str) -> OsString {
        let mut name = OsString::from(".");
        name.push(&self.name);
        name.push(format!(".hello-{run}"));
        name
    }

    /// Returns a name as [`Self::staging_name`] does that no entry has: `-again` is appended to
    /// `run` until there is none.
    pub(super) fn unused_run_name(&self, mut run: String) -> String {
        while status(&self.dir, &self.staging_name(&run)).is_ok() {
            run.push_str("-again");
        }
        run
    }

    /// Records the entry of `name` before it is created. A rollback does not fail because the
    /// record cannot be written, for example to a full disk.
    pub(super) fn record(
        &self,
        name: &OsStr,
        stage: Stage,
        entries: Vec<Identity>,
    ) -> Result<(), InstallError> {
        let path = self.path.with_file_name(name);
        match self.staging.note(&self.dir, &path, stage, entries) {
            Err(e) if !self.exchanged => Err(InstallError::Record(e)),
            _ => Ok(()),
        }
    }

    /// Exchanges the target with `staged`; [`super::sync_names`] writes that to the disk. What came
    /// out must be `from` with the expected attributes, else it is exchanged again.
    ///
    /// Returns what came out, or the kernel's error if the filesystem has no exchange.
    pub(super) fn exchange(
        &mut self,
        staged: &OsStr,
        from: &str,
        snapshot: TakeSnapshot,
    ) -> Result<Result<Snapshot, Errno>, InstallError> {
        match self.swap(staged) {
            Ok(()) => {}
            // A layered filesystem returns XDEV for a directory of a lower layer.
            Err(e @ (Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::XDEV)) => {
                return Ok(Err(e));
            }
            Err(e) => return Err(self.io(e)),
        }
        let replaced = snapshot(&self.dir, staged)
            .filter(|replaced| replaced.sha256 == from)
            .ok_or_else(|| self.drifted())
            .and_then(|replaced| self.check_attributes(&replaced.entries).map(|()| replaced));
        match replaced {
            Ok(replaced) => {
                self.exchanged = true;
                Ok(Ok(replaced))
            }
            Err(why) => match self.swap(staged) {
                Ok(()) => Err(why),
                Err(e) => Err(self.give_up(staged, e)),
            },
        }
    }

    fn swap(&self, staged: &OsStr) -> Result<(), Errno> {
        let dir = &*self.dir;
        fs::renameat_with(dir, staged, dir, &*self.name, RenameFlags::EXCHANGE)
    }

    /// Forgets the entry `staged`, which is another program's and could not be exchanged again. It
    /// must outlive this run.
    fn give_up(&mut self, staged: &OsStr, e: Errno) -> InstallError {
        self.staging.gone(&self.path.with_file_name(staged));
        self.staged = None;
        self.exchanged = true;
        self.io(io::Error::other(format!(
            "was changed by another process, and the content of that process is at `{}` now: {e}",
            staged.display()
        )))
    }

    /// Removes every entry next to the target.
    pub(super) fn unstage(&mut self) {
        let staged = self.staged.take();
        let retired = std::mem::take(&mut self.retired);
        for entry in staged.into_iter().chain(retired) {
            self.remove(&entry);
        }
    }

    /// Removes an entry as far as it is known. What is not removed is remembered.
    pub(super) fn remove(&mut self, entry: &SideEntry) {
        let path = self.path.with_file_name(&entry.name);
        match entry.known.remove(&self.dir, &entry.name, &path) {
            Ok(()) => self.staging.gone(&path),
            Err(why) => self.not_removed.push((path, why.to_string())),
        }
    }

    /// As [`super::Target::hidden_names`].
    pub(super) fn hidden_names(&self) -> BTreeSet<OsString> {
        let mut names = names(&self.dir, usize::MAX).unwrap_or_default();
        names.retain(|name| name.as_encoded_bytes().starts_with(b"."));
        names
    }

    /// As [`super::Target::leftovers`].
    pub(super) fn leftovers<'a>(
        &self,
        names: &'a BTreeSet<OsString>,
    ) -> impl Iterator<Item = &'a OsString> {
        let prefix = self.staging_name("").into_encoded_bytes();
        let own: Vec<OsString> = self
            .staged
            .iter()
            .chain(&self.retired)
            .map(|entry| entry.name.clone())
            .collect();
        names
            .iter()
            .filter(move |name| name.as_encoded_bytes().starts_with(&prefix) && !own.contains(name))
    }
}

impl Drop for TargetSlot {
    fn drop(&mut self) {
        self.unstage();
    }
}
