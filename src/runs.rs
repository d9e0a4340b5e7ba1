//! The journal of a run: what was planned, intended and seen, synced before it matters.

use std::{
    collections::BTreeMap,
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    event::{Event, Instance, TargetReport, Verdict},
    fleet::Group,
    step::Blob,
};

mod left;
mod proven;

pub use self::{
    left::{Left, LeftError, LeftInstance, LeftTarget, Touch, later},
    proven::{Proven, Stand},
};

/// One execution of a plan, with a folder of its own: `plan.json`, `events.jsonl`, and old and new bytes by SHA-256 (a directory's as an archive that `tar tvf` lists).
/// As long as it is open (it runs, its owner died, or it ended mixed) a mark with its targets stands in `open/`.
#[derive(Debug)]
pub struct Run {
    events: File,
    mark: PathBuf,
}

/// What a run is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verb {
    /// Bring a new config.
    Broadcast,
    /// Go on with an earlier run.
    Resume,
    /// Bring the config back that an earlier run replaced.
    Revert,
}

/// What is kept of a plan.
#[derive(Debug)]
pub struct Record<'a> {
    /// Of [`new_id`].
    pub id: &'a str,
    /// What it does.
    pub verb: Verb,
    /// The run that it goes on with, or undoes.
    pub of: Option<&'a str>,
    /// Why the operator did it.
    pub reason: Option<&'a str>,
    /// The command line, less its secrets.
    pub command: Vec<String>,
    /// The groups, with every default filled in.
    pub groups: &'a [Group],
    /// Every target.
    pub targets: Vec<TargetReport>,
    /// Every instance, as it was surveyed.
    pub instances: Vec<&'a Instance>,
    /// Old and new bytes.
    pub blobs: Vec<&'a Blob>,
}

/// `plan.json`.
#[derive(Debug, Serialize)]
struct Plan<'a> {
    v: u32,
    verb: Verb,
    of: Option<&'a str>,
    boot_id: String,
    uid: u32,
    login_uid: Option<u32>,
    sudo_user: Option<String>,
    ci_job: Option<String>,
    reason: Option<&'a str>,
    command: &'a [String],
    groups: &'a [Group],
    targets: &'a [TargetReport],
    instances: &'a [&'a Instance],
}

/// A mark in `open/`.
#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    targets: Vec<PathBuf>,
}

/// A new run's id: a UUIDv7, which sorts by time.
#[must_use]
pub fn new_id() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().into()
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

impl Run {
    /// Opens the journal under `state` and syncs the plan and every config that may be needed on the way back.
    /// Closes the runs that were left open on one of its targets, whose locks it holds, and answers their ids.
    ///
    /// # Errors
    /// The state directory cannot be written; nothing has been touched then.
    pub fn begin(state: &Path, record: &Record<'_>) -> io::Result<(Self, Vec<String>)> {
        let (dir, open) = (state.join("runs").join(record.id), state.join("open"));
        for folder in [&dir, &open] {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let plan = Plan {
            v: 1,
            verb: record.verb,
            of: record.of,
            boot_id: boot_id(),
            uid: nix::unistd::getuid().as_raw(),
            // All ones stands for nobody who logged in.
            login_uid: std::fs::read_to_string("/proc/self/loginuid").ok().and_then(|t| t.trim().parse().ok()).filter(|uid| *uid != u32::MAX),
            sudo_user: std::env::var("SUDO_USER").ok(),
            ci_job: ["CI_JOB_URL", "GITHUB_RUN_ID", "BUILD_URL", "BUILD_TAG"].iter().find_map(|name| std::env::var(name).ok()),
            reason: record.reason,
            command: &record.command,
            groups: record.groups,
            targets: &record.targets,
            instances: &record.instances,
        };
        write(&dir.join("plan.json"), &serde_json::to_vec_pretty(&plan)?)?;
        // Many steps share one.
        let blobs: BTreeMap<&str, &Blob> = record.blobs.iter().map(|b| (b.sha256.as_str(), *b)).collect();
        for (sha256, blob) in blobs {
            write(&dir.join(sha256), &blob.bytes)?;
        }
        let targets: Vec<PathBuf> = record.targets.iter().map(|t| t.path.clone()).collect();
        let left: Vec<String> = left_open(state, &targets);
        let mark = open.join(record.id);
        write(&mark, &serde_json::to_vec(&Mark { targets })?)?;
        let events = append(&dir.join("events.jsonl"))?;
        for folder in [&dir, &state.join("runs"), &open, state] {
            File::open(folder)?.sync_all()?;
        }
        for id in &left {
            let events = append(&state.join("runs").join(id).join("events.jsonl"))?;
            Self { events, mark: open.join(id) }.close(&Event::SupersededBy { run: record.id.into() });
        }
        Ok((Self { events, mark }, left))
    }

    /// Appends an event; what a later look must be able to trust is on the disk when it returns.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn record(&mut self, event: &Event) -> io::Result<()> {
        let mut value = serde_json::to_value(event)?;
        if let Some(object) = value.as_object_mut() {
            object.insert("v".into(), 1.into());
            object.insert("at".into(), jiff::Timestamp::now().to_string().into());
        }
        let mut line = value.to_string();
        line.push('\n');
        self.events.write_all(line.as_bytes())?;
        if matches!(
            event,
            Event::Intent { .. }
                | Event::UndoBegan { .. }
                | Event::PutBack { .. }
                | Event::Stopped { .. }
                | Event::Finished { .. }
                | Event::SupersededBy { .. }
        ) {
            self.events.sync_data()?;
        }
        Ok(())
    }

    /// Writes the end, and leaves the run open.
    pub fn leave(mut self, end: &Event) {
        // The verdict stands, whether or not the last line of the journal can be written.
        let _ = self.record(end);
    }

    /// Writes the end. A mixed run stays open: somebody must look, and its bytes are needed.
    pub fn finish(self, end: &Event) {
        if matches!(end, Event::Finished { verdict: Verdict::Mixed, .. }) {
            self.leave(end);
        } else {
            self.close(end);
        }
    }

    fn close(mut self, end: &Event) {
        // Without its last line it stays open, and the next run looks at it again.
        if self.record(end).is_ok() {
            let _ = std::fs::remove_file(&self.mark);
        }
    }
}

/// Open runs that have one of `targets`; whoever holds the locks of these knows that no owner lives.
#[must_use]
pub fn left_open(state: &Path, targets: &[PathBuf]) -> Vec<String> {
    let marks = std::fs::read_dir(state.join("open")).into_iter().flatten().flatten();
    let mut ids: Vec<String> = marks
        .filter(|entry| {
            let mark = std::fs::read(entry.path()).ok().and_then(|bytes| serde_json::from_slice::<Mark>(&bytes).ok());
            mark.is_some_and(|m| m.targets.iter().any(|t| targets.contains(t)))
        })
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    ids.sort();
    ids
}

/// The bytes of an earlier run's config, by digest, newest run first.
#[must_use]
pub fn stored(state: &Path, sha256: &str) -> Option<Vec<u8>> {
    let mut runs: Vec<PathBuf> = std::fs::read_dir(state.join("runs")).ok()?.flatten().map(|e| e.path()).collect();
    runs.sort();
    runs.iter().rev().find_map(|run| std::fs::read(run.join(sha256)).ok())
}
