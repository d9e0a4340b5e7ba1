//! The journal of a run: what was planned, intended and seen, synced before it matters.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::event::Event;

/// One execution of a plan, with a folder of its own: `plan.json`, `events.jsonl`, and old and new bytes by SHA-256.
#[derive(Debug)]
pub struct Run {
    /// Sorts by time.
    pub id: String,
    dir: PathBuf,
    events: File,
}

/// A new run's id: a UUIDv7, which sorts by time.
#[must_use]
pub fn new_id() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

impl Run {
    /// Opens the journal under `state` and syncs the plan and every config that may be needed on the way back.
    ///
    /// # Errors
    /// The state directory cannot be written; nothing has been touched then.
    pub fn begin<'a>(state: &Path, id: String, plan: &impl Serialize, bytes: impl Iterator<Item = (&'a str, &'a [u8])>) -> io::Result<Self> {
        let dir = state.join("runs").join(&id);
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let write = |name: &str, content: &[u8]| -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(dir.join(name))?;
            file.write_all(content)?;
            file.sync_all()
        };
        write("plan.json", &serde_json::to_vec_pretty(plan)?)?;
        for (sha256, content) in bytes {
            write(sha256, content)?;
        }
        let events = OpenOptions::new().append(true).create(true).mode(0o600).open(dir.join("events.jsonl"))?;
        for folder in [dir.as_path(), &state.join("runs"), state] {
            File::open(folder)?.sync_all()?;
        }
        Ok(Self { id, dir, events })
    }

    /// Appends an event; `Intent` and `Finished` are on the disk when it returns.
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
        if matches!(event, Event::Intent { .. } | Event::UndoBegan { .. } | Event::Finished { .. }) {
            self.events.sync_data()?;
        }
        Ok(())
    }

    /// Where it is kept.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// The bytes of an earlier run's config, by digest, newest run first.
#[must_use]
pub fn stored(state: &Path, sha256: &str) -> Option<Vec<u8>> {
    let mut runs: Vec<PathBuf> = std::fs::read_dir(state.join("runs")).ok()?.flatten().map(|e| e.path()).collect();
    runs.sort();
    runs.iter().rev().find_map(|run| std::fs::read(run.join(sha256)).ok())
}
