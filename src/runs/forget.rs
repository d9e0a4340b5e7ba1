//! Removes one run, or one content, for `hello forget`.

use std::{collections::BTreeSet, future::pending, io, path::Path, time::Duration};

use super::{
    ProofCache,
    info::{self, RunInfo},
    layout, open_runs, retention, state_dir,
    state_dir::Lock,
    store,
};

/// Longest wait for runs that use the store.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// How to treat an open run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OpenRuns {
    /// Keep it: it is needed.
    Refused,
    /// Remove it: no command can restore its configs any more.
    Abandoned,
}

/// Why nothing was removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotForgotten {
    /// An open run needs it.
    #[error("run {} is open", .0.id)]
    Open(Box<RunInfo>),
    /// Other runs hold the lock of the store for too long.
    #[error("other runs use the store")]
    Busy,
    /// The system's error.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Returns the digests of stored contents that begin with `prefix`.
///
/// # Errors
/// Fails if the state directory cannot be read.
pub(super) fn bytes_of(state: &Path, prefix: &str) -> io::Result<Vec<String>> {
    let mut all = state_dir::names(&store::folder_of(state))?;
    all.retain(|sha256| sha256.starts_with(prefix));
    Ok(all)
}

async fn lock(state: &Path) -> Result<std::fs::File, NotForgotten> {
    state_dir::trusted(state)?;
    let path = state.join("store.lock");
    let lock = state_dir::lock(&path, Lock::Alone, LOCK_WAIT, pending()).await?;
    lock.ok_or(NotForgotten::Busy)
}

/// Checks that the run `id` can be removed. Removes nothing.
///
/// # Errors
/// Fails with the open run that needs it, or if another user can write the state directory.
pub(crate) fn check_run(state: &Path, id: &str, open: OpenRuns) -> Result<(), NotForgotten> {
    state_dir::trusted(state)?;
    let run = RunInfo::of(state, id);
    if run.running || (run.open && open == OpenRuns::Refused) {
        return Err(NotForgotten::Open(Box::new(run)));
    }
    match open_runs::needed(state).remove(id) {
        Some(run) => Err(NotForgotten::Open(Box::new(run))),
        None => Ok(()),
    }
}

/// Checks that the content of this digest can be removed. Removes nothing.
///
/// # Errors
/// As [`check_run`].
pub(crate) fn check_bytes(state: &Path, sha256: &str) -> Result<(), NotForgotten> {
    state_dir::trusted(state)?;
    let has = |id: &&String| layout::folder_of(state, id).join(sha256).exists();
    for id in open_runs::all(state).iter().filter(has) {
        let run = RunInfo::of(state, id);
        if run.open || run.running {
            return Err(NotForgotten::Open(Box::new(run)));
        }
    }
    Ok(())
}

/// Removes the run `id`, and the contents that no other run has and no living process was last
/// proven on. Returns the number of removed contents.
///
/// # Errors
/// See [`NotForgotten`].
pub(crate) async fn forget_run(
    state: &Path,
    id: &str,
    open: OpenRuns,
) -> Result<usize, NotForgotten> {
    let _lock = lock(state).await?;
    check_run(state, id, open)?;
    // Without its files it is not known any more which processes it may have signalled.
    ProofCache::forget(state, id).await?;
    let dropped = retention::remove(state, id, &ProofCache::digests(state))?;
    // The mark goes last: a mark without its run still counts as open, and can be abandoned again.
    match std::fs::remove_file(layout::mark_of(state, id)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
        _ => {}
    }
    state_dir::sync(&state.join("runs"))?;
    Ok(dropped)
}

/// Removes the content of this digest from every run. Returns the number of runs that had it, and
/// true if a living process was last proven on it.
///
/// # Errors
/// See [`NotForgotten`].
pub(crate) async fn forget_bytes(
    state: &Path,
    sha256: &str,
) -> Result<(usize, bool), NotForgotten> {
    let _lock = lock(state).await?;
    check_bytes(state, sha256)?;
    let has = |id: &&String| layout::folder_of(state, id).join(sha256).exists();
    let ids = info::run_ids(state)?;
    let runs: Vec<&String> = ids.iter().filter(has).collect();
    for id in &runs {
        std::fs::remove_file(layout::folder_of(state, id).join(sha256))?;
        state_dir::sync(&layout::folder_of(state, id))?;
    }
    store::drop_unused(state, sha256)?;
    state_dir::sync(&store::folder_of(state))?;
    let needed: BTreeSet<String> = ProofCache::digests(state);
    Ok((runs.len(), needed.contains(sha256)))
}
