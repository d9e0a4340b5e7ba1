//! A target that is a file.

use std::{
    ffi::{OsStr, OsString},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self, AtFlags, FileType, Mode, OFlags},
    io::Errno,
};

use self::content::{ChangeTime, digest_of, fill, link, snapshot};
use super::{
    entries::Entries,
    error::{InstallError, InstallReason},
    late_edit::{LateEdit, ReplacedFile},
    slot::{SideEntry, Snapshot, TargetSlot},
    sync::Sync,
};
use crate::{
    config::{self, MAX_TARGET, ReadError},
    runs::Stage,
    step::Content,
    tree::{Identity, Known, kind, open_file, status},
};

mod content;

/// A file to replace.
#[derive(Debug)]
pub(crate) struct FileTarget {
    pub(super) slot: TargetSlot,
    /// The rollback content: the old bytes in a file without a name. A disk that fills during the
    /// run then cannot prevent a rollback.
    reserve: Option<OwnedFd>,
    /// The files that were exchanged away and are held open.
    replaced: Vec<ReplacedFile>,
}

impl FileTarget {
    pub(super) fn new(slot: TargetSlot) -> Self {
        Self {
            slot,
            reserve: None,
            replaced: Vec::new(),
        }
    }

    pub(super) fn read(&self) -> Result<Content, InstallError> {
        self.content(self.open()?)
    }

    pub(super) fn survey(&mut self) -> Result<Content, InstallError> {
        let file = self.open()?;
        // Attributes before bytes, as in every later read: a change in between shows in the bytes,
        // or in a later read.
        self.slot.expected = Some(Entries::of(&file).map_err(|e| self.slot.io(e))?);
        self.content(file)
    }

    /// Opens the file through the held directory. A link is not followed: another user may have
    /// created it since the path was resolved.
    fn open(&self) -> Result<OwnedFd, InstallError> {
        open_file(&self.slot.dir, &self.slot.name).map_err(|e| match e {
            Errno::LOOP => self.slot.refused(InstallReason::Link),
            e => self
                .slot
                .refused(InstallReason::Unreadable(ReadError::Io(e.into()))),
        })
    }

    fn content(&self, file: OwnedFd) -> Result<Content, InstallError> {
        config::read_fd(file, MAX_TARGET)
            .map(Content::new)
            .map_err(|e| self.slot.refused(InstallReason::from(e)))
    }

    pub(super) fn is_public(&self) -> bool {
        self.slot.status().is_ok_and(|s| s.stx_mode & 0o004 != 0)
    }

    pub(super) fn digest(&self) -> Option<String> {
        digest_of(&self.slot.dir, &self.slot.name)
    }

    pub(super) fn guard(&self) -> Result<(), InstallError> {
        let stat = self.slot.status().map_err(|e| self.slot.io(e))?;
        if kind(&stat) == FileType::RegularFile {
            self.slot.guard(&stat)
        } else {
            Err(self.slot.refused(InstallReason::NotFile))
        }
    }

    pub(super) fn stage(
        &mut self,
        bytes: &[u8],
        run: &str,
        sync: Sync,
    ) -> Result<PathBuf, InstallError> {
        self.guard()?;
        let (live, live_identity) = self.open_live()?;
        let name = self.slot.staging_name(run);
        let nameless = self.create_nameless()?;
        let needs_name = nameless.is_some();
        let file = match nameless {
            Some(file) => file,
            None => self.create(&name)?,
        };
        let staged = fill(file, &live, bytes, ChangeTime::New, sync)
            .map_err(|e| self.slot.staging_error(e))
            .and_then(|file| {
                let identity = self.identity(&file)?;
                self.record_known(&name, vec![identity, live_identity])?;
                if needs_name {
                    link(&file, &self.slot.dir, &name).map_err(|e| self.slot.staging_error(e))?;
                }
                Ok(())
            });
        if let Err(e) = staged {
            self.remember_unfinished();
            self.slot.unstage();
            return Err(e);
        }
        Ok(self.slot.path.with_file_name(name))
    }

    fn identity(&self, file: &OwnedFd) -> Result<Identity, InstallError> {
        let stat = status(file, OsStr::new("")).map_err(|e| self.slot.io(e))?;
        Ok(Identity::of(&stat))
    }

