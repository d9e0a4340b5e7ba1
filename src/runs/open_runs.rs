//! Open runs. Each has a mark with its targets in `open/`, from its beginning until its end is
//! written.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use super::{format::OpenMark, info::RunInfo, layout, order::RunOrder, state_dir};

/// Largest mark that is read, in bytes: 10,000 targets need about 1 MB.
const MAX_MARK: u64 = 64 << 20;

/// Returns the bytes of a mark.
pub(super) fn content(targets: &[PathBuf]) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(&OpenMark {
        targets: targets.to_vec(),
    })?)
}

/// Returns the ids of the runs that have a mark, oldest first.
///
/// # Errors
/// Fails if the marks cannot be listed. Then it is not known which runs are open.
pub(crate) fn listed(state: &Path) -> io::Result<Vec<String>> {
    let mut ids = state_dir::names(&state.join("open"))?;
    if ids.len() > 1 {
        RunOrder::read(state).sort(&mut ids);
    }
    Ok(ids)
}

/// Returns the ids of the runs that have a mark, oldest first; none where they cannot be listed.
pub(super) fn all(state: &Path) -> Vec<String> {
    listed(state).unwrap_or_default()
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

/// Returns the open runs that a run over the targets `own` and these groups would close, oldest
/// first.
#[must_use]
pub(crate) fn left_over(state: &Path, own: &[PathBuf], groups: &[&str]) -> Vec<RunInfo> {
    let mut left = open_runs(state);
    left.retain(|past| shares(state, &past.id, own, groups));
    left
}

/// Returns why the marks of open runs cannot be listed; none if they can.
#[must_use]
pub(crate) fn unlisted(state: &Path) -> Option<String> {
    let why = listed(state).err()?;
    let path = state.join("open");
    Some(format!("`{}` cannot be read: {why}", path.display()))
}
