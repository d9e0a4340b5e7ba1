//! A target that is a file.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsRawFd, OwnedFd},
    path::PathBuf,
};

use rustix::{
    fs::{self, AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid},
    io::Errno,
};

use super::{
    entries::{Entries, copy_xattrs},
    error::InstallError,
    late::{Late, Old},
    spot::{Beside, Seen, TargetSlot, is_file},
    sync::Sync,
};
use crate::{
    config::{self, MAX_TARGET},
    runs::Stage,
    step::Content,
    tree::{Identity, Known, status},
};

/// For reading, along no link.
const READ: OFlags = OFlags::RDONLY
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NOFOLLOW);

/// A file to replace.
#[derive(Debug)]
pub(crate) struct FileTarget {
    pub(super) spot: TargetSlot,
    /// The rollback content: the old bytes in a file without a name, so that a disk that fills
    /// meanwhile cannot stop a rollback.
    reserve: Option<OwnedFd>,
    /// Files that came out of an exchange.
    old: Vec<Old>,
}

impl FileTarget {
    pub(super) fn new(spot: TargetSlot) -> Self {
        Self {
            spot,
            reserve: None,
            old: Vec::new(),
        }
    }

    pub(super) fn read(&self) -> Result<Content, InstallError> {
        self.content(self.open()?)
    }

    pub(super) fn survey(&mut self) -> Result<Content, InstallError> {
        let file = self.open()?;
        // Attributes before bytes, as at every later look: a change in between is one of the bytes
        // or shows later.
        self.spot.expects = Some(Entries::of(&file).map_err(|e| self.spot.io(e))?);
        self.content(file)
    }

    /// Through the held directory, and along no link: another user may have put one there since the
    /// path was resolved.
    fn open(&self) -> Result<OwnedFd, InstallError> {
        fs::openat(&*self.spot.dir, &*self.spot.name, READ, Mode::empty()).map_err(|e| match e {
            Errno::LOOP => self.spot.refused("it is a symbolic link by now"),
            e => self.spot.refused(e.to_string()),
        })
    }

    fn content(&self, file: OwnedFd) -> Result<Content, InstallError> {
        config::read_fd(file, MAX_TARGET)
            .map(Content::new)
            .map_err(|e| self.spot.refused(e.to_string()))
    }

    pub(super) fn is_public(&self) -> bool {
        self.spot.status().is_ok_and(|s| s.stx_mode & 0o004 != 0)
    }

    pub(super) fn digest(&self) -> Option<String> {
        digest_of(&self.spot.dir, &self.spot.name)
    }

    pub(super) fn stage(
        &mut self,
        bytes: &[u8],
        run: &str,
        sync: Sync,
    ) -> Result<PathBuf, InstallError> {
        self.guard()?;
        let (live, identity_of_live) = self.live()?;
        let name = self.spot.staging_name(run);
        let file = self.nameless()?;
        let is_nameless = file.is_some();
        let file = match file {
            Some(file) => file,
            None => self.create(&name)?,
        };
        let staged = fill(file, &live, bytes, Time::New, sync)
            .map_err(|e| self.spot.staging_error(e))
            .and_then(|file| {
                let identity =
                    Identity::of(&status(&file, OsStr::new("")).map_err(|e| self.spot.io(e))?);
                self.know(&name, vec![identity, identity_of_live])?;
                if is_nameless {
                    link(&file, &self.spot.dir, &name).map_err(|e| self.spot.staging_error(e))?;
                }
                Ok(())
            });
        if let Err(e) = staged {
            self.unfinished();
            self.spot.unstage();
            return Err(e);
        }
        Ok(self.spot.path.with_file_name(name))
    }

    /// A file that was created under its name is known however far it was written.
    fn unfinished(&mut self) {
        let me = rustix::process::geteuid().as_raw();
        if let Some(beside) = &mut self.spot.staged
            && let Ok(stat) = status(&self.spot.dir, &beside.name)
            && beside
                .known
                .sealed
                .contains(&Identity::of(&stat).owned_by(me).unwritten())
        {
            beside.known.whole.insert(Identity::of(&stat));
        }
    }

    /// Opens the live file, whose attributes what is staged gets. They must be those of the survey:
    /// another user may have exchanged it for a file of its own, which would make the content
    /// readable to that user.
    fn live(&mut self) -> Result<(OwnedFd, Identity), InstallError> {
        let file = self.open()?;
        let now = Entries::of(&file).map_err(|e| self.spot.io(e))?;
        let identity = now
            .identity(std::path::Path::new(""))
            .ok_or_else(|| self.spot.drifted())?;
        self.spot.has_expected(&now)?;
        self.spot.expects.get_or_insert(now);
        Ok((file, identity))
    }

