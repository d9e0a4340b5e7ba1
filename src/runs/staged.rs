//! What a run stages beside its targets, written down before another user could exchange it:
//! `staged/RUN.jsonl` in the state directory. It is not synced: it outlives a kill, and after a
//! loss of power a leftover may stay.

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

use procfs::process::Process;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::{boot_id, state_dir};
use crate::tree::{Identity, Known, status};

/// Largest record that is read, in bytes: 10,000 entries need about 1 MB.
const MAX_RECORD: u64 = 64 << 20;

/// The first line: the process that may still be at work.
#[derive(Debug, Serialize, Deserialize)]
struct Owner {
    boot_id: String,
    pid: i32,
    started: u64,
}

impl Owner {
    fn now() -> Self {
        let stat = Process::myself().and_then(|process| process.stat());
        Self {
            boot_id: boot_id(),
            pid: std::process::id().cast_signed(),
            started: stat.map_or(0, |stat| stat.starttime),
        }
    }

    fn is_alive(&self) -> bool {
        let stat = Process::new(self.pid).and_then(|process| process.stat());
        self.boot_id == boot_id()
            && stat.is_ok_and(|stat| {
                stat.starttime == self.started && !matches!(stat.state, 'Z' | 'X')
            })
    }
}

/// A name; bytes where it is no text.
#[derive(Debug, Serialize, Deserialize)]
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

/// A name that is about to stand beside a target, and what it may stand for.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    dir: Name,
    /// The directory itself: path alone says nothing.
    at: Identity,
    name: Name,
    /// Nothing where it is not made yet.
    entries: Vec<Identity>,
    /// Whether it is being written, and no other user can enter it.
    sealed: bool,
}

/// What is known of one name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It is about to be made.
    Wanted,
    /// It is being written, and no other user can enter it.
    Sealed,
    /// It is whole.
    Whole,
}

#[derive(Debug, Default)]
struct Inner {
    file: Option<File>,
    /// What was staged and is not known to be gone.
    there: BTreeSet<PathBuf>,
}

/// The record of one run. It goes when all that it names is gone.
#[derive(Debug, Default)]
pub struct Staging {
    /// Nothing where no record is kept.
    place: Option<(PathBuf, String)>,
    inner: Mutex<Inner>,
}

impl Staging {
    /// The record of the run `id`; made when something is staged first.
    #[must_use]
    pub fn of(state: &Path, id: &str) -> Self {
        Self {
            place: Some((state.into(), id.into())),
            inner: Mutex::default(),
        }
    }

    /// The same of a run that only shows what it would do: it makes no state directory, and needs
    /// none.
    #[must_use]
    pub fn where_possible(state: &Path, id: &str) -> Self {
        let staging = Self::of(state, id);
        if state.exists() && staging.open().is_ok() {
            staging
        } else {
            Self::default()
        }
    }

    /// The state directory; none where no record is kept.
    #[must_use]
    pub fn state(&self) -> Option<&Path> {
        self.place.as_ref().map(|(state, _)| state.as_path())
    }

    /// Makes the record, where there is to be one.
    ///
    /// # Errors
    /// Fails if the state directory cannot be written, or another user decides what stands in it.
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
        // Where a filesystem has no locks, its owner's number says that it is alive.
        let _ = file.try_lock();
        inner.file = Some(file);
        Ok(())
    }

    /// Writes down what is about to stand at `path` in the directory `dir`.
    ///
    /// # Errors
    /// Fails if it cannot be written.
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
            at: place(dir)?,
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

    /// Removes the record, unless something of what it names is left.
    pub fn end(&self) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some((state, id)), true) =
            (&self.place, inner.there.is_empty() && inner.file.is_some())
        {
            let _ = std::fs::remove_file(path_of(state, id));
            inner.file = None;
        }
    }

    /// Takes in that what was staged at `path` is gone.
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

/// Removes what runs that were killed have staged, as far as it still is what they made. Answers
/// what stays, with the reason; its record stays too.
#[must_use]
pub fn sweep(state: &Path) -> Vec<(PathBuf, String)> {
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

/// The same of one record; nothing where its run is at work.
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
    let mut all: BTreeMap<(PathBuf, Identity, OsString), Known> = BTreeMap::new();
    // A torn line is of a name that was not made.
    for line in lines.filter_map(|line| serde_json::from_slice::<Line>(line).ok()) {
        let known = all
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
    let (mut left, mut open) = (Vec::new(), None);
    for ((dir, at, name), known) in all {
        if open.as_ref().is_none_or(|(path, _)| *path != dir) {
            open = Some((dir.clone(), directory(&dir, at)));
        }
        let place = dir.join(&name);
        match open.as_ref().map(|(_, dir)| dir) {
            // The directory is gone, and all of it.
            None | Some(Ok(None)) => {}
            Some(Ok(Some(dir))) => {
                if let Err(why) = known.remove(dir, &name, &place) {
                    left.push((place, why.to_string()));
                }
            }
            Some(Err(why)) => left.push((place, why.to_string())),
        }
    }
    if left.is_empty() {
        std::fs::remove_file(path)?;
    }
    Ok(left)
}

/// Which directory it is, whoever owns it by now.
fn place(dir: &OwnedFd) -> io::Result<Identity> {
    Ok(Identity::of(&status(dir, OsStr::new(""))?).owned_by(0))
}

/// The directory at this path, where it still is the one that was written down; none where it is
/// gone.
fn directory(path: &Path, at: Identity) -> io::Result<Option<OwnedFd>> {
    use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        Ok(dir) if place(&dir)? == at => Ok(Some(dir)),
        Ok(_) | Err(Errno::LOOP) => Err(io::Error::other(
            "another directory stands there by now, so that what a run has left was not found",
        )),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(e) => Err(e.into()),
    }
}
