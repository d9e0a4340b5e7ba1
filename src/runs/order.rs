//! The order of the runs on this host: a counter of its own that rises with each run. The ids come
//! from the clocks of coordinators, and no decision compares the clocks of two machines.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::OpenOptions,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::state_dir::{self, Lock};
use crate::config;

/// Longest wait for another run that raises the counter.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// Largest file that is read, in bytes. A line has about 40.
const MAX_FILE: u64 = 16 << 20;
/// From this size on, in bytes, the lines of runs that are not kept are removed.
const COMPACT: u64 = 256 << 10;

/// The counter of each run, as the file `order` has it: a line `COUNTER ID` for each.
#[derive(Debug, Default)]
pub(super) struct RunOrder {
    counters: BTreeMap<String, u64>,
    /// The greatest counter, also of a torn line: the next one is greater in any case.
    last: u64,
}

fn path_of(state: &Path) -> PathBuf {
    state.join("order")
}

impl RunOrder {
    /// Reads the order. A run that it does not have is of an earlier version.
    #[must_use]
    pub(super) fn read(state: &Path) -> Self {
        Self::try_read(state).unwrap_or_default()
    }

    fn try_read(state: &Path) -> io::Result<Self> {
        let path = path_of(state);
        if !path.try_exists()? {
            return Ok(Self::default());
        }
        let bytes = config::read(&path, MAX_FILE).map_err(io::Error::other)?;
        let text = String::from_utf8_lossy(&bytes);
        // A line without its end was torn by a loss of power, and its run never began.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let parse = |line: &str| -> Option<(String, u64)> {
            let (counter, id) = line.split_once(' ')?;
            Some((id.to_owned(), counter.parse().ok()?))
        };
        let last = text.lines().filter_map(parse).map(|(_, counter)| counter);
        Ok(Self {
            last: last.max().unwrap_or(0),
            counters: whole.lines().filter_map(parse).collect(),
        })
    }

    /// Returns the place of a run. Those of an earlier version come first, in the order of their
    /// ids.
    fn place<'a>(&self, id: &'a str) -> (u64, &'a str) {
        (self.counters.get(id).copied().unwrap_or(0), id)
    }

    /// Sorts runs, the oldest first.
    pub(super) fn sort(&self, ids: &mut [String]) {
        ids.sort_by(|one, other| self.place(one).cmp(&self.place(other)));
    }

    /// Tells whether the run `id` began after `other`.
    #[must_use]
    pub(super) fn is_after(&self, id: &str, other: &str) -> bool {
        self.place(id) > self.place(other)
    }
}

/// Raises the counter for the run `id`, synced, and returns it. A run has one value for good.
///
/// # Errors
/// Fails if the state directory cannot be written. Nothing was touched then.
pub(crate) async fn raise(
    state: &Path,
    id: &str,
    interrupted: impl Future<Output = ()>,
) -> io::Result<u64> {
    state_dir::make(state)?;
    let lock = state.join("order.lock");
    let Some(_lock) = state_dir::lock(&lock, Lock::Alone, LOCK_WAIT, interrupted).await? else {
        return Err(io::ErrorKind::TimedOut.into());
    };
    let order = RunOrder::try_read(state)?;
    if let Some(counter) = order.counters.get(id) {
        return Ok(*counter);
    }
    let counter = order.last + 1;
    let path = path_of(state);
    if path.metadata().is_ok_and(|meta| meta.len() > COMPACT) {
        compact(state, &order)?;
    }
    let is_new = !path.try_exists()?;
    let mut file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(&path)?;
    // A torn line ends here.
    let end = if ends_torn(&path)? { "\n" } else { "" };
    file.write_all(format!("{end}{counter} {id}\n").as_bytes())?;
    file.sync_data()?;
    if is_new {
        state_dir::sync(state)?;
    }
    Ok(counter)
}

fn ends_torn(path: &Path) -> io::Result<bool> {
    let bytes = config::read(path, MAX_FILE).map_err(io::Error::other)?;
    Ok(bytes.last().is_some_and(|last| *last != b'\n'))
}

/// Removes the lines of runs that are not kept, but that of the last run: the counter never falls.
fn compact(state: &Path, order: &RunOrder) -> io::Result<()> {
    let kept: BTreeSet<String> = state_dir::names(&state.join("runs"))?.into_iter().collect();
    let last = order.last;
    let lines: String = order
        .counters
        .iter()
        .filter(|(id, counter)| kept.contains(*id) || **counter == last)
        .map(|(id, counter)| format!("{counter} {id}\n"))
        .collect();
    state_dir::replace(&path_of(state), &state.join(".order.new"), lines.as_bytes())?;
    state_dir::sync(state)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    async fn raised(state: &Path, id: &str) -> u64 {
        raise(state, id, std::future::pending()).await.unwrap()
    }

    #[tokio::test]
    async fn a_run_with_a_lower_id_that_began_later_is_later() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(raised(state.path(), "b").await, 1);
        assert_eq!(raised(state.path(), "a").await, 2);
        let order = RunOrder::read(state.path());
        let mut ids = vec!["a".to_owned(), "b".into()];
        order.sort(&mut ids);
        assert_eq!(ids, ["b", "a"]);
        assert!(order.is_after("a", "b"));
    }

    #[tokio::test]
    async fn a_run_keeps_its_counter() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(raised(state.path(), "b").await, 1);
        assert_eq!(raised(state.path(), "c").await, 2);
        assert_eq!(raised(state.path(), "b").await, 1);
    }

    #[tokio::test]
    async fn runs_of_an_earlier_version_come_first() {
        let state = tempfile::tempdir().unwrap();
        raised(state.path(), "a").await;
        let mut ids = vec!["a".to_owned(), "c".into(), "b".into()];
        RunOrder::read(state.path()).sort(&mut ids);
        assert_eq!(ids, ["b", "c", "a"]);
    }

    #[tokio::test]
    async fn a_torn_line_is_no_run_and_the_counter_goes_on() {
        let state = tempfile::tempdir().unwrap();
        raised(state.path(), "a").await;
        let path = path_of(state.path());
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text + "2 b").unwrap();
        assert!(!RunOrder::read(state.path()).counters.contains_key("b"));
        assert_eq!(raised(state.path(), "c").await, 3);
    }

    #[tokio::test]
    async fn a_compacted_order_keeps_the_runs_that_are_kept_and_its_counter() {
        let state = tempfile::tempdir().unwrap();
        for id in ["a", "b", "c"] {
            raised(state.path(), id).await;
        }
        std::fs::create_dir_all(state.path().join("runs/a")).unwrap();
        compact(state.path(), &RunOrder::read(state.path())).unwrap();
        let order = RunOrder::read(state.path());
        assert_eq!(order.counters.keys().collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(raised(state.path(), "d").await, 4);
    }
}
