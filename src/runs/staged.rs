//! The record of the files that a run stages beside its targets: `staged/RUN.jsonl` in the state
//! directory. A name is recorded before another user could exchange its file. The record is not
//! synced: it outlives a kill, and after a power failure a leftover may stay.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Write},
    os::{
        fd::OwnedFd,
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{boot_id, state_dir};
use crate::{
    kernel::{Proc, is_alive},
    tree::{Identity, Known, status},
};

/// Largest record that is read, in bytes: 10,000 entries need about 1 MB.
const MAX_RECORD: u64 = 64 << 20;

/// The first line: the coordinator, which may still run.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Owner {
    boot_id: String,
    pid: i32,
    started: u64,
}

impl Owner {
    fn now() -> Self {
        let stat = Proc::own().and_then(|own| own.stat());
        let (pid, started) = stat.map_or((0, 0), |stat| (stat.pid, stat.started));
        Self {
            boot_id: boot_id(),
            pid,
            started,
        }
    }

    fn is_alive(&self) -> bool {
        self.boot_id == boot_id() && is_alive(self.pid, self.started)
    }
}

/// A name; bytes where it is not UTF-8.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Name {
    Text(String),
    Bytes(Vec<u8>),
}

impl Name {
    fn of(name: &OsStr) -> Self {
        name.to_str().map_or_else(
            || Self::Bytes(name.as_bytes().to_vec()),
            |text| Self::Text(text.into()),
        )
    }

    fn get(self) -> OsString {
        match self {
            Self::Text(text) => text.into(),
            Self::Bytes(bytes) => OsString::from_vec(bytes),
        }
    }
}

/// A name that is about to be made beside a target, and the files that it may be.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Line {
    dir: Name,
    /// The directory itself: its path may lead elsewhere later.
    at: Identity,
    name: Name,
    /// Empty where it is not made yet.
    entries: Vec<Identity>,
    /// True while it is written, and no other user can enter it.
    sealed: bool,
}

/// The state of one staged name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It is about to be made.
    Wanted,
    /// It is being written, and no other user can enter it.
    Sealed,
    /// It is complete.
    Whole,
}

#[derive(Debug, Default)]
struct Inner {
    file: Option<File>,
    /// Staged paths that are not known to be gone.
    there: BTreeSet<PathBuf>,
}

/// The record of one run. It is removed once everything that it names is gone.
#[derive(Debug, Default)]
pub struct Staging {
    /// The state directory and the id of the run; none where no record is kept.
    place: Option<(PathBuf, String)>,
    inner: Mutex<Inner>,
}

impl Staging {
    /// Returns the record of the run `id`. Its file is made when the first file is staged.
    #[must_use]
    pub fn of(state: &Path, id: &str) -> Self {
        Self {
            place: Some((state.into(), id.into())),
            inner: Mutex::default(),
        }
    }

    /// Returns the record of a dry run: it makes no state directory, and needs none.
    #[must_use]
    pub fn where_possible(state: &Path, id: &str) -> Self {
        let staging = Self::of(state, id);
        if state.exists() && staging.open().is_ok() {
            staging
        } else {
            Self::default()
        }
    }

    /// Returns the state directory; none where no record is kept.
    #[must_use]
    pub fn state(&self) -> Option<&Path> {
        self.place.as_ref().map(|(state, _)| state.as_path())
    }

    /// Makes the file of the record, if one is kept.
    ///
    /// # Errors
    /// Fails if the state directory cannot be written, or if another user can write it.
    pub fn open(&self) -> io::Result<()> {
        let Some((state, id)) = &self.place else {
            return Ok(());
        };
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.file.is_some() {
            return Ok(());
        }
        state_dir::make(state)?;
        state_dir::folder(&state.join("staged"))?;
        let mut line = serde_json::to_vec(&Owner::now())?;
        line.push(b'\n');
        let path = path_of(state, id);
        let file =
            state_dir::create(&path, &line).inspect_err(|_| drop(std::fs::remove_file(&path)))?;
        // On a filesystem without locks, the pid of the owner tells that it is alive.
        let _ = file.try_lock();
        inner.file = Some(file);
        Ok(())
    }

    /// Records a name that is about to be made: `path`, in the directory `dir`.
    ///
    /// # Errors
    /// Fails if the record cannot be written.
    pub fn note(
        &self,
        dir: &OwnedFd,
        path: &Path,
        stage: Stage,
        entries: Vec<Identity>,
    ) -> io::Result<()> {
        let Some((state, _)) = &self.place else {
            return Ok(());
        };
        let unusable = |e: io::Error| {
            io::Error::new(
                e.kind(),
                format!(
                    "the state directory `{}` cannot be used: {e}",
                    state.display()
                ),
            )
        };
        self.open().map_err(unusable)?;
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let (parent, name) = (
            path.parent().unwrap_or(Path::new("/")),
            path.file_name().unwrap_or_default(),
        );
        let line = Line {
            dir: Name::of(parent.as_os_str()),
            at: identity_of(dir)?,
            name: Name::of(name),
            entries,
            sealed: stage == Stage::Sealed,
        };
        let mut line = serde_json::to_vec(&line)?;
        line.push(b'\n');
        inner.there.insert(path.into());
        inner
            .file
            .as_mut()
            .map_or(Ok(()), |file| file.write_all(&line))
            .map_err(unusable)
    }

