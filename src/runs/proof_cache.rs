//! The configs that instances were last proven to run, for instances without a self-report:
//! `proven.json` in the state directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    boot_id,
    interrupted::{InterruptedRun, RunError},
    open_runs::open_runs,
    state_dir::{self, Lock},
};
use crate::{exact::Key, kernel::is_alive};

/// Largest `proven.json` that is read, in bytes: 100,000 instances need about 20 MB.
const MAX_PROVEN: u64 = 64 << 20;
/// Longest wait for other runs that end.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// The proofs of all processes of this boot.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProofCache {
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

impl ProofCache {
    /// Reads the cache under `state`. It is empty where the file is of another boot, whose pids
    /// mean nothing now, where it cannot be read, or where another user can write it.
    #[must_use]
    pub(crate) fn load(state: &Path) -> Self {
        let bytes = state_dir::trusted(state)
            .ok()
            .and_then(|()| crate::config::read(&state.join("proven.json"), MAX_PROVEN).ok())
            .unwrap_or_default();
        let mut known: Self = serde_json::from_slice(&bytes).unwrap_or_default();
        let boot_id = boot_id();
        // A later moment was written before the clock was set back.
        let now = Timestamp::now();
        known.over.retain(|_, at| *at <= now);
        if known.boot_id == boot_id {
            known
        } else {
            Self {
                boot_id,
                ..Self::default()
            }
        }
    }

    /// Adds the reloads of runs under `state` that were left open. Their coordinator may have died
    /// before it could record the processes that it had signalled.
    #[must_use]
    pub(crate) fn with_open_runs(mut self, state: &Path) -> Self {
        for run in open_runs(state) {
            let left = match InterruptedRun::find(state, Some(&run.id)) {
                Ok(left) => left,
                Err(RunError::OldVersion { instances, .. }) => {
                    self.open.extend(
                        instances
                            .into_iter()
                            .map(|(pid, started)| key(pid, started)),
                    );
                    continue;
                }
                Err(_) => continue,
            };
            let touched = left
                .touched
                .iter()
                .filter(|(_, touch)| left.same_boot && !touch.is_over());
            let is_over = |id: &(i32, u64)| {
                left.signalled.get(id).is_some_and(|asked| {
                    self.over
                        .get(&key(id.0, id.1))
                        .is_some_and(|over| asked <= over)
                })
            };
            let open: Vec<String> = touched
                .filter(|(id, _)| !is_over(id))
                .map(|(id, _)| key(id.0, id.1))
                .collect();
            self.open.extend(open);
        }
        self
    }

    /// Returns true if a reload of the process, which an earlier run signalled, may still be under
    /// way.
    #[must_use]
    pub(crate) fn is_open(&self, pid: i32, started: u64) -> bool {
        self.open.contains(&key(pid, started))
    }

    /// Returns the target at `path` as the process was last proven to run it.
    #[must_use]
    pub(crate) fn of(&self, pid: i32, started: u64, path: &Path) -> Option<&ProvenTarget> {
        if self.is_open(pid, started) {
            return None;
        }
        self.instances.get(&key(pid, started))?.get(path)
    }

    /// Returns the digests of all proofs.
    pub(super) fn digests(&self) -> BTreeSet<String> {
        self.instances
            .values()
            .flat_map(BTreeMap::values)
            .map(|target| target.sha256.clone())
            .collect()
    }

    /// Keeps the proof of each process that a run touched. Processes that ended are dropped.
    /// `interrupted` ends the wait for other runs.
    ///
    /// # Errors
    /// Fails if the state directory cannot be written, or if other runs write there for too long.
    /// The next run then signals instances that would have needed no signal.
    pub(crate) async fn keep(
        state: &Path,
        proofs: impl Iterator<Item = ProvenInstance>,
        interrupted: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let mut proofs = proofs.peekable();
        if proofs.peek().is_none() {
            return Ok(());
        }
        // Runs on other targets may end at the same moment.
        let lock = state.join("proven.lock");
        let Some(_lock) = state_dir::lock(&lock, Lock::Alone, LOCK_WAIT, interrupted).await? else {
            return Err(io::ErrorKind::TimedOut.into());
        };
        let mut proven = Self::load(state);
        proofs.for_each(|proof| proven.add(proof));
        proven.drop_ended();
        state_dir::replace(
            &state.join("proven.json"),
            &state.join("proven.json.new"),
            &serde_json::to_vec(&proven)?,
        )
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::future::pending;

    use super::*;
    use crate::kernel::Stat;

    fn targets(sha256: &str) -> BTreeMap<PathBuf, ProvenTarget> {
        BTreeMap::from([(
            PathBuf::from("/a"),
            ProvenTarget {
                sha256: sha256.into(),
                ctime: 5,
                behind: None,
            },
        )])
    }

    fn proof(
        pid: i32,
        started: u64,
        targets: BTreeMap<PathBuf, ProvenTarget>,
        reload: Reload,
    ) -> ProvenInstance {
        ProvenInstance {
            pid,
            started,
            targets,
            reload,
        }
    }

    fn sha256(proven: &ProofCache, pid: i32, started: u64) -> Option<&str> {
        let target = proven.of(pid, started, Path::new("/a"))?;
        Some(&target.sha256)
    }

    #[tokio::test]
    async fn the_last_proof_of_a_living_process_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        let now = Stat::of(me).unwrap().started;
        let over = || Reload::Over(Timestamp::now());
        let proofs = [
            proof(me, now, targets("one"), over()),
            // An earlier process had the same pid.
            proof(me, 7, targets("dead"), Reload::Open),
            proof(i32::MAX, 7, targets("dead"), over()),
        ];
        ProofCache::keep(dir.path(), proofs.into_iter(), pending())
            .await
            .unwrap();
        let proven = ProofCache::load(dir.path());
        assert_eq!(sha256(&proven, me, now), Some("one"));
        assert_eq!(sha256(&proven, me, 7), None);
        assert_eq!(sha256(&proven, i32::MAX, 7), None);
        assert!(!proven.is_open(me, now));
        assert!(!proven.is_open(me, 7), "that process has ended");
        let unproven = proof(me, now, BTreeMap::new(), Reload::Open);
        ProofCache::keep(dir.path(), [unproven].into_iter(), pending())
            .await
            .unwrap();
        let proven = ProofCache::load(dir.path());
        assert_eq!(sha256(&proven, me, now), None);
        assert!(proven.is_open(me, now));
    }

    #[tokio::test]
    async fn proofs_of_another_boot_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        let now = Stat::of(me).unwrap().started;
        let proof = proof(me, now, targets("one"), Reload::Open);
        ProofCache::keep(dir.path(), [proof].into_iter(), pending())
            .await
            .unwrap();
        let file = dir.path().join("proven.json");
        let text = std::fs::read_to_string(&file).unwrap();
        let kept: ProofCache = serde_json::from_str(&text).unwrap();
        assert_eq!(
            kept,
            ProofCache::load(dir.path()),
            "it is read back as it was"
        );
        std::fs::write(file, text.replace(&boot_id(), "another")).unwrap();
        let other_boot = ProofCache::load(dir.path());
        assert!(other_boot.instances.is_empty());
        assert!(other_boot.open.is_empty());
    }
}
