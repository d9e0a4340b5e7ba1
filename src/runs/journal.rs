//! A run's own folder and journal: what it needs is synced before it begins, and its last line
//! before its mark goes.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, BufWriter, IntoInnerError, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;

use super::{
    Record, Verb, layout, open_runs,
    records::{Operator, RunBegan},
    state_dir::{self, Lock},
    store, syslog,
};
use crate::{
    event::{Event, Instance, TargetReport, Verdict},
    fleet::{Group, Order},
    step::Content,
};

/// So long a run that takes old ones away is waited for; what this one needs is its own all the
/// same.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest command line and reason in a journal's first line, in bytes, and most groups;
/// `plan.json` has all of them.
const LONGEST: usize = 4096;
const GROUPS: usize = 100;

/// One execution of a plan, with a folder of its own: `plan.json`, `events.jsonl`, and old and new
/// bytes by SHA-256 (a directory's as an archive that `tar tvf` lists). As long as it is open (it
/// runs, its owner died, or it ended mixed) a mark with its targets stands in `open/`.
#[derive(Debug)]
pub struct Journal {
    /// Locked as long as its owner lives.
    events: File,
    /// Whether the last line could not be written to its end.
    torn: bool,
    mark: PathBuf,
    dir: PathBuf,
    /// Whether its last line is written, and nobody needs to look.
    closed: bool,
    syslog: syslog::Line,
}

/// `plan.json`.
#[derive(Debug, Serialize)]
struct Plan<'a> {
    v: u32,
    verb: Verb,
    of: Option<&'a str>,
    boot_id: &'a str,
    #[serde(flatten)]
    who: &'a Operator,
    reason: Option<&'a str>,
    command: &'a [String],
    groups: &'a [Group],
    #[serde(skip_serializing_if = "Order::is_empty")]
    order: &'a Order,
    targets: &'a [TargetReport],
    instances: &'a [&'a Instance],
    readings: &'a [(i32, u64, &'a [Option<String>])],
}

/// The first line.
#[derive(Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
enum First<'a> {
    Began(&'a RunBegan),
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(LONGEST)].into()
}

impl Operator {
    /// Of this process.
    fn now() -> Self {
        let env = |name: &str| std::env::var_os(name).map(|value| cut(&value.to_string_lossy()));
        Self {
            uid: nix::unistd::getuid().as_raw(),
            // All ones stands for nobody who logged in.
            login_uid: std::fs::read_to_string("/proc/self/loginuid")
                .ok()
                .and_then(|t| t.trim().parse().ok())
                .filter(|uid| *uid != u32::MAX),
            sudo_user: env("SUDO_USER"),
            ci_job: ["CI_JOB_URL", "GITHUB_RUN_ID", "BUILD_URL", "BUILD_TAG"]
                .into_iter()
                .find_map(env),
        }
    }
}

impl RunBegan {
    fn of(record: &Record<'_>) -> Self {
        let mut room = LONGEST;
        let fits = |word: &&String| {
            room = room.saturating_sub(word.len());
            room > 0
        };
        let mut command: Vec<String> = record.command.iter().take_while(fits).cloned().collect();
        if command.len() < record.command.len() {
            command.push("..".into());
        }
        Self {
            verb: record.verb,
            of: record.of.map(Into::into),
            operator: Operator::now(),
            boot_id: super::boot_id(),
            command,
            reason: record.reason.map(cut),
            groups: record
                .groups
                .iter()
                .take(GROUPS)
                .map(|g| g.name.clone())
                .collect(),
            instances: record.instances.len(),
            targets: record.targets.len(),
            waves: record.waves,
        }
    }
}

/// An event as it is kept: with its version and its time.
#[derive(Debug, Serialize)]
struct Line<'a, E> {
    #[serde(flatten)]
    event: &'a E,
    v: u32,
    at: jiff::Timestamp,
}

fn line(event: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&Line {
        event,
        v: 1,
        at: jiff::Timestamp::now(),
    })?;
    line.push(b'\n');
    Ok(line)
}

