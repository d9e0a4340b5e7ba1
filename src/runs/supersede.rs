//! Closes open runs whose place a later run takes.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    info::RunInfo,
    journal, layout, open_runs,
    state_dir::{self, Lock},
};
use crate::event::Event;

/// Longest wait for another run that closes runs.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// Closes the open runs that the run `id` takes the place of, and returns their ids. The run `of`
/// is closed as a whole, any other run as far as its targets are among `own`. The caller holds the
/// locks of these targets. It calls this when `id` is at its end, and only if `id` touched
/// something: until then the open runs describe what is on disk. `interrupted` ends the wait for
/// other runs.
pub(crate) async fn supersede(
    state: &Path,
    id: &str,
    of: Option<&str>,
    own: &[PathBuf],
    groups: &[&str],
    interrupted: impl Future<Output = ()>,
) -> Vec<String> {
    let left = |other: &&String| {
        *other != id && (of == Some(other.as_str()) || open_runs::shares(state, other, own, groups))
    };
    if !open_runs::all(state).iter().any(|other| left(&other)) {
        return Vec::new();
    }
    // Two runs may each take a part of the same open run. Without the lock it stays open, and the
    // next run closes it.
    let lock = state.join("open.lock");
    let Ok(Some(_lock)) = state_dir::lock(&lock, Lock::Alone, LOCK_WAIT, interrupted).await else {
        return Vec::new();
    };
    let mut closed = Vec::new();
    for other in open_runs::all(state).iter().filter(left) {
        let run = RunInfo::of(state, other);
        if run.running {
            continue;
        }
        let rest: Vec<PathBuf> = open_runs::targets(state, other)
            .into_iter()
            .filter(|t| of != Some(other.as_str()) && !own.contains(t))
            .collect();
        if run.open && !rest.is_empty() {
            let staged = state.join("open").join(format!(".{other}.new"));
            // If this fails, the old mark stays. It names more targets than are left, which is
            // safe.
            let _ = open_runs::content(&rest).and_then(|mark| {
                state_dir::replace(&layout::mark_of(state, other), &staged, &mark)
            });
            continue;
        }
        // Without its last line the run stays open.
        let end = Event::SupersededBy { run: id.into() };
        if !run.open || journal::add_ends(state, &run.id, &[(&run.host, &end)]).is_ok() {
            let _ = std::fs::remove_file(layout::mark_of(state, other));
            closed.extend(run.open.then(|| other.clone()));
        }
    }
    closed
}
