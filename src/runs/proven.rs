//! What instances were last proven to run, for those that cannot tell it themselves: `proven.json` in the state directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use procfs::process::Process;
use serde::{Deserialize, Serialize};

use super::{
    boot_id,
    folder::{self, Lock},
};
use crate::exact::Key;

/// Largest `proven.json` that is read, in bytes: 100,000 instances need about 20 MB.
const MAX_PROVEN: u64 = 64 << 20;
/// So long other runs that end are waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// The proofs of all processes of this boot.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Proven {
    boot_id: String,
    /// By `PID:START-TICKS`.
    instances: BTreeMap<String, BTreeMap<Key, Stand>>,
}

/// One target as it stood when an instance was proven to run it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stand {
    /// Its digest.
    pub sha256: String,
    /// Its last change of any kind, in nanoseconds since 1970: as long as it is the same, nobody has touched it since.
    pub ctime: i128,
    /// The digest of everything that is read through it and is none of it; none where that was not known.
    #[serde(default)]
    pub behind: Option<String>,
}

fn key(pid: i32, started: u64) -> String {
    format!("{pid}:{started}")
}

impl Proven {
    /// What is kept under `state`; nothing where that is of another boot, whose pids mean nothing now, cannot be read, or can be written by others.
    #[must_use]
    pub fn load(state: &Path) -> Self {
        let bytes = folder::trusted(state).ok().and_then(|()| crate::config::read(&state.join("proven.json"), MAX_PROVEN).ok()).unwrap_or_default();
        let known: Self = serde_json::from_slice(&bytes).unwrap_or_default();
        let boot_id = boot_id();
        if known.boot_id == boot_id { known } else { Self { boot_id, instances: BTreeMap::new() } }
    }

    /// What the process was last proven to run of the target at `path`.
    #[must_use]
    pub fn of(&self, pid: i32, started: u64, path: &Path) -> Option<&Stand> {
        self.instances.get(&key(pid, started))?.get(path)
    }

    /// All that anybody was last proven to run.
    pub(super) fn digests(&self) -> BTreeSet<String> {
        self.instances.values().flat_map(BTreeMap::values).map(|stand| stand.sha256.clone()).collect()
    }

    /// Keeps what a run proved of each process; nothing stands for one of which nothing is known any more. Processes that ended are dropped.
    ///
    /// # Errors
    /// The state directory cannot be written, or others write there for too long; the next run then signals who would have needed no signal.
    pub fn keep(state: &Path, proofs: impl Iterator<Item = (i32, u64, BTreeMap<PathBuf, Stand>)>) -> io::Result<()> {
        let mut proofs = proofs.peekable();
        if proofs.peek().is_none() {
            return Ok(());
        }
        // Runs on other targets may end at the same moment.
        let Some(_lock) = folder::lock(&state.join("proven.lock"), Lock::Alone, PATIENCE)? else { return Err(io::ErrorKind::TimedOut.into()) };
        let mut proven = Self::load(state);
        for (pid, started, stands) in proofs {
            proven.instances.insert(key(pid, started), stands.into_iter().map(|(path, stand)| (Key(path), stand)).collect());
        }
        let started = |pid: &str| Some(Process::new(pid.parse().ok()?).ok()?.stat().ok()?.starttime);
        let alive = |id: &String| id.split_once(':').is_some_and(|(pid, start)| started(pid).is_some_and(|now| start.parse() == Ok(now)));
        proven.instances.retain(|key, stands| !stands.is_empty() && alive(key));
        folder::replace(&state.join("proven.json"), &state.join("proven.json.new"), &serde_json::to_vec(&proven)?)
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
        let stand = |sha: &str| BTreeMap::from([(PathBuf::from("/a"), Stand { sha256: sha.into(), ctime: 5, behind: None })]);
        let now = Process::myself().unwrap().stat().unwrap().starttime;
        // Its number was another process's once.
        Proven::keep(dir.path(), [(me, now, stand("one")), (me, 7, stand("dead")), (i32::MAX, 7, stand("dead"))].into_iter()).unwrap();
        let sha = |proven: &Proven, pid, started| proven.of(pid, started, Path::new("/a")).map(|s| s.sha256.clone());
        let proven = Proven::load(dir.path());
        assert_eq!((sha(&proven, me, now).as_deref(), sha(&proven, me, 7), sha(&proven, i32::MAX, 7)), (Some("one"), None, None));
        Proven::keep(dir.path(), [(me, now, BTreeMap::new())].into_iter()).unwrap();
        assert_eq!(sha(&Proven::load(dir.path()), me, now), None);
        let text = std::fs::read_to_string(dir.path().join("proven.json")).unwrap();
        std::fs::write(dir.path().join("proven.json"), text.replace(&boot_id(), "another")).unwrap();
        assert!(Proven::load(dir.path()).instances.is_empty());
    }
}
