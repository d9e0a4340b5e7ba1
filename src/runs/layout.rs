//! Where the files of a run are in the state directory.

use std::path::{Path, PathBuf};

/// The mark of an open run.
pub(super) fn mark_of(state: &Path, id: &str) -> PathBuf {
    state.join("open").join(id)
}

/// Where the events of a run are.
pub(super) fn journal_of(state: &Path, id: &str) -> PathBuf {
    state.join("runs").join(id).join("events.jsonl")
}
