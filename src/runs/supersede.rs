//! Closes runs whose place a later one takes.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use super::{info::RunInfo, journal, layout, open_runs, state_dir};
use crate::event::Event;

/// So long another run that closes runs is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// The run `id` takes the place of those that were left open: of `of` as a whole, of others as far
/// as their targets are among `own`, whose locks whoever calls holds. Answers whom of it is closed
/// by that. Not before `id` is at its end, and not where it has touched nothing: what they left is
/// there until then.
pub fn supersede(
    state: &Path,
    id: &str,
    of: Option<&str>,
    own: &[PathBuf],
    groups: &[&str],
) -> Vec<String> {
    let left = |other: &&String| {
        *other != id && (of == Some(other.as_str()) || open_runs::shares(state, other, own, groups))
    };
    if !open_runs::all(state).iter().any(|other| left(&other)) {
        return Vec::new();
    }
    // Two runs may each take a part of the same one. Who is not let in leaves it open, for the next
    // to look at.
    let Ok(Some(_lock)) =
        state_dir::lock(&state.join("open.lock"), state_dir::Lock::Alone, PATIENCE)
    else {
        return Vec::new();
    };
    let mut closed = Vec::new();
    for other in open_runs::all(state).iter().filter(left) {
        let past = RunInfo::of(state, other);
        if past.running {
            continue;
        }
        let rest: Vec<PathBuf> = open_runs::targets(state, other)
            .into_iter()
            .filter(|t| of != Some(other.as_str()) && !own.contains(t))
            .collect();
        if past.open && !rest.is_empty() {
            let staged = state.join("open").join(format!(".{other}.new"));
            // The old mark says more than is left, which is looked at again.
            let _ = open_runs::content(&rest).and_then(|mark| {
                state_dir::replace(&layout::mark_of(state, other), &staged, &mark)
            });
            continue;
        }
        // Without its last line it stays open.
        if !past.open
            || journal::add_end(state, other, &Event::SupersededBy { run: id.into() }).is_ok()
        {
            let _ = std::fs::remove_file(layout::mark_of(state, other));
            closed.extend(past.open.then(|| other.clone()));
        }
    }
    closed
}
