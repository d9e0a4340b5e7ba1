//! Whether everything that an instance reads of a target is unchanged since the instance started.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use crate::{
    fleet::{PathBase, Speaks, url_of},
    host::{
        proc::guard,
        target::{behind, changed::changed_ns},
    },
    step::PlannedInstance,
};

/// Tells whether nothing has changed since the instance started: the target at `path`, the content
/// that is read through it, and the links by which the instance names it. It is false if that is
/// not known.
pub(crate) fn is_as_it_started(planned: &PlannedInstance, path: &Path) -> bool {
    // A key has no time of its last change.
    if url_of(path).is_some() {
        return false;
    }
    let instance = &planned.instance;
    let started = guard::start_time_ns(instance.started);
    let readers: &[i32] = if planned.group.speaks == Speaks::None {
        &[instance.pid]
    } else {
        &[]
    };
    let Some(content) = behind::newest(path, &planned.group.reading.includes, readers) else {
        return false;
    };
    let links = links(planned, path);
    let link_changes = links.iter().filter_map(|link| changed(link));
    link_changes.chain([content]).all(|time| time < started)
}

/// Returns the links on every path in the command line of the instance, or in `config` of its
/// group, that leads to `target` or to a directory above it.
fn links(planned: &PlannedInstance, target: &Path) -> BTreeSet<PathBuf> {
    let words = planned
        .args
        .iter()
        .flat_map(|word| paths_in(word))
        .filter(|path| !path.is_empty())
        .map(PathBuf::from);
    let configured = planned
        .group
        .config
        .iter()
        .flatten()
        .filter_map(|base| match base {
            PathBase::Path(path) => Some(path.clone()),
            _ => None,
        });
    let is_link = |path: &&Path| path.symlink_metadata().is_ok_and(|meta| meta.is_symlink());
    let mut links = BTreeSet::new();
    for named in words.chain(configured).map(|path| planned.cwd.join(path)) {
        if named
            .canonicalize()
            .is_ok_and(|end| target.starts_with(&end))
        {
            links.extend(named.ancestors().filter(is_link).map(Path::to_owned));
        }
    }
    links
}

/// Returns the paths that a word of a command line may name: `PATH`, `--config=PATH` and `-cPATH`.
fn paths_in(word: &str) -> impl Iterator<Item = &str> {
    let after_equals = word.split_once('=').map(|(_, rest)| rest);
    let from_slash = word.find('/').map(|start| &word[start..]);
    [Some(word), after_equals, from_slash].into_iter().flatten()
}

/// Returns the last change of the entry at `path`; a link is not followed.
fn changed(path: &Path) -> Option<i128> {
    path.symlink_metadata().ok().map(|meta| changed_ns(&meta))
}
