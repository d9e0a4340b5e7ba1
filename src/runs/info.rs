//! The beginning and the end of a run, from the first and the last line of its journal. However
//! large the journal is, only 128 KiB of it are read.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::Path,
};

use rustix::fs::{Mode, OFlags};
use serde_json::Value;

use super::{
    format::{FirstEvent, JournalLine, RunBegan, RunEnded},
    layout,
    order::RunOrder,
    state_dir,
};
use crate::{event::VERSION, inventory::HostName, protocol::PartOf, screen};

/// Bytes that are read of a journal's beginning, and of its end. The first line is shorter than
/// that: its texts are cut.
const GLANCE: u64 = 64 << 10;
/// Longest line that is read, in bytes: an intent over 10,000 targets needs about 4 MB.
const MAX_LINE: u64 = 64 << 20;

/// An open run of an earlier version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OldRun {
    /// Why it stays open.
    pub note: &'static str,
    /// The command that names its old bytes.
    pub command: String,
}

/// An open run that is a part of one over hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunElsewhere {
    /// Where the commands are to be typed.
    pub note: String,
    /// The commands that finish the run on all of its hosts.
    pub commands: Vec<String>,
}

/// An earlier run.
#[derive(Debug, Clone)]
pub(crate) struct RunInfo {
    /// Its id.
    pub id: String,
    /// The host of its journal, as the first line names it.
    pub host: HostName,
    /// When it began, as its id says.
    pub at: Option<jiff::Timestamp>,
    /// True if it runs, if its coordinator died, or if it ended mixed.
    pub open: bool,
    /// True if it runs now.
    pub running: bool,
    /// Its beginning; none for a run that never began, or that an earlier version wrote.
    pub began: Option<RunBegan>,
    /// Its end; none for a run that did not come to its end.
    pub end: Option<RunEnded>,
    /// True if an earlier version wrote it, whose plan this one cannot read.
    pub is_old: bool,
}

impl RunInfo {
    /// Reads the beginning and the end of the run `id`.
    #[must_use]
    pub(crate) fn of(state: &Path, id: &str) -> Self {
        let marked = layout::mark_of(state, id).exists();
        let Glance {
            host,
            began,
            end,
            held,
            is_old,
        } = glance(&layout::journal_of(state, id)).unwrap_or_default();
        // A run that was killed after its last line, and before it removed its mark, has ended.
        let open = marked
            && end.as_ref().is_none_or(
                |end| matches!(end, RunEnded::Finished { verdict, .. } if verdict == "mixed"),
            );
        Self {
            id: id.into(),
            host: host.unwrap_or_else(HostName::local),
            at: begun_at(id),
            open,
            running: marked && held,
            began,
            end,
            is_old,
        }
    }

    /// Returns the commands that finish a run that was left open: `resume`, and `revert` where that
    /// does something else. Empty for a run of an earlier version, and for one that is a part of a
    /// run over hosts. `state_args` is ` --state DIR`, or empty.
    #[must_use]
    pub(crate) fn next(&self, state_args: &str) -> Vec<String> {
        if self.part_of().is_some() {
            return Vec::new();
        }
        self.finishing(state_args)
    }

    /// Returns how many hosts it has begun on; none for a run on this machine, and for the index of
    /// an earlier version.
    #[must_use]
    pub(crate) fn hosts(&self) -> Option<usize> {
        self.began.as_ref()?.over_hosts
    }

    /// Returns the run over hosts that it is a part of.
    #[must_use]
    pub(crate) fn part_of(&self) -> Option<&PartOf> {
        self.began.as_ref()?.part_of.as_ref()
    }

    /// Returns how to finish a run that was left open here and is a part of one over hosts. On this
    /// host alone, the commands would leave the others on another config.
    #[must_use]
    pub(crate) fn elsewhere(&self) -> Option<RunElsewhere> {
        let PartOf { coordinator, hosts } = self.part_of()?;
        let commands = self.finishing("");
        let on = coordinator
            .as_ref()
            .map_or_else(String::new, |host| format!(" on `{host}`"));
        (!commands.is_empty()).then(|| RunElsewhere {
            note: format!(
                "it is over {}; where its coordinator was{on}, or with --fleet and their file:",
                screen::counted(*hosts, "host")
            ),
            commands,
        })
    }

    fn finishing(&self, state_args: &str) -> Vec<String> {
        if !self.open || self.running || self.is_old {
            return Vec::new();
        }
        let verbs: &[&str] = if self.installs_old() {
            &["resume"]
        } else {
            &["resume", "revert"]
        };
        let command = |verb: &&str| format!("hello {verb} {}{state_args}", self.id);
        verbs.iter().map(command).collect()
    }

    /// Returns true if the run installs an old config.
    #[must_use]
    pub(crate) fn installs_old(&self) -> bool {
        self.began.as_ref().is_some_and(|began| began.back)
    }

