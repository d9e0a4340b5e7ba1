//! The order of the runs on this host: a counter of its own that rises with each run. The ids come
//! from the clocks of coordinators, and no decision compares the clocks of two machines.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    layout,
    state_dir::{self, Lock},
};
use crate::config;

/// Longest wait for another run that raises the counter.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// Largest file that is read, in bytes. A line has about 40.
const MAX_FILE: u64 = 16 << 20;
/// From this size on, in bytes, the lines of runs that are not kept are removed.
const COMPACT: u64 = 256 << 10;

/// The last word of a line.
const SURVEYED: &str = "surveyed";
const BEGUN: &str = "begun";
const SKIPPED: &str = "skipped";
/// The newest runs whose lines are kept without a journal: these may be about to begin.
const MAX_NEW: u64 = 1000;

/// The counter of each run, as the file `order` has it: a line `COUNTER ID surveyed` for each,
/// another one with `begun` before its journal is complete, or one with `skipped` if a coordinator
/// has ended the run without this host. Such a run never begins.
#[derive(Debug, Default)]
pub(super) struct RunOrder {
    counters: BTreeMap<String, u64>,
    /// The words of each run.
    words: BTreeSet<(String, String)>,
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
        let mut order = Self {
            last: last.max().unwrap_or(0),
            ..Self::default()
        };
        for (rest, counter) in whole.lines().filter_map(parse) {
            let (id, word) = rest.split_once(' ').unwrap_or((&rest, ""));
            order.counters.insert(id.to_owned(), counter);
            order.words.insert((id.to_owned(), word.to_owned()));
        }
        Ok(order)
    }

    fn has(&self, id: &str, word: &str) -> bool {
        self.words.contains(&(id.to_owned(), word.to_owned()))
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

    /// A run without its mark is not complete: it has touched nothing.
    fn is_unbegun(&self, state: &Path, id: &str) -> bool {
        let is_marked = layout::mark_of(state, id).try_exists();
        self.has(id, SURVEYED) && !self.has(id, BEGUN) && is_marked.is_ok_and(|marked| !marked)
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
    let _lock = lock(state, interrupted).await?;
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
    file.write_all(format!("{end}{counter} {id} {SURVEYED}\n").as_bytes())?;
    file.sync_data()?;
    if is_new {
        state_dir::sync(state)?;
    }
    Ok(counter)
}

/// Tells whether the run `id` was surveyed here, and never began: it has touched nothing. False
/// where that is not known: an old line, or a run that this host has not seen.
#[must_use]
pub(crate) fn never_began(state: &Path, id: &str) -> bool {
    RunOrder::read(state).is_unbegun(state, id)
}

/// Keeps a run that never began from beginning, synced: a coordinator ends it without this host.
/// Returns false if the run has begun, or is not known.
///
/// # Errors
/// Fails if the state directory cannot be written, or if another run takes too long.
pub(crate) async fn skip(
    state: &Path,
    id: &str,
    interrupted: impl Future<Output = ()>,
) -> io::Result<bool> {
    let _lock = lock(state, interrupted).await?;
    let order = RunOrder::try_read(state)?;
    if !order.is_unbegun(state, id) {
        return Ok(false);
    }
    if !order.has(id, SKIPPED) {
        append(state, &order, (id, SKIPPED))?;
    }
    Ok(true)
}

/// Records, synced, that the run is about to begin. Its journal may be removed later.
///
/// # Errors
/// Fails if a coordinator has ended the run without this host, or if the state directory cannot be
/// written. Nothing was touched then.
pub(super) async fn record_begin(
    state: &Path,
    id: &str,
    interrupted: impl Future<Output = ()>,
) -> io::Result<()> {
    let _lock = lock(state, interrupted).await?;
    let order = RunOrder::try_read(state)?;
    if order.has(id, SKIPPED) {
        let why = format!("another coordinator has ended run {id} without this host");
        return Err(io::Error::other(why));
    }
    append(state, &order, (id, BEGUN))
}

async fn lock(state: &Path, interrupted: impl Future<Output = ()>) -> io::Result<File> {
    let lock = state.join("order.lock");
    let locked = state_dir::lock(&lock, Lock::Alone, LOCK_WAIT, interrupted).await?;
    locked.ok_or_else(|| io::ErrorKind::TimedOut.into())
}

/// Appends a line of a run, and syncs it.
fn append(state: &Path, order: &RunOrder, (id, word): (&str, &str)) -> io::Result<()> {
    let counter = order.counters.get(id).copied().unwrap_or(0);
    let path = path_of(state);
    let end = if ends_torn(&path)? { "\n" } else { "" };
    let mut file = OpenOptions::new().append(true).open(&path)?;
    file.write_all(format!("{end}{counter} {id} {word}\n").as_bytes())?;
    file.sync_data()
}

fn ends_torn(path: &Path) -> io::Result<bool> {
    let bytes = config::read(path, MAX_FILE).map_err(io::Error::other)?;
    Ok(bytes.last().is_some_and(|last| *last != b'\n'))
}

/// Removes the lines of runs that are not kept, but those of the newest ones: such a run may be
/// about to begin, and the counter never falls.
fn compact(state: &Path, order: &RunOrder) -> io::Result<()> {
    let kept: BTreeSet<String> = state_dir::names(&state.join("runs"))?.into_iter().collect();
    let newest = order.last.saturating_sub(MAX_NEW);
    let is_kept = |id: &String, counter: u64| kept.contains(id) || counter > newest;
    let mut lines = String::new();
    for (id, word) in &order.words {
        let counter = order.counters.get(id).copied().unwrap_or(0);
        if is_kept(id, counter) {
            let line = format!("{counter} {id} {word}");
            lines += &format!("{}\n", line.trim_end());
        }
    }
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

    async fn begun(state: &Path, id: &str) -> io::Result<()> {
        record_begin(state, id, std::future::pending()).await
    }

    async fn skipped(state: &Path, id: &str) -> bool {
        skip(state, id, std::future::pending()).await.unwrap()
    }

    #[tokio::test]
    async fn a_run_that_was_surveyed_and_did_not_begin_never_began() {
        let state = tempfile::tempdir().unwrap();
        raised(state.path(), "a").await;
        assert!(never_began(state.path(), "a"));
        assert!(!never_began(state.path(), "b"));
        // An agent was killed while it made the folder.
        std::fs::create_dir_all(state.path().join("runs/a")).unwrap();
        assert!(never_began(state.path(), "a"));
    }

    #[tokio::test]
    async fn a_run_that_began_has_begun_also_without_its_journal() {
        let state = tempfile::tempdir().unwrap();
        raised(state.path(), "a").await;
        begun(state.path(), "a").await.unwrap();
        assert!(!never_began(state.path(), "a"));
        assert!(!skipped(state.path(), "a").await);
        assert_eq!(raised(state.path(), "b").await, 2);
    }

    #[tokio::test]
    async fn a_run_with_a_mark_or_an_old_line_is_not_known_to_be_unbegun() {
        let state = tempfile::tempdir().unwrap();
        raised(state.path(), "a").await;
        std::fs::create_dir_all(state.path().join("open/a")).unwrap();
        assert!(!never_began(state.path(), "a"));
        std::fs::write(path_of(state.path()), "1 b\n").unwrap();
        assert!(!never_began(state.path(), "b"));
    }

    #[tokio::test]
    async fn a_skipped_run_never_begins() {
        let state = tempfile::tempdir().unwrap();
        raised(state.path(), "a").await;
        assert!(skipped(state.path(), "a").await);
        assert!(skipped(state.path(), "a").await);
        assert!(!skipped(state.path(), "unknown").await);
        assert!(begun(state.path(), "a").await.is_err());
        assert_eq!(raised(state.path(), "a").await, 1);
        assert!(begun(state.path(), "a").await.is_err());
    }

    #[tokio::test]
    async fn a_compacted_order_keeps_the_runs_that_are_kept_and_the_newest() {
        let state = tempfile::tempdir().unwrap();
        let many = MAX_NEW + 3;
        let lines: String = (1..=many).map(|n| format!("{n} r{n}\n")).collect();
        std::fs::write(path_of(state.path()), lines).unwrap();
        begun(state.path(), "r1").await.unwrap();
        std::fs::create_dir_all(state.path().join("runs/r1")).unwrap();
        compact(state.path(), &RunOrder::read(state.path())).unwrap();
        let order = RunOrder::read(state.path());
        let is_there = |n: u64| order.counters.contains_key(&format!("r{n}"));
        assert!(is_there(1) && order.has("r1", BEGUN));
        assert!(!is_there(2) && !is_there(3));
        assert!(is_there(4) && is_there(many));
        assert_eq!(raised(state.path(), "d").await, many + 1);
    }
}