    /// A file without a name beside the target; none where the filesystem has none.
    fn nameless(&self) -> Result<Option<OwnedFd>, InstallError> {
        match fs::openat(
            &*self.spot.dir,
            ".",
            OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC,
            Mode::RUSR | Mode::WUSR,
        ) {
            Ok(file) => Ok(Some(file)),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => Ok(None),
            Err(e) => Err(self.spot.staging_error(e)),
        }
    }

    /// A new file under this name, written down at once.
    fn create(&mut self, name: &OsStr) -> Result<OwnedFd, InstallError> {
        self.spot.note(name, Stage::Wanted, Vec::new())?;
        let flags =
            OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = fs::openat(&*self.spot.dir, name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|e| self.spot.staging_error(e))?;
        let identity = Identity::of(&status(&file, OsStr::new("")).map_err(|e| self.spot.io(e))?);
        let known = Known {
            sealed: [identity.unwritten()].into(),
            ..Known::default()
        };
        self.spot.staged = Some(Beside {
            name: name.into(),
            known,
            was: None,
        });
        self.spot.note(name, Stage::Sealed, vec![identity])?;
        Ok(file)
    }

    /// What stands under this name, or is about to, is one of these.
    fn know(&mut self, name: &OsStr, identities: Vec<Identity>) -> Result<(), InstallError> {
        let beside = self.spot.staged.get_or_insert_with(|| Beside {
            name: name.into(),
            ..Beside::default()
        });
        let new: Vec<Identity> = identities
            .into_iter()
            .filter(|identity| beside.known.whole.insert(*identity))
            .collect();
        if new.is_empty() {
            Ok(())
        } else {
            self.spot.note(name, Stage::Whole, new)
        }
    }

    /// Writes the rollback content into a file without a name: its place on the disk is taken
    /// before anything is touched. Where a filesystem has no such files the rollback content is
    /// staged when it is needed.
    pub(super) fn reserve(&mut self, bytes: &[u8], sync: Sync) -> Result<(), InstallError> {
        if let Some(file) = self.nameless()? {
            let (live, _) = self.live()?;
            self.reserve = Some(
                fill(file, &live, bytes, Time::Kept, sync)
                    .map_err(|e| self.spot.staging_error(e))?,
            );
        }
        Ok(())
    }

    pub(super) fn install(
        &mut self,
        from: &str,
        to: &Content,
        run: &str,
    ) -> Result<bool, InstallError> {
        let now = look(&self.spot.dir, &self.spot.name);
        if self.spot.is_done(now.as_ref(), from, to)? {
            return Ok(false);
        }
        let (name, installs) = match self.ready(to) {
            Some(ready) => ready,
            None => self.restage(to, run)?,
        };
        // The same content in another inode than when it was staged.
        let came_out = now
            .map(|now| now.entries.identities().collect())
            .unwrap_or_default();
        self.know(&name, came_out)?;
        let came = match self.spot.exchange(&name, from, look)? {
            Ok(came) => came,
            Err(_) => self.replace(&name, from)?,
        };
        self.spot.expects = Some(installs);
        if let Some(beside) = &mut self.spot.staged {
            beside.known.whole.extend(came.entries.identities());
        }
        if self.spot.hold {
            self.old.push(Old::new(came.fd, from, came.entries));
        }
        // The old bytes are in the run already, so what came out can go.
        self.spot.unstage();
        Ok(true)
    }

    /// What was staged, where it still is what this run has made; with its attributes.
    fn ready(&self, to: &Content) -> Option<(OsString, Entries)> {
        let beside = self.spot.staged.as_ref()?;
        let staged = look(&self.spot.dir, &beside.name)?;
        let is_ours = staged.sha256 == to.sha256
            && staged
                .entries
                .identities()
                .all(|identity| beside.known.whole.contains(&identity));
        is_ours.then(|| (beside.name.clone(), staged.entries))
    }

    /// Without an exchange: the old file keeps a second name until what was replaced is known to be
    /// it.
    fn replace(&mut self, staged: &OsStr, from: &str) -> Result<Seen, InstallError> {
        let mut old = OsString::from(staged);
        old.push("-old");
        let live = Entries::of(&self.open()?).map_err(|e| self.spot.io(e))?;
        let known = Known {
            whole: live.identities().collect(),
            ..Known::default()
        };
        self.spot
            .note(&old, Stage::Whole, live.identities().collect())?;
        let dir = self.spot.dir.clone();
        fs::linkat(&*dir, &*self.spot.name, &*dir, &*old, AtFlags::empty())
            .map_err(|e| self.spot.io(e))?;
        let came = look(&dir, &old).filter(|came| came.sha256 == from);
        let renamed = match &came {
            Some(came) => self.spot.is_expected(came).and_then(|()| {
                fs::renameat(&*dir, staged, &*dir, &*self.spot.name).map_err(|e| self.spot.io(e))
            }),
            None => Err(self.spot.drifted()),
        };
        // A second name that cannot go is swept by the next run.
        self.spot.remove(&Beside {
            name: old,
            known,
            was: None,
        });
        renamed?;
        self.spot.exchanged = true;
        came.ok_or_else(|| self.spot.drifted())
    }

