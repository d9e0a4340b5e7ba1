//! The configs that instances were last proven to run, for instances without a self-report:
//! `proven.json` in the state directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::pending,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    boot_id,
    doubts::{Doubt, Doubts, concerns},
    info, layout, open_runs,
    state_dir::{self, Lock},
};
use crate::{
    exact::Key,
    kernel::{is_alive, ticks},
};

/// Largest `proven.json` that is read, in bytes: 100,000 instances need about 20 MB.
const MAX_PROVEN: u64 = 64 << 20;
/// Longest wait for other runs that end.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// What instances were last proven to run, and which open runs leave that in doubt.
#[derive(Debug, Default)]
pub(crate) struct ProofCache {
    records: Records,
    doubts: Doubts,
}

/// The content of `proven.json`: the proofs of all processes of this boot.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Records {
    boot_id: String,
    /// By `PID:START-TICKS`.
    instances: BTreeMap<String, BTreeMap<Key, ProvenTarget>>,
    /// Processes whose last signal of a run began a reload that was not seen to end.
    #[serde(default)]
    open: BTreeSet<String>,
    /// The last signal of a process whose reload was seen to end. A run that was left open before
    /// that signal has left no reload open.
    #[serde(default)]
    over: BTreeMap<String, Timestamp>,
    /// Records that are lost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    lost: Vec<Lost>,
}

/// A moment whose records of earlier signals are lost: a file could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Lost {
    at: Timestamp,
    /// The moment in clock ticks since boot. A process that started later is not meant.
    ticks: u64,
    /// The signals were sent to readers of these targets; empty where that is not known.
    targets: Vec<Key>,
}

/// The proof that a run leaves of one touched process.
#[derive(Debug)]
pub(crate) struct ProvenInstance {
    /// Process number.
    pub pid: i32,
    /// Start time in clock ticks since boot.
    pub started: u64,
    /// The targets that it was proven to run; empty where nothing was proven.
    pub targets: BTreeMap<PathBuf, ProvenTarget>,
    /// Its last reload.
    pub reload: Reload,
}

/// The last reload of a touched process, at the end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reload {
    /// Its end was seen; the moment of its signal.
    Over(Timestamp),
    /// It may still be under way.
    Open,
}

/// One target as it was on disk when an instance was proven to run it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProvenTarget {
    /// Its digest.
    pub sha256: String,
    /// Its last change of any kind, in nanoseconds since 1970. As long as it is the same, the
    /// target was not changed since.
    pub ctime: i128,
    /// The digest of everything that is read through it and is not part of it; none where that was
    /// not known.
    #[serde(default)]
    pub behind: Option<String>,
}

fn key(pid: i32, started: u64) -> String {
    format!("{pid}:{started}")
}

fn path_of(state: &Path) -> PathBuf {
    state.join("proven.json")
}

