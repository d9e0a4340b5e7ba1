//! The instances that read the same targets.

use std::{collections::BTreeMap, path::PathBuf};

use crate::step::PlannedInstance;

/// Instances by the targets that they read.
pub(super) type Readers = BTreeMap<Vec<PathBuf>, Vec<PlannedInstance>>;

/// Groups instances by a key, and keeps their order. If all have the same key, none is moved: a
/// copy of ten thousand would double the memory of a plan.
pub(super) fn group_by_targets<K: Ord>(
    instances: Vec<PlannedInstance>,
    mut key: impl FnMut(&PlannedInstance) -> K,
) -> BTreeMap<K, Vec<PlannedInstance>> {
    let mut runs: Vec<(K, usize)> = Vec::new();
    for instance in &instances {
        let key = key(instance);
        match runs.last_mut() {
            Some((last, length)) if *last == key => *length += 1,
            _ => runs.push((key, 1)),
        }
    }
    if runs.len() == 1 {
        return runs
            .into_iter()
            .map(|(key, _)| key)
            .zip([instances])
            .collect();
    }
    let mut groups = BTreeMap::<K, Vec<PlannedInstance>>::new();
    let mut instances = instances.into_iter();
    for (key, length) in runs {
        groups
            .entry(key)
            .or_default()
            .extend(instances.by_ref().take(length));
    }
    groups
}
