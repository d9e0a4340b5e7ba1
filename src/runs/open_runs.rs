//! Open runs. Each has a mark with its targets in `open/`, from its beginning until its end is
//! written.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use super::{format::OpenMark, info::RunInfo, layout, state_dir};

/// Largest mark that is read, in bytes: 10,000 targets need about 1 MB.
const MAX_MARK: u64 = 64 << 20;

/// Returns the bytes of a mark.
pub(super) fn content(targets: &[PathBuf]) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(&OpenMark {
        targets: targets.to_vec(),
    })?)
}

/// Returns the ids of the runs that have a mark, oldest first.
pub(super) fn all(state: &Path) -> Vec<String> {
    state_dir::names(&state.join("open")).unwrap_or_default()
}

/// Returns the targets of a mark; empty if it cannot be read.
#[must_use]
pub(crate) fn targets(state: &Path, id: &str) -> Vec<PathBuf> {
    let bytes = crate::config::read(&layout::mark_of(state, id), MAX_MARK).unwrap_or_default();
    serde_json::from_slice::<OpenMark>(&bytes)
        .unwrap_or_default()
        .targets
}

/// Returns every run that has a mark, oldest first: it runs, its coordinator died, or it ended
/// mixed.
#[must_use]
pub(crate) fn marked_runs(state: &Path) -> Vec<RunInfo> {
    all(state).iter().map(|id| RunInfo::of(state, id)).collect()
}

/// Returns the open runs that are not under way, oldest first: their coordinator died, or they
/// ended mixed.
#[must_use]
pub(crate) fn open_runs(state: &Path) -> Vec<RunInfo> {
    all(state)
        .iter()
        .map(|id| RunInfo::of(state, id))
        .filter(|past| past.open && !past.running)
        .collect()
}

/// Returns the earlier runs that open runs continue, directly or not. Each comes with the open run
/// that needs it: only all of them together tell which processes were touched.
pub(super) fn needed(state: &Path) -> BTreeMap<String, RunInfo> {
    let mut needed = BTreeMap::new();
    for past in all(state)
        .iter()
        .map(|id| RunInfo::of(state, id))
        .filter(|past| past.open || past.running)
    {
        let of = |past: &RunInfo| past.began.as_ref().and_then(|began| began.of.clone());
        let mut next = of(&past);
        while let Some(id) = next.take().filter(|id| !needed.contains_key(id)) {
            next = of(&RunInfo::of(state, &id));
            needed.insert(id, past.clone());
        }
    }
    needed
}

/// Returns true if the run `id` has a target among `own`. A run that only signalled has no target;
/// it shares its groups.
pub(super) fn shares(state: &Path, id: &str, own: &[PathBuf], groups: &[&str]) -> bool {
    let targets = targets(state, id);
    if !targets.is_empty() {
        return targets.iter().any(|target| own.contains(target));
    }
    let began = RunInfo::of(state, id).began;
    began.is_some_and(|began| {
        began.targets == 0
            && !began.groups.is_empty()
            && began
                .groups
                .iter()
                .all(|group| groups.contains(&group.as_str()))
    })
}

/// Returns true if a run was left open that a run over the targets `own` and these groups would
/// close.
#[must_use]
pub(crate) fn is_left(state: &Path, own: &[PathBuf], groups: &[&str]) -> bool {
    open_runs(state)
        .iter()
        .any(|past| shares(state, &past.id, own, groups))
}