impl Records {
    /// Reads the file under `state`. It is empty where the file is of another boot, whose pids mean
    /// nothing now. If it cannot be read, or if another user can write it, everything before `at`
    /// is lost.
    fn read(state: &Path, at: Timestamp) -> Self {
        let boot_id = boot_id();
        let path = path_of(state);
        let is_absent = path
            .symlink_metadata()
            .is_err_and(|e| matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory));
        if is_absent {
            return Self::of_boot(boot_id);
        }
        let bytes = state_dir::trusted(state)
            .ok()
            .and_then(|()| crate::config::read(&path, MAX_PROVEN).ok());
        let known = bytes.and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok());
        let Some(mut known) = known else {
            return Self {
                lost: vec![Lost::before(at, Vec::new())],
                ..Self::of_boot(boot_id)
            };
        };
        if known.boot_id != boot_id {
            return Self::of_boot(boot_id);
        }
        // A later moment was written before the clock was set back.
        let now = Timestamp::now();
        known.over.retain(|_, at| *at <= now);
        known
    }

    fn of_boot(boot_id: String) -> Self {
        Self {
            boot_id,
            ..Self::default()
        }
    }

    /// Tells whether the records of a process are lost, and no later signal of it is proven.
    fn is_lost(&self, (pid, started): (i32, u64), targets: &[PathBuf]) -> bool {
        let over = self.over.get(&key(pid, started));
        self.lost.iter().any(|lost| {
            let about: Vec<PathBuf> = lost.targets.iter().map(|target| target.0.clone()).collect();
            started <= lost.ticks
                && over.is_none_or(|over| *over < lost.at)
                && concerns(&about, targets)
        })
    }

    fn add_lost(&mut self, lost: Lost) {
        self.lost.retain(|known| known.targets != lost.targets);
        self.lost.push(lost);
    }

    fn add(&mut self, proof: ProvenInstance) {
        let key = key(proof.pid, proof.started);
        match proof.reload {
            Reload::Open => drop(self.open.insert(key.clone())),
            Reload::Over(signalled) => {
                self.open.remove(&key);
                let over = self.over.entry(key.clone()).or_insert(signalled);
                *over = signalled.max(*over);
            }
        }
        let targets = proof.targets.into_iter();
        let targets = targets.map(|(path, target)| (Key(path), target)).collect();
        self.instances.insert(key, targets);
    }

    /// Drops processes that have ended, and those of which nothing was proven.
    fn drop_ended(&mut self) {
        let alive = |key: &String| {
            let id = key
                .split_once(':')
                .and_then(|(pid, started)| Some((pid.parse().ok()?, started.parse().ok()?)));
            id.is_some_and(|(pid, started)| is_alive(pid, started))
        };
        self.instances
            .retain(|key, targets| !targets.is_empty() && alive(key));
        self.open.retain(alive);
        self.over.retain(|key, _| alive(key));
    }
}

impl Lost {
    fn before(at: Timestamp, targets: Vec<Key>) -> Self {
        Self {
            at,
            ticks: ticks(),
            targets,
        }
    }
}

impl ProofCache {
    /// Reads what is known under `state`, and which runs leave it in doubt: those that were left
    /// open, those under way, and those that ended and could not record what they had proven.
    #[must_use]
    pub(crate) fn load(state: &Path) -> Self {
        // The marks first: a run that ends in between has kept its proofs before its mark goes.
        let doubts = Doubts::of(state, None);
        Self {
            records: Records::read(state, Timestamp::now()),
            doubts,
        }
    }

    /// Returns true if a reload of the process, which an earlier run signalled, may still be under
    /// way. `targets` are those that it reads.
    #[must_use]
    pub(crate) fn is_open(&self, pid: i32, started: u64, targets: &[PathBuf]) -> bool {
        let id = (pid, started);
        self.records.open.contains(&key(pid, started))
            || self.doubts.is_pending(id, self.over(id))
            || self.doubts.unlisted.is_some()
            || self.doubts.unread_about(targets).is_some()
            || self.records.is_lost(id, targets)
    }

