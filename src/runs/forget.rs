//! Takes away one run, or one content, because somebody says so.

use std::{collections::BTreeSet, io, path::Path, time::Duration};

use super::{
    ProofCache,
    info::{self, RunInfo},
    layout, open_runs, retention, state_dir,
    state_dir::Lock,
    store,
};

/// So long runs that use the store are waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What becomes of a run that is open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenRuns {
    /// It is needed, so it stays.
    Refused,
    /// It is given up: no command can bring its configs back.
    Abandoned,
}

/// Why nothing was taken away.
#[derive(Debug, thiserror::Error)]
pub enum NotForgotten {
    /// This run needs it.
    #[error("run {} is open", .0.id)]
    Open(Box<RunInfo>),
    /// Runs that begin or take old ones away, for too long.
    #[error("other runs use the store")]
    Busy,
    /// The system's reason.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Digests of all contents that begin with `prefix`.
///
/// # Errors
/// The state directory cannot be read.
pub fn bytes_of(state: &Path, prefix: &str) -> io::Result<Vec<String>> {
    let mut all = state_dir::names(&store::folder_of(state))?;
    all.retain(|sha256| sha256.starts_with(prefix));
    Ok(all)
}

fn lock(state: &Path) -> Result<std::fs::File, NotForgotten> {
    state_dir::trusted(state)?;
    state_dir::lock(&state.join("store.lock"), Lock::Alone, PATIENCE)?.ok_or(NotForgotten::Busy)
}

/// Takes away the run `id`, and the bytes that no other run has and no living process was last
/// proven on; answers how many contents that were.
///
/// # Errors
/// See [`NotForgotten`].
pub fn forget_run(state: &Path, id: &str, open: OpenRuns) -> Result<usize, NotForgotten> {
    let _lock = lock(state)?;
    let past = RunInfo::of(state, id);
    if past.running || (past.open && open == OpenRuns::Refused) {
        return Err(NotForgotten::Open(Box::new(past)));
    }
    if let Some(past) = open_runs::needed(state).remove(id) {
        return Err(NotForgotten::Open(Box::new(past)));
    }
    let dropped = retention::remove(state, id, &ProofCache::load(state).digests())?;
    if past.open {
        // Last: a mark without its run is still seen as open, and can be abandoned once more.
        match std::fs::remove_file(layout::mark_of(state, id)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
            _ => {}
        }
    }
    state_dir::sync(&state.join("runs"))?;
    Ok(dropped)
}

/// Takes away the bytes of this digest from every run; answers from how many, and whether a living
/// process was last proven on them.
///
/// # Errors
/// See [`NotForgotten`].
pub fn forget_bytes(state: &Path, sha256: &str) -> Result<(usize, bool), NotForgotten> {
    let _lock = lock(state)?;
    let has = |id: &&String| state.join("runs").join(id).join(sha256).exists();
    for id in open_runs::all(state).iter().filter(has) {
        let past = RunInfo::of(state, id);
        if past.open || past.running {
            return Err(NotForgotten::Open(Box::new(past)));
        }
    }
    let ids = info::run_ids(state)?;
    let runs: Vec<&String> = ids.iter().filter(has).collect();
    for id in &runs {
        std::fs::remove_file(state.join("runs").join(id).join(sha256))?;
        state_dir::sync(&state.join("runs").join(id))?;
    }
    store::drop_unused(state, sha256)?;
    state_dir::sync(&store::folder_of(state))?;
    let needed: BTreeSet<String> = ProofCache::load(state).digests();
    Ok((runs.len(), needed.contains(sha256)))
}
