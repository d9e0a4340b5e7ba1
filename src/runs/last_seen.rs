//! The instances that the last run over each group left alive: `last.json` in the state directory.
//! `status` compares them with the processes of today.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    boot_id,
    state_dir::{self, Lock},
};
use crate::{
    config,
    event::{Instance, Outcome},
    fleet::Group,
    kernel::is_alive,
};

/// Largest `last.json` that is read, in bytes: 100,000 instances need about 20 MB.
const MAX_LAST: u64 = 64 << 20;
/// Longest wait for other runs that end.
const LOCK_WAIT: Duration = Duration::from_secs(2);
/// Most groups that are kept; the oldest are dropped. It bounds the file where fleets change often.
const MAX_GROUPS: usize = 1000;

/// The instances that the last run over each group of this boot left alive.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct LastSeen {
    boot_id: String,
    /// By the group's name and the digest of what it matches.
    groups: BTreeMap<String, Left>,
}

/// One group after a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Left {
    at: jiff::Timestamp,
    instances: Vec<LastInstance>,
}

/// An instance that lived at the end of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) struct LastInstance {
    /// Its process number.
    pub pid: i32,
    /// Its start time in clock ticks since boot.
    pub started: u64,
    /// The targets that it read.
    #[serde(with = "crate::exact")]
    #[schemars(with = "Vec<crate::exact::Shape<'static>>")]
    pub targets: Vec<PathBuf>,
}

/// Returns the key of a group. Two fleets may have a group of one name; only the same matches make
/// it the same group.
fn key(group: &Group) -> String {
    let matches = serde_json::to_vec(&(
        &group.matching,
        &group.exclude,
        &group.users,
        &group.instances,
    ))
    .unwrap_or_default();
    format!("{} {}", group.name, config::digest(&matches))
}

impl LastSeen {
    /// Reads what is kept under `state`. It is empty where the file is of another boot, where it
    /// cannot be read, or where another user can write it.
    #[must_use]
    pub(crate) fn load(state: &Path) -> Self {
        let bytes = state_dir::trusted(state)
            .ok()
            .and_then(|()| config::read(&path_of(state), MAX_LAST).ok())
            .unwrap_or_default();
        let last: Self = serde_json::from_slice(&bytes).unwrap_or_default();
        let boot_id = boot_id();
        if last.boot_id == boot_id {
            last
        } else {
            Self {
                boot_id,
                groups: BTreeMap::new(),
            }
        }
    }

    /// Keeps the instances that a run over `groups` left alive. `interrupted` ends the wait for
    /// other runs.
    ///
    /// # Errors
    /// Fails if the state directory cannot be written. `status` then does not notice an instance
    /// that ends after this run.
    pub(crate) async fn keep<'a>(
        state: &Path,
        groups: &[Group],
        instances: impl Iterator<Item = &'a Instance>,
        interrupted: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let mut alive: BTreeMap<&str, Vec<LastInstance>> = BTreeMap::new();
        for i in instances {
            let ends = matches!(
                i.outcome,
                Outcome::RevertFailed | Outcome::TimedOut | Outcome::Rejected
            );
            if i.outcome != Outcome::Died && (!ends || is_alive(i.pid, i.started)) {
                alive.entry(&i.group).or_default().push(LastInstance {
                    pid: i.pid,
                    started: i.started,
                    targets: i.targets.clone(),
                });
            }
        }
        let lock = state.join("last.lock");
        let Some(_lock) = state_dir::lock(&lock, Lock::Alone, LOCK_WAIT, interrupted).await? else {
            return Err(io::ErrorKind::TimedOut.into());
        };
        let mut last = Self::load(state);
        let at = jiff::Timestamp::now();
        for group in groups {
            last.groups.insert(
                key(group),
                Left {
                    at,
                    instances: alive.remove(group.name.as_str()).unwrap_or_default(),
                },
            );
        }
        while last.groups.len() > MAX_GROUPS {
            let oldest = last
                .groups
                .iter()
                .min_by_key(|(_, left)| left.at)
                .map(|(key, _)| key.clone());
            oldest.and_then(|key| last.groups.remove(&key));
        }
        // Pids mean nothing after a power failure, so nothing is synced.
        let (path, staged) = (path_of(state), state.join("last.json.new"));
        let _ = std::fs::remove_file(&staged);
        state_dir::create(&staged, &serde_json::to_vec(&last)?)?;
        std::fs::rename(staged, path)
    }

    /// Returns the instances of `group` that ended since and were not replaced. Each new process in
    /// `now` replaces one ended instance that read the same targets.
    #[must_use]
    pub(crate) fn ended(&self, group: &Group, now: &[LastInstance]) -> Vec<LastInstance> {
        let Some(left) = self.groups.get(&key(group)) else {
            return Vec::new();
        };
        let known: BTreeSet<(i32, u64)> = left
            .instances
            .iter()
            .map(|alive| (alive.pid, alive.started))
            .collect();
        let mut new: BTreeMap<&[PathBuf], usize> = BTreeMap::new();
        now.iter()
            .filter(|alive| !known.contains(&(alive.pid, alive.started)))
            .for_each(|alive| *new.entry(&alive.targets).or_default() += 1);
        let gone = left
            .instances
            .iter()
            .filter(|alive| !is_alive(alive.pid, alive.started));
        let unreplaced = gone.filter(|alive| match new.get_mut(alive.targets.as_slice()) {
            Some(places) if *places > 0 => {
                *places -= 1;
                false
            }
            _ => true,
        });
        unreplaced.cloned().collect()
    }
}

fn path_of(state: &Path) -> PathBuf {
    state.join("last.json")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn it_is_read_back_as_it_was() {
        let instance = LastInstance {
            pid: 1,
            started: 5,
            targets: vec!["/a".into()],
        };
        let left = Left {
            at: jiff::Timestamp::UNIX_EPOCH,
            instances: vec![instance],
        };
        let last = LastSeen {
            boot_id: "boot".into(),
            groups: BTreeMap::from([("web 1".into(), left)]),
        };
        let json = serde_json::to_string(&last).unwrap();
        assert_eq!(serde_json::from_str::<LastSeen>(&json).unwrap(), last);
    }
}