    /// Returns why earlier proofs say nothing of a process; none if they do, or if there are none.
    #[must_use]
    pub(crate) fn doubt(&self, pid: i32, started: u64, targets: &[PathBuf]) -> Option<Doubt<'_>> {
        let id = (pid, started);
        let signalled = || self.doubts.run_after(id, self.over(id));
        let is_lost = || self.doubts.unlisted.is_some() || self.records.is_lost(id, targets);
        signalled()
            .map(Doubt::Signalled)
            .or_else(|| self.doubts.unread_about(targets).map(Doubt::Unread))
            .or_else(|| is_lost().then_some(Doubt::Lost))
    }

    /// Returns the target at `path` as the process was last proven to run it.
    #[must_use]
    pub(crate) fn of(&self, pid: i32, started: u64, path: &Path) -> Option<&ProvenTarget> {
        let proven = self.records.instances.get(&key(pid, started))?;
        let read: Vec<PathBuf> = proven.keys().map(|path| path.0.clone()).collect();
        let is_doubted =
            self.is_open(pid, started, &read) || self.doubt(pid, started, &read).is_some();
        proven.get(path).filter(|_| !is_doubted)
    }

    fn over(&self, (pid, started): (i32, u64)) -> Option<Timestamp> {
        self.records.over.get(&key(pid, started)).copied()
    }

    /// Returns the digests of all proofs under `state`, also of those in doubt.
    pub(super) fn digests(state: &Path) -> BTreeSet<String> {
        Records::read(state, Timestamp::now())
            .instances
            .values()
            .flat_map(BTreeMap::values)
            .map(|target| target.sha256.clone())
            .collect()
    }

    /// Keeps what the run `own` has proven, at its end or after a wave. It also keeps that nothing
    /// is known of the processes that other runs have left in doubt: these runs can be closed then.
    /// Processes that ended are dropped. `interrupted` ends the wait for other runs.
    ///
    /// # Errors
    /// Fails if the state directory cannot be written, or if other runs write there for too long.
    /// The run must keep its mark then: it says that older records are not valid.
    pub(crate) async fn keep(
        state: &Path,
        own: &str,
        proofs: Vec<ProvenInstance>,
        interrupted: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let is_alone = || open_runs::listed(state).is_ok_and(|ids| ids.iter().all(|id| id == own));
        if proofs.is_empty() && is_alone() {
            return Ok(());
        }
        // Runs on other targets may end at the same moment.
        let lock = state.join("proven.lock");
        let Some(_lock) = state_dir::lock(&lock, Lock::Alone, LOCK_WAIT, interrupted).await? else {
            return Err(io::ErrorKind::TimedOut.into());
        };
        // The signals of this run came later.
        let began = info::begun_at(own).unwrap_or_else(Timestamp::now);
        let mut cache = Self {
            records: Records::read(state, began),
            doubts: Doubts::of(state, Some(own)),
        };
        cache.settle(began);
        proofs
            .into_iter()
            .for_each(|proof| cache.records.add(proof));
        cache.records.drop_ended();
        cache.write(state)?;
        // Their doubts are recorded now.
        let ended = cache
            .doubts
            .runs
            .iter()
            .filter(|run| !run.open && !run.running);
        for run in ended {
            let _ = std::fs::remove_file(layout::mark_of(state, &run.id));
        }
        Ok(())
    }

    /// Records that nothing is known of the processes that the run `id` has left in doubt, before
    /// its files are removed.
    ///
    /// # Errors
    /// Fails as [`Self::keep`] does.
    pub(super) async fn forget(state: &Path, id: &str) -> io::Result<()> {
        if !layout::mark_of(state, id).exists() {
            return Ok(());
        }
        let lock = state.join("proven.lock");
        let Some(_lock) = state_dir::lock(&lock, Lock::Alone, LOCK_WAIT, pending()).await? else {
            return Err(io::ErrorKind::TimedOut.into());
        };
        let now = Timestamp::now();
        let mut cache = Self {
            records: Records::read(state, now),
            doubts: Doubts::of(state, None),
        };
        cache.settle(now);
        cache.records.drop_ended();
        cache.write(state)
    }

    /// Moves every doubt into the records. Runs that are under way record theirs themselves.
    fn settle(&mut self, at: Timestamp) {
        let left: Vec<(i32, u64)> = self.doubts.left().collect();
        for id in left {
            let over = self.over(id);
            let key = key(id.0, id.1);
            if self.doubts.is_pending(id, over) {
                self.records.open.insert(key.clone());
            }
            if self.doubts.run_after(id, over).is_some() {
                self.records.instances.remove(&key);
            }
        }
        if self.doubts.unlisted.is_some() {
            self.records.add_lost(Lost::before(at, Vec::new()));
        }
        for run in self.doubts.unread() {
            let targets = run.targets.iter().cloned().map(Key).collect();
            self.records.add_lost(Lost::before(at, targets));
        }
    }

    fn write(&self, state: &Path) -> io::Result<()> {
        state_dir::replace(
            &path_of(state),
            &state.join("proven.json.new"),
            &serde_json::to_vec(&self.records)?,
        )
    }
}

#[cfg(test)]
mod tests;
