//! The paths of a run in the state directory.

use std::path::{Path, PathBuf};

/// Returns the path of the mark of an open run.
pub(super) fn mark_of(state: &Path, id: &str) -> PathBuf {
    state.join("open").join(id)
}

/// Returns the folder of a run.
pub(super) fn folder_of(state: &Path, id: &str) -> PathBuf {
    state.join("runs").join(id)
}

/// Returns the path of the events of a run.
pub(super) fn journal_of(state: &Path, id: &str) -> PathBuf {
    folder_of(state, id).join("events.jsonl")
}

/// Returns the path of the plan of a run.
pub(super) fn plan_of(state: &Path, id: &str) -> PathBuf {
    folder_of(state, id).join("plan.json")
}