    /// Adds a file that was created under its name, and not completed, to the known entries.
    fn remember_unfinished(&mut self) {
        let me = rustix::process::geteuid().as_raw();
        if let Some(staged) = &mut self.slot.staged
            && let Ok(stat) = status(&self.slot.dir, &staged.name)
            && staged
                .known
                .sealed
                .contains(&Identity::of(&stat).owned_by(me).unwritten())
        {
            staged.known.whole.insert(Identity::of(&stat));
        }
    }

    /// Opens the live file, which gives the staged file its attributes. They must be those of the
    /// survey: with the attributes of another user's file, that user could read the content.
    fn open_live(&mut self) -> Result<(OwnedFd, Identity), InstallError> {
        let file = self.open()?;
        let now = Entries::of(&file).map_err(|e| self.slot.io(e))?;
        let identity = now
            .identity(Path::new(""))
            .ok_or_else(|| self.slot.drifted())?;
        self.slot.check_attributes(&now)?;
        self.slot.expected.get_or_insert(now);
        Ok((file, identity))
    }

    /// Creates a file without a name in the directory; none if the filesystem has no such files.
    fn create_nameless(&self) -> Result<Option<OwnedFd>, InstallError> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match fs::openat(&*self.slot.dir, ".", flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => Ok(None),
            Err(e) => Err(self.slot.staging_error(e)),
        }
    }

    /// Creates a file of this name, and records it before and after.
    fn create(&mut self, name: &OsStr) -> Result<OwnedFd, InstallError> {
        self.slot.record(name, Stage::Wanted, Vec::new())?;
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = fs::openat(&*self.slot.dir, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| self.slot.staging_error(e))?;
        let identity = self.identity(&file)?;
        self.slot.staged = Some(SideEntry {
            name: name.into(),
            known: Known {
                sealed: [identity.unwritten()].into(),
                ..Known::default()
            },
            original: None,
        });
        self.slot.record(name, Stage::Sealed, vec![identity])?;
        Ok(file)
    }

    /// Adds the identities that the entry of this name may have, and records the new ones.
    fn record_known(
        &mut self,
        name: &OsStr,
        identities: Vec<Identity>,
    ) -> Result<(), InstallError> {
        let staged = self.slot.staged.get_or_insert_with(|| SideEntry {
            name: name.into(),
            ..SideEntry::default()
        });
        let new: Vec<Identity> = identities
            .into_iter()
            .filter(|identity| staged.known.whole.insert(*identity))
            .collect();
        if new.is_empty() {
            Ok(())
        } else {
            self.slot.record(name, Stage::Whole, new)
        }
    }

    /// Writes the rollback content into a file without a name, so that its space on the disk is
    /// taken before anything is touched. On a filesystem without such files, the rollback content
    /// is staged when it is needed.
    pub(super) fn reserve(&mut self, bytes: &[u8], sync: Sync) -> Result<(), InstallError> {
        if let Some(file) = self.create_nameless()? {
            let (live, _) = self.open_live()?;
            let filled = fill(file, &live, bytes, ChangeTime::Kept, sync);
            self.reserve = Some(filled.map_err(|e| self.slot.staging_error(e))?);
        }
        Ok(())
    }

    pub(super) fn install(
        &mut self,
        from: &str,
        to: &Content,
        run: &str,
    ) -> Result<bool, InstallError> {
        let now = snapshot(&self.slot.dir, &self.slot.name);
        if self.slot.is_done(now.as_ref(), from, to)? {
            return Ok(false);
        }
        let (name, attributes) = match self.verified_staged(to) {
            Some(staged) => staged,
            None => self.restage(to, run)?,
        };
        // The live file may have another inode than when the new one was staged, with the same
        // content.
        let live = now
            .map(|now| now.entries.identities().collect())
            .unwrap_or_default();
        self.record_known(&name, live)?;
        let replaced = match self.slot.exchange(&name, from, snapshot)? {
            Ok(replaced) => replaced,
            Err(_) => self.replace(&name, from)?,
        };
        self.slot.expected = Some(attributes);
        if let Some(staged) = &mut self.slot.staged {
            staged.known.whole.extend(replaced.entries.identities());
        }
        if self.slot.hold {
            let file = ReplacedFile::new(replaced.fd, from, replaced.entries);
            self.replaced.push(file);
        }
        // The run already stores the old bytes, so the old file can be removed.
        self.slot.unstage();
        Ok(true)
    }

    /// Returns the name and attributes of the staged file, if it still is what this run created.
    fn verified_staged(&self, to: &Content) -> Option<(OsString, Entries)> {
        let staged = self.slot.staged.as_ref()?;
        let file = snapshot(&self.slot.dir, &staged.name)?;
        let is_known = file
            .entries
            .identities()
            .all(|identity| staged.known.whole.contains(&identity));
        (file.sha256 == to.sha256 && is_known).then(|| (staged.name.clone(), file.entries))
    }

    /// Replaces the live file on a filesystem without an exchange. The old file keeps a second name
    /// until it is known to be the expected one.
    fn replace(&mut self, staged: &OsStr, from: &str) -> Result<Snapshot, InstallError> {
        let mut old_name = OsString::from(staged);
        old_name.push("-old");
        let live = Entries::of(&self.open()?).map_err(|e| self.slot.io(e))?;
        let identities = live.identities().collect();
        self.slot.record(&old_name, Stage::Whole, identities)?;
        let dir = self.slot.dir.clone();
        fs::linkat(&*dir, &*self.slot.name, &*dir, &*old_name, AtFlags::empty())
            .map_err(|e| self.slot.io(e))?;
        let replaced = snapshot(&dir, &old_name).filter(|replaced| replaced.sha256 == from);
        let renamed = match &replaced {
            Some(replaced) => self
                .slot
                .check_attributes(&replaced.entries)
                .and_then(|()| {
                    fs::renameat(&*dir, staged, &*dir, &*self.slot.name)
                        .map_err(|e| self.slot.io(e))
                }),
            None => Err(self.slot.drifted()),
        };
        // A second name that cannot be removed now is removed by the next run.
        self.slot.remove(&SideEntry {
            name: old_name,
            known: Known {
                whole: live.identities().collect(),
                ..Known::default()
            },
            original: None,
        });
        renamed?;
        self.slot.exchanged = true;
        replaced.ok_or_else(|| self.slot.drifted())
    }

    /// Stages the content of a rollback: the reserve if there is one, else the bytes are written
    /// now. Returns the name and the attributes.
    fn restage(&mut self, to: &Content, run: &str) -> Result<(OsString, Entries), InstallError> {
        self.slot.unstage();
        let run = format!("{run}-undo");
        if let Some(staged) = self.stage_reserve(to, &run)? {
            return Ok(staged);
        }
        // An entry that could not be removed may have the name.
        let run = self.slot.unused_run_name(run);
        self.stage(&to.bytes, &run, Sync::Singly)?;
        self.verified_staged(to).ok_or_else(|| self.slot.drifted())
    }

    /// Gives the reserve its name. Returns none if there is no reserve, or it cannot be used.
    fn stage_reserve(
        &mut self,
        to: &Content,
        run: &str,
    ) -> Result<Option<(OsString, Entries)>, InstallError> {
        let Some(file) = &self.reserve else {
            return Ok(None);
        };
        let name = self.slot.staging_name(run);
        let identity = self.identity(file)?;
        self.slot.record(&name, Stage::Whole, vec![identity])?;
        if link(file, &self.slot.dir, &name).is_err() {
            return Ok(None);
        }
        self.slot.staged = Some(SideEntry {
            name,
            known: Known {
                whole: [identity].into(),
                ..Known::default()
            },
            original: None,
        });
        let staged = self.verified_staged(to);
        if staged.is_some() {
            self.reserve = None;
        } else {
            self.slot.unstage();
        }
        Ok(staged)
    }

    /// As [`super::Target::late_edits`].
    pub(super) fn late_edits(&mut self) -> Vec<LateEdit> {
        std::mem::take(&mut self.replaced)
            .into_iter()
            .filter_map(|file| file.late_edit(self.slot.path.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests;
