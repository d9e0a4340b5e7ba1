//! The folder and the journal of one run. Everything that a later run needs is synced before this
//! one begins, and the last line is synced before the mark is removed.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, BufWriter, IntoInnerError, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Serialize;

use super::{
    ProofCache, ProvenInstance, Record, RunInfo,
    format::{FirstEvent, JournalLine, PlanFile, RunBegan},
    layout, open_runs,
    operator::Operator,
    order,
    state_dir::{self, Lock},
    store, syslog,
};
use crate::{
    event::{
        Abort, Event, Interrupted, Interrupts, VERSION, Verdict, check_interrupts, interrupted,
    },
    inventory::HostName,
    step::Content,
};

/// Longest wait for a run that removes old ones from the store.
const STORE_WAIT: Duration = Duration::from_secs(5);
/// Longest command line and reason in a journal's first line, in bytes: `history` reads the first
/// 64 KiB. `plan.json` has all of it.
const MAX_TEXT: usize = 4096;
/// Most groups in that line.
const MAX_GROUPS: usize = 100;

/// The journal of a run that is carried out now. Its folder holds `plan.json`, `events.jsonl`, and
/// the old and new bytes by SHA-256; those of a directory are an archive that `tar tvf` lists. A
/// run is open while it runs, if its coordinator died, or if it ended mixed. An open run has a mark
/// in `open/`, with its targets.
#[derive(Debug)]
pub(crate) struct Journal {
    /// Locked while the coordinator lives.
    events: File,
    /// True if the last line could not be written to its end.
    torn: bool,
    state: PathBuf,
    id: String,
    /// The host of each event that does not name one itself.
    host: HostName,
    mark: PathBuf,
    dir: PathBuf,
    /// True once the last line is written, unless the run ended mixed.
    closed: bool,
    syslog: syslog::Line,
}

/// Whether the proofs of a run are recorded at its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProofsKept {
    Yes,
    /// Older records of the processes that it touched are not valid.
    No,
}

/// Why a run has not begun.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotBegun {
    /// The operator has interrupted it.
    #[error(transparent)]
    Interrupted(#[from] Interrupted),
    /// The system's error.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl NotBegun {
    /// Returns the abort of the run whose journal would be in `state`.
    pub(crate) fn abort(self, state: &Path) -> Abort {
        match self {
            Self::Interrupted(interrupted) => interrupted.into(),
            Self::Io(e) => unusable(state, &e),
        }
    }
}

/// Returns the abort of a run that cannot use its state directory.
pub(crate) fn unusable(state: &Path, e: &io::Error) -> Abort {
    let state = state.display();
    let why = format!("the state directory `{state}` cannot be used: {e}");
    Abort::new(Verdict::Failed, why)
}

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT)].into()
}

/// Iterates over the groups of a run, also of one over other machines.
fn group_names<'a>(record: &'a Record<'_>) -> impl Iterator<Item = &'a String> {
    let over = record.over.iter().flat_map(|over| &over.groups);
    record.groups.iter().map(|group| &group.name).chain(over)
}

impl RunBegan {
    fn of(record: &Record<'_>) -> Self {
        let mut room = MAX_TEXT;
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
            back: record.back,
            operator: Operator::now(),
            claimed: record.claimed.cloned(),
            boot_id: super::boot_id(),
            command,
            reason: record.reason.map(cut),
            groups: group_names(record).take(MAX_GROUPS).cloned().collect(),
            instances: record.instances.len(),
            targets: record.targets.len(),
            waves: record.waves,
            over_hosts: record.over.as_ref().map(|over| over.hosts.len()),
            part_of: record.part_of.clone(),
        }
    }
}

fn line(host: &HostName, event: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(&JournalLine {
        event,
        host: host.clone(),
        v: VERSION,
        at: jiff::Timestamp::now(),
    })?;
    line.push(b'\n');
    Ok(line)
}

