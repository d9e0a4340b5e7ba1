//! What a run was, from the first and the last lines of its journal: however large it is, little of
//! it is read.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use rustix::fs::{Mode, OFlags};
use serde_json::Value;

use super::{
    layout,
    records::{RunBegan, RunEnded},
    state_dir,
};

/// So much of a journal's beginning and of its end is read, in bytes.
const GLANCE: u64 = 64 << 10;
/// Longest line that is read, in bytes: an intent over 10,000 targets needs about 4 MB.
const MAX_LINE: u64 = 64 << 20;

/// An earlier run.
#[derive(Debug, Clone)]
pub struct RunInfo {
    /// Its id.
    pub id: String,
    /// When it began, as its id says.
    pub at: Option<jiff::Timestamp>,
    /// Whether somebody must look: it runs, its owner died, or it ended mixed.
    pub open: bool,
    /// Whether it runs now.
    pub running: bool,
    /// None of a run that never began.
    pub began: Option<RunBegan>,
    /// None of a run that did not come to its end.
    pub end: Option<RunEnded>,
}

impl RunInfo {
    /// What is known of the run `id`.
    #[must_use]
    pub fn of(state: &Path, id: &str) -> Self {
        let marked = layout::mark_of(state, id).exists();
        let (began, end, held) = glance(&layout::journal_of(state, id)).unwrap_or_default();
        // Who was killed between its last line and its mark had ended.
        let open = marked
            && end.as_ref().is_none_or(
                |end| matches!(end, RunEnded::Finished { verdict, .. } if verdict == "mixed"),
            );
        Self {
            id: id.into(),
            at: begun_at(id),
            open,
            running: marked && held,
            began,
            end,
        }
    }

    /// The commands that go on with a run that was left open, and that undo it; `flag` is what they
    /// need besides.
    #[must_use]
    pub fn next(&self, flag: &str) -> Option<[String; 2]> {
        (self.open && !self.running)
            .then(|| ["resume", "revert"].map(|verb| format!("hello {verb} {}{flag}", self.id)))
    }

    /// How it ended, in one word.
    #[must_use]
    pub fn verdict(&self) -> &str {
        match &self.end {
            Some(RunEnded::Finished { verdict, .. }) => verdict,
            Some(RunEnded::SupersededBy { .. }) => "superseded",
            None if self.open => "open",
            None if self.began.is_none() => "never_began",
            None => "unknown",
        }
    }
}

/// When a run began: its id says it.
pub(super) fn begun_at(id: &str) -> Option<jiff::Timestamp> {
    let (seconds, nanos) = uuid::Uuid::try_parse(id).ok()?.get_timestamp()?.to_unix();
    jiff::Timestamp::new(seconds.try_into().ok()?, nanos.try_into().ok()?).ok()
}

/// The ids of all runs that are kept, oldest first.
///
/// # Errors
/// The state directory cannot be read.
pub fn run_ids(state: &Path) -> io::Result<Vec<String>> {
    Ok(state_dir::names(&state.join("runs"))?
        .into_iter()
        .filter(|name| begun_at(name).is_some())
        .collect())
}

/// Opens a journal; nothing that is no file is waited for.
fn open(path: &Path) -> io::Result<File> {
    let flags =
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// The first line, the last one where it is an end, and whether whoever writes it lives.
fn glance(journal: &Path) -> io::Result<(Option<RunBegan>, Option<RunEnded>, bool)> {
    let mut file = open(journal)?;
    let held = matches!(
        file.try_lock_shared(),
        Err(std::fs::TryLockError::WouldBlock)
    );
    let length = file.metadata()?.len();
    let mut glance_at = |at: u64| {
        let mut bytes = Vec::with_capacity(usize::try_from(GLANCE.min(length)).unwrap_or(0) + 1);
        file.seek(SeekFrom::Start(at))?;
        (&mut file).take(GLANCE).read_to_end(&mut bytes)?;
        io::Result::Ok(bytes)
    };
    let head = glance_at(0)?;
    let tail = if length > GLANCE {
        Some(glance_at(length - GLANCE)?)
    } else {
        None
    };
    let first = head
        .split(|b| *b == b'\n')
        .next()
        .and_then(|line| serde_json::from_slice(line).ok());
    // Torn lines say nothing: of a writer that was killed, and where the glance begins.
    let last = tail
        .as_ref()
        .unwrap_or(&head)
        .split(|b| *b == b'\n')
        .rev()
        .find_map(|line| serde_json::from_slice::<Value>(line).ok());
    Ok((
        first,
        last.and_then(|value| serde_json::from_value(value).ok()),
        held,
    ))
}

/// What happened in a run, line by line; torn lines are left out.
///
/// # Errors
/// The journal cannot be read.
pub fn events(state: &Path, id: &str) -> io::Result<impl Iterator<Item = Value> + use<>> {
    let mut lines = BufReader::new(open(&layout::journal_of(state, id))?);
    Ok(std::iter::from_fn(move || {
        loop {
            let mut line = Vec::new();
            match lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
            if let Ok(value) = serde_json::from_slice(&line) {
                return Some(value);
            }
        }
    }))
}

/// The one run whose id begins with `prefix`, or all of which it could be.
///
/// # Errors
/// The state directory cannot be read.
pub fn find(state: &Path, prefix: &str) -> io::Result<Vec<String>> {
    let mut found = run_ids(state)?;
    found.retain(|id| id.starts_with(prefix));
    Ok(found)
}