    /// Returns what to do about an open run of an earlier version. `state_args` is ` --state DIR`,
    /// or empty.
    #[must_use]
    pub(crate) fn old_version(&self, state_args: &str) -> Option<OldRun> {
        (self.open && self.is_old && !self.running).then(|| OldRun {
            note: "an earlier version of hello wrote it, and this one cannot finish it",
            command: format!("hello revert {}{state_args}", self.id),
        })
    }

    /// Returns how it ended, in one word.
    #[must_use]
    pub(crate) fn verdict(&self) -> &str {
        match &self.end {
            Some(RunEnded::Finished { verdict, .. }) => verdict,
            Some(RunEnded::SupersededBy { .. }) => "superseded",
            None if self.open => "open",
            None if self.began.is_none() => "never_began",
            None => "unknown",
        }
    }
}

/// Returns when a run began, as its id says.
pub(super) fn begun_at(id: &str) -> Option<jiff::Timestamp> {
    let (seconds, nanos) = uuid::Uuid::try_parse(id).ok()?.get_timestamp()?.to_unix();
    jiff::Timestamp::new(seconds.try_into().ok()?, nanos.try_into().ok()?).ok()
}

/// Returns the ids of all kept runs, oldest first.
///
/// # Errors
/// Fails if the state directory cannot be read.
pub(crate) fn run_ids(state: &Path) -> io::Result<Vec<String>> {
    let mut ids: Vec<String> = state_dir::names(&state.join("runs"))?
        .into_iter()
        .filter(|name| begun_at(name).is_some())
        .collect();
    RunOrder::read(state).sort(&mut ids);
    Ok(ids)
}

/// Opens a journal. It never waits for a FIFO or a device that stands in its place.
fn open(path: &Path) -> io::Result<File> {
    let flags =
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?.into())
}

/// The two ends of a journal.
#[derive(Debug, Default)]
struct Glance {
    /// None where the first line is not there.
    host: Option<HostName>,
    began: Option<RunBegan>,
    end: Option<RunEnded>,
    /// True if its coordinator still locks it.
    held: bool,
    is_old: bool,
}

/// Returns the first line, the last line where it is an end, and true if its coordinator lives.
fn glance(journal: &Path) -> io::Result<Glance> {
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
    let first = head.split(|b| *b == b'\n').next().unwrap_or_default();
    let first = serde_json::from_slice::<Value>(first).unwrap_or_default();
    let version = first["v"].as_u64();
    let began = serde_json::from_value::<JournalLine<FirstEvent>>(first).ok();
    let (host, began) = began
        .map(|line| {
            let FirstEvent::Began(began) = line.event;
            (line.host, began)
        })
        .unzip();
    // A line may be torn: where the coordinator was killed, and where the read begins.
    let last = tail
        .as_ref()
        .unwrap_or(&head)
        .split(|b| *b == b'\n')
        .rev()
        .find_map(|line| serde_json::from_slice::<Value>(line).ok());
    Ok(Glance {
        host,
        began,
        end: last.and_then(RunEnded::of),
        held,
        is_old: version.is_some_and(|version| version < u64::from(VERSION)),
    })
}

/// Returns the lines of a journal, without torn ones. Each names its host, also where an earlier
/// version wrote it.
///
/// # Errors
/// Fails if the journal cannot be read.
pub(crate) fn events(state: &Path, id: &str) -> io::Result<impl Iterator<Item = Value> + use<>> {
    let lines = lines(state, id)?;
    let whole = |line| match line {
        Line::Whole(value) => Some(with_host(value)),
        Line::Torn | Line::Unreadable => None,
    };
    Ok(lines.map_while(Result::ok).filter_map(whole))
}

fn with_host(mut line: Value) -> Value {
    if let Some(keys) = line.as_object_mut() {
        keys.entry("host").or_insert_with(|| "local".into());
    }
    line
}

/// A line of a journal.
#[derive(Debug)]
pub(super) enum Line {
    Whole(Value),
    /// Only its beginning was written. A run acts on nothing before its line is written.
    Torn,
    /// It is no line that a run writes.
    Unreadable,
}

/// Returns the lines of a journal. The first error is the last item.
///
/// # Errors
/// Fails if the journal cannot be opened.
pub(super) fn lines(
    state: &Path,
    id: &str,
) -> io::Result<impl Iterator<Item = io::Result<Line>> + use<>> {
    let mut lines = BufReader::new(open(&layout::journal_of(state, id))?);
    let mut is_over = false;
    Ok(std::iter::from_fn(move || {
        if is_over {
            return None;
        }
        let mut line = Vec::new();
        match lines.by_ref().take(MAX_LINE).read_until(b'\n', &mut line) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(e) => {
                is_over = true;
                return Some(Err(e));
            }
        }
        match serde_json::from_slice(&line) {
            // It was torn: where the disk was full, or where the coordinator was killed.
            Err(e) if e.is_eof() => Some(Ok(Line::Torn)),
            Err(_) => Some(Ok(Line::Unreadable)),
            Ok(value) => Some(Ok(Line::Whole(value))),
        }
    }))
}
