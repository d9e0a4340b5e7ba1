//! What instances were last proven to run, for those that cannot tell it themselves: `proven.json`
//! in the state directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::Timestamp;
use procfs::process::Process;
use serde::{Deserialize, Serialize};

use super::{
    boot_id,
    interrupted::InterruptedRun,
    open_runs::open_runs,
    state_dir::{self, Lock},
};
use crate::exact::Key;

/// Largest `proven.json` that is read, in bytes: 100,000 instances need about 20 MB.
const MAX_PROVEN: u64 = 64 << 20;
/// So long other runs that end are waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// The proofs of all processes of this boot.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct ProofCache {
    boot_id: String,
    /// By `PID:START-TICKS`.
    instances: BTreeMap<String, BTreeMap<Key, ProvenTarget>>,
    /// Processes whose last signal of a run began a reload that was not seen to end.
    #[serde(default)]
    open: BTreeSet<String>,
    /// Up to which signal the reloads of a process were seen to end. A run that was left open
    /// before that has left none.
    #[serde(default)]
    over: BTreeMap<String, Timestamp>,
}

/// What a run leaves behind of one touched process.
#[derive(Debug)]
pub struct ProvenInstance {
    /// Process number.
    pub pid: i32,
    /// Start time in clock ticks since boot.
    pub started: u64,
    /// What it was proven to run of each target; empty where nothing was proven.
    pub stands: BTreeMap<PathBuf, ProvenTarget>,
    /// Its last reload.
    pub reload: Reload,
}

/// The last reload of a touched process, at the end of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// Its end was seen; when it was signalled.
    Over(Timestamp),
    /// It may still be under way.
    Open,
}

/// One target as it stood when an instance was proven to run it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvenTarget {
    /// Its digest.
    pub sha256: String,
    /// Its last change of any kind, in nanoseconds since 1970: as long as it is the same, nobody
    /// has touched it since.
    pub ctime: i128,
    /// The digest of everything that is read through it and is none of it; none where that was not
    /// known.
    #[serde(default)]
    pub behind: Option<String>,
}

fn key(pid: i32, started: u64) -> String {
    format!("{pid}:{started}")
}

