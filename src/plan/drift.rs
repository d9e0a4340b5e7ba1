//! Targets and instances that are not in the state that a change assumes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::readers::Readers;
use crate::{
    change::{Change, Changes},
    event::{Abort, Instance, Verdict},
    step::{Content, PlannedInstance, SurveyedTarget, short},
};

/// Returns why one `--config`, or one key of a store, may not replace several targets: they differ
/// now.
pub(super) fn unequal_targets(
    readers: &Readers,
    targets: &BTreeMap<PathBuf, SurveyedTarget>,
    changes: &Changes,
) -> Option<Abort> {
    let mut first: BTreeMap<(&Path, usize), (&Path, &str)> = BTreeMap::new();
    for (paths, instances) in readers {
        let Some(group) = instances.first().map(|m| &m.instance.group) else {
            continue;
        };
        let (named, tree) = match changes.of(group) {
            Change::Put { named, content, .. } => {
                let tree = content
                    .as_ref()
                    .ok()
                    .and_then(|content| content.tree.as_ref());
                (named, tree.filter(|_| paths.len() > 1))
            }
            Change::Adopt => match key_of(group, paths, targets) {
                Some(named) => (named, None),
                None => continue,
            },
            Change::Set(_) => continue,
        };
        for (index, path) in paths.iter().enumerate() {
            // If a group has several targets, one without an entry stays as it is.
            let stays = tree.is_some_and(|tree| {
                !path
                    .file_name()
                    .is_some_and(|name| tree.entries.contains_key(name))
            });
            let Some(target) = targets.get(path).filter(|_| !stays) else {
                continue;
            };
            let (other, sha256) = first
                .entry((named, index))
                .or_insert((path, &target.content.sha256));
            if *sha256 != target.content.sha256 {
                let why = format!(
                    "`{}` would become the config of several files, but `{}` and `{}` differ now; \
                     if they may become equal, add --overwrite",
                    named.display(),
                    other.display(),
                    path.display()
                );
                return Some(Abort::new(Verdict::Refused, why));
            }
        }
    }
    None
}

/// Returns the URL of the key whose value the targets of a group become, if its `source` is a key.
fn key_of<'a>(
    group: &str,
    paths: &[PathBuf],
    targets: &'a BTreeMap<PathBuf, SurveyedTarget>,
) -> Option<&'a PathBuf> {
    let staged = targets.get(paths.first()?)?.staged.get(group)?;
    let is_value = matches!(staged.content, Some(Ok(_)));
    (staged.key.is_some() && is_value).then_some(&staged.named)
}

/// Refuses each instance that runs neither the file on disk nor the candidate. A process reports
/// the digest of its first target only.
pub(super) fn refuse_drifted(
    path: &Path,
    disk: &Content,
    to: &Content,
    instances: &mut [PlannedInstance],
    refused: &mut Vec<Instance>,
) {
    for instance in instances {
        let Some(runs) = instance
            .instance
            .before
            .as_ref()
            .filter(|runs| **runs != to.sha256 && **runs != disk.sha256)
        else {
            continue;
        };
        let why = format!(
            "runs {}, but `{}` on disk is {}: neither the old nor the new config; restore that \
             file, or adopt it with `hello broadcast {}`, before this change",
            short(runs),
            path.display(),
            short(&disk.sha256),
            instance.instance.group
        );
        instance.refuse(why);
        refused.push(instance.instance.clone());
    }
}