/// Appends to the journal of a run whose owner is gone, and syncs that.
pub(super) fn add_end(state: &Path, id: &str, event: &Event) -> io::Result<()> {
    let mut file = match OpenOptions::new()
        .read(true)
        .append(true)
        .open(layout::journal_of(state, id))
    {
        // Somebody took the whole run away: there is nothing that could be ended.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let mut last = [b'\n'];
    if file.seek(SeekFrom::End(-1)).is_ok() {
        file.read_exact(&mut last)?;
    }
    let new_line: &[u8] = if last == [b'\n'] { b"" } else { b"\n" };
    file.write_all(&[new_line, &line(event)?].concat())?;
    file.sync_data()
}

impl Journal {
    /// Opens the journal under `state` and syncs the plan and every config that may be needed on
    /// the way back.
    ///
    /// # Errors
    /// The state directory cannot be written, or others can write it; nothing has been touched
    /// then.
    pub fn begin(state: &Path, record: &Record<'_>) -> io::Result<Self> {
        state_dir::make(state)?;
        let runs = state.join("runs");
        let mut new = false;
        for path in [&runs, &state.join("open"), &store::folder_of(state)] {
            new |= state_dir::folder(path)?;
        }
        if new {
            state_dir::sync(state)?;
        }
        let dir = runs.join(record.id);
        Self::written(state, &dir, record).inspect_err(|_| {
            // It has not begun, and what there is of it takes room that was perhaps lacking.
            let _ = std::fs::remove_file(layout::mark_of(state, record.id));
            let _ = std::fs::remove_dir_all(&dir);
        })
    }

    fn written(state: &Path, dir: &Path, record: &Record<'_>) -> io::Result<Self> {
        // Nobody takes away what it finds in the store.
        let _lock = state_dir::lock(&state.join("store.lock"), Lock::Shared, PATIENCE)?;
        state_dir::folder(dir)?;
        let began = RunBegan::of(record);
        let plan = Plan {
            v: 1,
            verb: record.verb,
            of: record.of,
            boot_id: &began.boot_id,
            who: &began.operator,
            reason: record.reason,
            command: &record.command,
            groups: record.groups,
            order: &record.order,
            targets: &record.targets,
            instances: &record.instances,
            readings: &record.readings,
        };
        // Many steps share one.
        let blobs: BTreeMap<&str, &Content> = record
            .blobs
            .iter()
            .map(|b| (b.sha256.as_str(), *b))
            .collect();
        let fresh = store::take(state, dir, &blobs)?;
        // Of a large fleet it is long: it is nowhere in memory as a whole.
        let mut file =
            BufWriter::with_capacity(1 << 16, state_dir::create(&dir.join("plan.json"), b"")?);
        serde_json::to_writer_pretty(&mut file, &plan)?;
        let plan = file.into_inner().map_err(IntoInnerError::into_error)?;
        let events = state_dir::create(&dir.join("events.jsonl"), &line(&First::Began(&began))?)?;
        // Where a filesystem has no locks, it is taken to be without an owner, as one that was
        // killed.
        let _ = events.try_lock();
        state_dir::sync_files(
            dir,
            fresh
                .iter()
                .map(|f| f.file.as_ref())
                .chain([Some(&plan), Some(&events)]),
        )?;
        if !fresh.is_empty() {
            store::publish(state, dir, &fresh)?;
            state_dir::sync(&store::folder_of(state))?;
        }
        state_dir::sync(dir)?;
        state_dir::sync(&state.join("runs"))?;
        // The last of all: what has a mark is whole.
        let targets: Vec<PathBuf> = record.targets.iter().map(|t| t.path.clone()).collect();
        let (mark, staged) = (
            layout::mark_of(state, record.id),
            state.join("open").join(format!(".{}.new", record.id)),
        );
        state_dir::replace(&mark, &staged, &open_runs::content(&targets)?)?;
        state_dir::sync(&state.join("open"))?;
        let said = syslog::Line::new(record, &began);
        Ok(Self {
            events,
            torn: false,
            mark,
            dir: dir.into(),
            closed: false,
            syslog: said,
        })
    }

    /// Appends an event; what a later look must be able to trust is on the disk when it returns.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn record(&mut self, event: &Event) -> io::Result<()> {
        let mut line = line(event)?;
        if self.torn {
            line.insert(0, b'\n');
        }
        self.torn = true;
        self.events.write_all(&line)?;
        self.torn = false;
        if matches!(
            event,
            Event::Intent { .. }
                | Event::RollbackBegan { .. }
                | Event::RolledBack { .. }
                | Event::Stopped { .. }
                | Event::Finished { .. }
                | Event::SupersededBy { .. }
        ) {
            self.events.sync_data()?;
        }
        // A mixed run stays open: somebody must look, and its bytes are needed.
        self.closed =
            matches!(event, Event::Finished { verdict, .. } if *verdict != Verdict::Mixed);
        Ok(())
    }

    /// Keeps bytes that would be lost, synced; answers where.
    ///
    /// # Errors
    /// Fails if the run's folder cannot be written.
    pub fn keep_late(&self, number: usize, bytes: &[u8]) -> io::Result<PathBuf> {
        let path = self.dir.join(format!("late-{number}"));
        state_dir::create(&path, bytes)?.sync_all()?;
        state_dir::sync(&self.dir)?;
        Ok(path)
    }

    /// Closes it once its end is recorded, and leaves a line in syslog. Without its last line it
    /// stays open, and the next run looks at it again.
    pub fn close(self, end: &Event) {
        if self.closed {
            let _ = std::fs::remove_file(&self.mark);
        }
        self.syslog.send(end);
    }
}

#[cfg(test)]
mod tests;