    /// Removes the record, unless a file that it names is left.
    pub fn end(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some((state, id)), true) =
            (&self.place, inner.there.is_empty() && inner.file.is_some())
        {
            let _ = std::fs::remove_file(path_of(state, id));
            inner.file = None;
        }
    }

    /// Notes that the staged file at `path` is gone.
    pub fn gone(&self, path: &Path) {
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .there
            .remove(path);
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        self.end();
    }
}

fn path_of(state: &Path, id: &str) -> PathBuf {
    state.join("staged").join(format!("{id}.jsonl"))
}

/// Removes the staged files of killed runs, as far as they still are what these runs made. Returns
/// each path that stays, with the reason; its record stays too.
#[must_use]
pub(crate) fn sweep(state: &Path) -> Vec<(PathBuf, String)> {
    let mut left = Vec::new();
    let staged = state.join("staged");
    let names = state_dir::names(&staged).unwrap_or_default();
    if names.is_empty() || state_dir::trusted(state).is_err() {
        return left;
    }
    for name in names {
        left.extend(sweep_record(&staged.join(name)).unwrap_or_default());
    }
    left
}

/// Removes the files of one record; nothing where its run is under way.
fn sweep_record(path: &Path) -> io::Result<Vec<(PathBuf, String)>> {
    let file = File::open(path)?;
    if matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)) {
        return Ok(Vec::new());
    }
    let bytes = crate::config::read(path, MAX_RECORD).map_err(io::Error::other)?;
    let mut lines = bytes.split(|b| *b == b'\n');
    let owner = lines
        .next()
        .and_then(|line| serde_json::from_slice::<Owner>(line).ok());
    if owner.is_some_and(|owner| owner.is_alive()) {
        return Ok(Vec::new());
    }
    let mut names: BTreeMap<(PathBuf, Identity, OsString), Known> = BTreeMap::new();
    // A torn line names a file that was not made.
    for line in lines.filter_map(|line| serde_json::from_slice::<Line>(line).ok()) {
        let known = names
            .entry((line.dir.get().into(), line.at, line.name.get()))
            .or_default();
        match (line.sealed, line.entries.is_empty()) {
            (_, true) => known.empty = true,
            (true, _) => known
                .sealed
                .extend(line.entries.into_iter().map(Identity::unwritten)),
            (false, _) => known.whole.extend(line.entries),
        }
    }
    let mut left = Vec::new();
    let mut open = None;
    for ((dir, identity, name), known) in names {
        if open.as_ref().is_none_or(|(path, _)| *path != dir) {
            open = Some((dir.clone(), directory(&dir, identity)));
        }
        let path = dir.join(&name);
        match open.as_ref().map(|(_, dir)| dir) {
            // The directory is gone.
            None | Some(Ok(None)) => {}
            Some(Ok(Some(dir))) => {
                if let Err(why) = known.remove(dir, &name, &path) {
                    left.push((path, why.to_string()));
                }
            }
            Some(Err(why)) => left.push((path, why.to_string())),
        }
    }
    if left.is_empty() {
        std::fs::remove_file(path)?;
    }
    Ok(left)
}

/// Returns the identity of a directory, without its owner, which may change.
fn identity_of(dir: &OwnedFd) -> io::Result<Identity> {
    Ok(Identity::of(&status(dir, OsStr::new(""))?).owned_by(0))
}

/// Opens the directory at this path, where it still is the recorded one; none where it is gone.
fn directory(path: &Path, at: Identity) -> io::Result<Option<OwnedFd>> {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        Ok(dir) if identity_of(&dir)? == at => Ok(Some(dir)),
        Ok(_) | Err(Errno::LOOP) => Err(io::Error::other(
            "its directory was replaced by another one, so the staged file was not found",
        )),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn the_lines_of_a_record_are_read_back_as_they_were() {
        let owner = Owner::now();
        let json = serde_json::to_string(&owner).unwrap();
        assert_eq!(serde_json::from_str::<Owner>(&json).unwrap(), owner);
        let dir = tempfile::tempdir().unwrap();
        let identity = identity_of(&File::open(dir.path()).unwrap().into()).unwrap();
        let line = Line {
            dir: Name::of(OsStr::new("/etc")),
            at: identity,
            name: Name::of(OsStr::from_bytes(b"a\xff")),
            entries: vec![identity],
            sealed: true,
        };
        let json = serde_json::to_string(&line).unwrap();
        assert_eq!(serde_json::from_str::<Line>(&json).unwrap(), line, "{json}");
    }
}
