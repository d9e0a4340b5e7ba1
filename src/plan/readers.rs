//! Which instances read which targets.

use std::{collections::BTreeMap, path::PathBuf};

use crate::step::PlannedInstance;

/// Instances by what they read.
pub(super) type Readers = BTreeMap<Vec<PathBuf>, Vec<PlannedInstance>>;

/// The members of each key, in their order. Where all have the same one, nobody is moved: ten
/// thousand take room.
pub(super) fn group_by_targets<K: Ord>(
    members: Vec<PlannedInstance>,
    mut key: impl FnMut(&PlannedInstance) -> K,
) -> BTreeMap<K, Vec<PlannedInstance>> {
    let mut runs: Vec<(K, usize)> = Vec::new();
    for member in &members {
        let key = key(member);
        match runs.last_mut() {
            Some((last, many)) if *last == key => *many += 1,
            _ => runs.push((key, 1)),
        }
    }
    if runs.len() == 1 {
        return runs
            .into_iter()
            .map(|(key, _)| key)
            .zip([members])
            .collect();
    }
    let (mut parts, mut members) = (
        BTreeMap::<K, Vec<PlannedInstance>>::new(),
        members.into_iter(),
    );
    for (key, many) in runs {
        parts
            .entry(key)
            .or_default()
            .extend(members.by_ref().take(many));
    }
    parts
}