    /// Gives the rollback content its name; what was not reserved is written now. Answers the name,
    /// and the attributes.
    fn restage(&mut self, to: &Content, run: &str) -> Result<(OsString, Entries), InstallError> {
        self.spot.unstage();
        let mut run = format!("{run}-undo");
        if let Some(file) = &self.reserve {
            let name = self.spot.staging_name(&run);
            let identity =
                Identity::of(&status(file, OsStr::new("")).map_err(|e| self.spot.io(e))?);
            self.spot.note(&name, Stage::Whole, vec![identity])?;
            if link(file, &self.spot.dir, &name).is_ok() {
                let known = Known {
                    whole: [identity].into(),
                    ..Known::default()
                };
                self.spot.staged = Some(Beside {
                    name,
                    known,
                    was: None,
                });
                if let Some(ready) = self.ready(to) {
                    self.reserve = None;
                    return Ok(ready);
                }
                self.spot.unstage();
            }
        }
        // What could not be removed is in the way now.
        while status(&self.spot.dir, &self.spot.staging_name(&run)).is_ok() {
            run.push_str("-again");
        }
        self.stage(&to.bytes, &run, Sync::Singly)?;
        self.ready(to).ok_or_else(|| self.spot.drifted())
    }

    /// As [`super::Target::late`].
    pub(super) fn late(&mut self) -> Vec<Late> {
        std::mem::take(&mut self.old)
            .into_iter()
            .filter_map(|old| old.late(self.spot.path.clone()))
            .collect()
    }

    pub(super) fn guard(&self) -> Result<(), InstallError> {
        let stat = self.spot.status().map_err(|e| self.spot.io(e))?;
        if is_file(&stat) {
            self.spot.guard(&stat)
        } else {
            Err(self.spot.refused("it is not a regular file"))
        }
    }
}

/// When a file was changed last, as it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Time {
    /// In another second than the live one.
    New,
    /// That of the live one.
    Kept,
}

/// Writes the bytes, and gives the file the attributes of the live one.
fn fill(fd: OwnedFd, live: &OwnedFd, bytes: &[u8], time: Time, sync: Sync) -> io::Result<OwnedFd> {
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    let fd = OwnedFd::from(file);
    let stat = fs::fstat(live)?;
    let mine = fs::fstat(&fd)?;
    // The owner first: a change of owner clears mode bits.
    if (mine.st_uid, mine.st_gid) != (stat.st_uid, stat.st_gid) {
        fs::fchown(
            &fd,
            Some(Uid::from_raw(stat.st_uid)),
            Some(Gid::from_raw(stat.st_gid)),
        )?;
    }
    copy_xattrs(live, &fd)?;
    fs::fchmod(&fd, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    // A program that knows a file by its size and whole seconds, as Python's cache of compiled
    // files does, must see that it is another one.
    let seconds = match time {
        Time::New => (mine.st_mtime == stat.st_mtime).then_some(stat.st_mtime + 1),
        Time::Kept => Some(stat.st_mtime),
    };
    if let Some(tv_sec) = seconds {
        let last_modification = Timespec {
            tv_sec,
            tv_nsec: stat.st_mtime_nsec.try_into().unwrap_or_default(),
        };
        fs::futimens(
            &fd,
            &Timestamps {
                last_access: last_modification,
                last_modification,
            },
        )?;
    }
    if sync == Sync::Singly {
        fs::fsync(&fd)?;
    }
    Ok(fd)
}

/// Gives a file without a name this one.
fn link(file: &OwnedFd, dir: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
    fs::linkat(fs::CWD, &*nameless, dir, name, AtFlags::SYMLINK_FOLLOW)
}

/// Attributes first, then bytes.
fn look(dir: &OwnedFd, name: &OsStr) -> Option<Seen> {
    let fd = fs::openat(dir, name, READ, Mode::empty()).ok()?;
    let entries = Entries::of(&fd).ok()?;
    let file = File::from(fd);
    let sha256 = digest(&file)?;
    Some(Seen {
        sha256,
        entries,
        fd: file.into(),
        tree: None,
    })
}

fn digest_of(dir: &OwnedFd, name: &OsStr) -> Option<String> {
    digest(&File::from(
        fs::openat(dir, name, READ, Mode::empty()).ok()?,
    ))
}

fn digest(file: &File) -> Option<String> {
    // Room for most, so that one read takes all of it.
    let mut bytes = Vec::with_capacity(4096);
    file.take(MAX_TARGET + 1).read_to_end(&mut bytes).ok()?;
    Some(config::digest(&bytes))
}

#[cfg(test)]
mod tests;