impl ProofCache {
    /// What is kept under `state`; nothing where that is of another boot, whose pids mean nothing
    /// now, cannot be read, or can be written by others.
    #[must_use]
    pub fn load(state: &Path) -> Self {
        let bytes = state_dir::trusted(state)
            .ok()
            .and_then(|()| crate::config::read(&state.join("proven.json"), MAX_PROVEN).ok())
            .unwrap_or_default();
        let mut known: Self = serde_json::from_slice(&bytes).unwrap_or_default();
        let boot_id = boot_id();
        // What is later was written before the clock was set back.
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

    /// The same, with what runs under `state` have begun that were left open: their coordinator may
    /// have died before it could write down what it had signalled.
    #[must_use]
    pub fn with_open_runs(mut self, state: &Path) -> Self {
        for run in open_runs(state) {
            let Ok(left) = InterruptedRun::find(state, Some(&run.id)) else {
                continue;
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

    /// Whether a reload of the process that an earlier run asked for may still be under way.
    #[must_use]
    pub fn is_open(&self, pid: i32, started: u64) -> bool {
        self.open.contains(&key(pid, started))
    }

    /// What the process was last proven to run of the target at `path`.
    #[must_use]
    pub fn of(&self, pid: i32, started: u64, path: &Path) -> Option<&ProvenTarget> {
        if self.is_open(pid, started) {
            return None;
        }
        self.instances.get(&key(pid, started))?.get(path)
    }

    /// All that anybody was last proven to run.
    pub(super) fn digests(&self) -> BTreeSet<String> {
        self.instances
            .values()
            .flat_map(BTreeMap::values)
            .map(|stand| stand.sha256.clone())
            .collect()
    }

    /// Keeps what a run leaves behind of each process that it touched. Processes that ended are
    /// dropped.
    ///
    /// # Errors
    /// The state directory cannot be written, or others write there for too long; the next run then
    /// signals who would have needed no signal.
    pub fn keep(state: &Path, remains: impl Iterator<Item = ProvenInstance>) -> io::Result<()> {
        let mut remains = remains.peekable();
        if remains.peek().is_none() {
            return Ok(());
        }
        // Runs on other targets may end at the same moment.
        let Some(_lock) = state_dir::lock(&state.join("proven.lock"), Lock::Alone, PATIENCE)?
        else {
            return Err(io::ErrorKind::TimedOut.into());
        };
        let mut proven = Self::load(state);
        for ProvenInstance {
            pid,
            started,
            stands,
            reload,
        } in remains
        {
            let key = key(pid, started);
            match reload {
                Reload::Open => drop(proven.open.insert(key.clone())),
                Reload::Over(signalled) => {
                    proven.open.remove(&key);
                    let over = proven.over.entry(key.clone()).or_insert(signalled);
                    *over = signalled.max(*over);
                }
            }
            proven.instances.insert(
                key,
                stands
                    .into_iter()
                    .map(|(path, stand)| (Key(path), stand))
                    .collect(),
            );
        }
        let started =
            |pid: &str| Some(Process::new(pid.parse().ok()?).ok()?.stat().ok()?.starttime);
        let alive = |id: &String| {
            id.split_once(':').is_some_and(|(pid, start)| {
                started(pid).is_some_and(|now| start.parse() == Ok(now))
            })
        };
        proven
            .instances
            .retain(|key, stands| !stands.is_empty() && alive(key));
        proven.open.retain(alive);
        proven.over.retain(|key, _| alive(key));
        state_dir::replace(
            &state.join("proven.json"),
            &state.join("proven.json.new"),
            &serde_json::to_vec(&proven)?,
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn the_last_word_on_a_living_process_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let me = i32::try_from(std::process::id()).unwrap();
        let stand = |sha: &str| {
            BTreeMap::from([(
                PathBuf::from("/a"),
                ProvenTarget {
                    sha256: sha.into(),
                    ctime: 5,
                    behind: None,
                },
            )])
        };
        let now = Process::myself().unwrap().stat().unwrap().starttime;
        // Its number was another process's once.
        let remains = |pid, started, stands, reload| ProvenInstance {
            pid,
            started,
            stands,
            reload,
        };
        let of = [
            remains(me, now, stand("one"), Reload::Over(Timestamp::now())),
            remains(me, 7, stand("dead"), Reload::Open),
            remains(i32::MAX, 7, stand("dead"), Reload::Over(Timestamp::now())),
        ];
        ProofCache::keep(dir.path(), of.into_iter()).unwrap();
        let sha = |proven: &ProofCache, pid, started| {
            proven
                .of(pid, started, Path::new("/a"))
                .map(|s| s.sha256.clone())
        };
        let proven = ProofCache::load(dir.path());
        assert_eq!(
            (
                sha(&proven, me, now).as_deref(),
                sha(&proven, me, 7),
                sha(&proven, i32::MAX, 7)
            ),
            (Some("one"), None, None)
        );
        assert!(
            !proven.is_open(me, now) && !proven.is_open(me, 7),
            "it is not kept of a process that has ended"
        );
        ProofCache::keep(
            dir.path(),
            [remains(me, now, BTreeMap::new(), Reload::Open)].into_iter(),
        )
        .unwrap();
        let proven = ProofCache::load(dir.path());
        assert_eq!(
            (sha(&proven, me, now), proven.is_open(me, now)),
            (None, true)
        );
        let text = std::fs::read_to_string(dir.path().join("proven.json")).unwrap();
        std::fs::write(
            dir.path().join("proven.json"),
            text.replace(&boot_id(), "another"),
        )
        .unwrap();
        let other_boot = ProofCache::load(dir.path());
        assert!(other_boot.instances.is_empty() && other_boot.open.is_empty());
    }
}