/// Appends to the journal of the run `id`, whose coordinator is gone, and syncs it. Each event is
/// of its host; the last one is the end of the run.
pub(super) fn add_ends(state: &Path, id: &str, ends: &[(&HostName, &Event)]) -> io::Result<()> {
    let mut file = match OpenOptions::new()
        .read(true)
        .append(true)
        .open(layout::journal_of(state, id))
    {
        // Another command removed the whole run, so there is nothing to end.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    let mut last = [b'\n'];
    if file.seek(SeekFrom::End(-1)).is_ok() {
        file.read_exact(&mut last)?;
    }
    let mut lines: Vec<u8> = Vec::new();
    if last != [b'\n'] {
        lines.push(b'\n');
    }
    for (host, event) in ends {
        lines.extend(line(host, event)?);
    }
    file.write_all(&lines)?;
    file.sync_data()
}

impl Journal {
    /// Begins the journal of a run under `state`, and syncs the plan and every content that a
    /// rollback may need.
    ///
    /// # Errors
    /// Fails if the state directory cannot be written, if another user can write it, or if the
    /// operator interrupts the run. Nothing was touched then.
    pub(crate) async fn begin(
        state: &Path,
        record: &Record<'_>,
        interrupts: &Interrupts,
    ) -> Result<Self, NotBegun> {
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
        remove_unbegun(state, record.id, &dir);
        let created = Self::create(state, &dir, record, interrupts).await;
        created.inspect_err(|_| {
            // The run has not begun, and its files take space that the disk may lack.
            let _ = std::fs::remove_file(layout::mark_of(state, record.id));
            let _ = std::fs::remove_dir_all(&dir);
        })
    }

    async fn create(
        state: &Path,
        dir: &Path,
        record: &Record<'_>,
        interrupts: &Interrupts,
    ) -> Result<Self, NotBegun> {
        // While this is held, no other run removes contents from the store.
        let lock = state.join("store.lock");
        let until = interrupted(interrupts, 0);
        let _lock = state_dir::lock(&lock, Lock::Shared, STORE_WAIT, until).await?;
        // A slow disk takes seconds for each sync, and no process can leave one half-way: so each
        // comes after a check.
        check_interrupts(interrupts)?;
        // A process that was killed here has left a run that never began.
        // The mark comes last, and goes after the last line.
        let is_marked = layout::mark_of(state, record.id).try_exists()?;
        if dir.try_exists()? && !is_marked && RunInfo::of(state, record.id).end.is_none() {
            std::fs::remove_dir_all(dir)?;
        }
        state_dir::folder(dir)?;
        let began = RunBegan::of(record);
        let until = interrupted(interrupts, 0);
        let counter = order::raise(state, record.id, until).await?;
        let syslog = syslog::Line::new(record, &began);
        let events = write_files((state, dir), record, (began, counter), interrupts)?;
        for dir in [dir, &state.join("runs")] {
            check_interrupts(interrupts)?;
            state_dir::sync(dir)?;
        }
        check_interrupts(interrupts)?;
        order::record_begin(state, record.id, interrupted(interrupts, 0)).await?;
        // The mark comes last: a run with a mark is complete.
        let targets: Vec<PathBuf> = record.targets.iter().map(|t| t.path.clone()).collect();
        let mark = layout::mark_of(state, record.id);
        let staged = state.join("open").join(format!(".{}.new", record.id));
        state_dir::replace(&mark, &staged, &open_runs::content(&targets)?)?;
        state_dir::sync(&state.join("open"))?;
        Ok(Self {
            events,
            torn: false,
            state: state.into(),
            id: record.id.into(),
            host: record.host.clone(),
            mark,
            dir: dir.into(),
            closed: false,
            syslog,
        })
    }

    /// Appends an event. An event that a later run must be able to trust is synced.
    ///
    /// # Errors
    /// Fails if the journal cannot be written.
    pub(crate) fn record(&mut self, event: &Event) -> io::Result<()> {
        let host = self.host.clone();
        self.append(&host, event)?;
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
        // A mixed run stays open: the operator must decide, and its bytes are needed.
        self.closed =
            matches!(event, Event::Finished { verdict, .. } if *verdict != Verdict::Mixed);
        Ok(())
    }

    /// Appends an event of another host, whose own journal has it too.
    ///
    /// # Errors
    /// Fails if the journal cannot be written.
    pub(crate) fn record_of(&mut self, host: &HostName, event: &Event) -> io::Result<()> {
        if *host == self.host {
            return self.record(event);
        }
        self.append(host, event)
    }

    fn append(&mut self, host: &HostName, event: &Event) -> io::Result<()> {
        let mut line = line(event.host().unwrap_or(host), event)?;
        if self.torn {
            line.insert(0, b'\n');
        }
        self.torn = true;
        self.events.write_all(&line)?;
        self.torn = false;
        Ok(())
    }

    /// Keeps proofs while the run goes on. Where that fails, they are kept at its end.
    pub(crate) async fn keep_proofs(&self, proofs: Vec<ProvenInstance>, interrupts: &Interrupts) {
        let until = interrupted(interrupts, 0);
        let kept = ProofCache::keep(&self.state, &self.id, proofs, until).await;
        // No signal follows a change of the state directory that a loss of power would take back.
        if kept.is_ok() {
            let _ = state_dir::sync(&self.state);
        }
    }

    /// Keeps bytes that would be lost, synced, and returns their path.
    ///
    /// # Errors
    /// Fails if the run's folder cannot be written.
    pub(crate) fn keep_late(&self, number: usize, bytes: &[u8]) -> io::Result<PathBuf> {
        let path = self.dir.join(format!("late-{number}"));
        state_dir::create(&path, bytes)?.sync_all()?;
        state_dir::sync(&self.dir)?;
        Ok(path)
    }

    /// Closes the run once its end is recorded, and sends a line to syslog. Without its last line
    /// the run stays open, and the next command reads it again. A run whose proofs are not kept has
    /// its mark until a later run over its targets has kept its own.
    pub(crate) fn close(self, end: &Event, proofs: ProofsKept) {
        if self.closed && proofs == ProofsKept::Yes {
            let _ = std::fs::remove_file(&self.mark);
        }
        self.syslog.send(end);
    }
}

/// Removes what a process that was killed has left of this run before it began. Without a mark,
/// such a run has touched nothing.
fn remove_unbegun(state: &Path, id: &str, dir: &Path) {
    let is_begun = layout::mark_of(state, id).exists() || RunInfo::of(state, id).end.is_some();
    if !is_begun {
        let _ = std::fs::remove_dir_all(dir);
    }
}

/// Writes and syncs every file of a run but its mark, and returns its journal.
fn write_files(
    (state, dir): (&Path, &Path),
    record: &Record<'_>,
    (began, counter): (RunBegan, u64),
    interrupts: &Interrupts,
) -> Result<File, NotBegun> {
    // Many steps share one content.
    let contents: BTreeMap<&str, &Content> = record
        .contents
        .iter()
        .map(|content| (content.sha256.as_str(), *content))
        .collect();
    let fresh = store::take(state, dir, &contents)?;
    let plan = write_plan(dir, record, (&began, counter))?;
    let first = line(&record.host, &FirstEvent::Began(began))?;
    let events = state_dir::create(&dir.join("events.jsonl"), &first)?;
    // On a filesystem without locks the run looks like one whose coordinator was killed.
    let _ = events.try_lock();
    let files: Option<Vec<&File>> = fresh.iter().map(|f| f.file.as_ref()).collect();
    if let Some(files) = files {
        for file in files.into_iter().chain([&plan, &events]) {
            check_interrupts(interrupts)?;
            file.sync_all()?;
        }
    } else {
        check_interrupts(interrupts)?;
        rustix::fs::syncfs(&events).map_err(io::Error::from)?;
    }
    if !fresh.is_empty() {
        check_interrupts(interrupts)?;
        store::publish(state, dir, &fresh)?;
        state_dir::sync(&store::folder_of(state))?;
    }
    Ok(events)
}

/// Writes `plan.json`, not yet synced. The plan of a large fleet is long, so it is never in memory
/// as a whole.
fn write_plan(
    dir: &Path,
    record: &Record<'_>,
    (began, counter): (&RunBegan, u64),
) -> io::Result<File> {
    let plan = PlanFile {
        v: VERSION,
        epoch: Some(counter),
        verb: record.verb,
        of: began.of.clone(),
        boot_id: began.boot_id.clone(),
        operator: began.operator.clone(),
        reason: record.reason.map(Into::into),
        command: record.command.clone(),
        groups: record.groups.into(),
        order: Cow::Borrowed(&record.order),
        targets: (&record.targets).into(),
        instances: record.instances.clone(),
        readings: (&record.readings).into(),
        over: record.over.clone(),
    };
    let file = state_dir::create(&dir.join("plan.json"), b"")?;
    let mut file = BufWriter::with_capacity(1 << 16, file);
    serde_json::to_writer_pretty(&mut file, &plan)?;
    file.into_inner().map_err(IntoInnerError::into_error)
}

#[cfg(test)]
mod tests;
