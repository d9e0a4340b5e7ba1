//! Runs that are open: each has a mark with its targets in `open/`, from its beginning until its
//! end is written.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{info::RunInfo, layout, state_dir};

/// Largest mark that is read, in bytes: 10,000 targets need about 1 MB.
const MAX_MARK: u64 = 64 << 20;

/// A mark.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Mark {
    #[serde(with = "crate::exact")]
    targets: Vec<PathBuf>,
}

/// The bytes of a mark.
pub(super) fn content(targets: &[PathBuf]) -> io::Result<Vec<u8>> {
    Ok(serde_json::to_vec(&Mark {
        targets: targets.to_vec(),
    })?)
}

/// Ids of the runs that have a mark, oldest first.
pub(super) fn all(state: &Path) -> Vec<String> {
    state_dir::names(&state.join("open")).unwrap_or_default()
}

/// The targets of a mark. One that cannot be read is a run all the same, of nobody knows which.
#[must_use]
pub fn targets(state: &Path, id: &str) -> Vec<PathBuf> {
    let bytes = crate::config::read(&layout::mark_of(state, id), MAX_MARK).unwrap_or_default();
    serde_json::from_slice::<Mark>(&bytes)
        .unwrap_or_default()
        .targets
}

/// Every run that has a mark, oldest first: it runs, its owner died, or it ended mixed.
#[must_use]
pub fn marked_runs(state: &Path) -> Vec<RunInfo> {
    all(state).iter().map(|id| RunInfo::of(state, id)).collect()
}

/// Runs that nobody has ended and nobody carries out, oldest first: their owner died, or they ended
/// mixed.
#[must_use]
pub fn open_runs(state: &Path) -> Vec<RunInfo> {
    all(state)
        .iter()
        .map(|id| RunInfo::of(state, id))
        .filter(|past| past.open && !past.running)
        .collect()
}

/// What an open run goes on with, and that with, and so on: of each the run that needs it. Whom
/// they touched is known from all of them.
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

/// Whether the run `id` has a target among `own`. One that only signalled has none: it shares the
/// groups of its name.
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

/// Whether a run was left open that a run over the targets `own` and these groups would close.
#[must_use]
pub fn is_left(state: &Path, own: &[PathBuf], groups: &[&str]) -> bool {
    open_runs(state)
        .iter()
        .any(|past| shares(state, &past.id, own, groups))
}
