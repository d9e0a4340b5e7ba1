//! Whether everything that an instance has read of a target stands there as it did when the
//! instance started.

use std::{
    collections::BTreeSet,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    fleet::{PathBase, Speaks},
    host::{proc::guard, target::behind},
    step::PlannedInstance,
};

/// Whether nothing has changed since the instance started: the target at `path`, what is read
/// through it, and the links by which the instance names it. False where that is not known.
pub(crate) fn is_as_it_started(member: &PlannedInstance, path: &Path) -> bool {
    let i = &member.instance;
    let Some(born) = guard::start_time_ns(i.pid) else {
        return false;
    };
    let readers: &[i32] = if member.group.speaks == Speaks::None {
        &[i.pid]
    } else {
        &[]
    };
    let content = || behind::newest(path, &member.group.reading.includes, readers);
    let links = || {
        links(member, path)
            .iter()
            .filter_map(|link| changed(link))
            .max()
            .unwrap_or(i128::MIN)
    };
    content().is_some_and(|newest| newest.max(links()) < born)
}

/// The links on every path that the command line of the instance, or the `config` of its group,
/// names, and that leads to `target` or to a directory above it.
fn links(member: &PlannedInstance, target: &Path) -> BTreeSet<PathBuf> {
    // `--config=PATH` and `-cPATH` name one as well.
    let of_word = |word: &'_ String| {
        [
            Some(word.as_str()),
            word.split_once('=').map(|(_, rest)| rest),
            word.find('/').map(|at| &word[at..]),
        ]
        .map(|w| w.map(PathBuf::from))
    };
    let words = member
        .args
        .iter()
        .flat_map(of_word)
        .flatten()
        .filter(|word| !word.as_os_str().is_empty());
    let fixed = member.group.config.iter().flatten().filter_map(|place| {
        if let PathBase::Path(path) = place {
            Some(path.clone())
        } else {
            None
        }
    });
    let mut links = BTreeSet::new();
    for named in words.chain(fixed).map(|word| member.cwd.join(word)) {
        if !named
            .canonicalize()
            .is_ok_and(|end| target.starts_with(&end))
        {
            continue;
        }
        let is_link = |path: &&Path| path.symlink_metadata().is_ok_and(|meta| meta.is_symlink());
        links.extend(named.ancestors().filter(is_link).map(Path::to_owned));
    }
    links
}

/// The last change of what stands at `path` itself, in nanoseconds since 1970.
fn changed(path: &Path) -> Option<i128> {
    let meta = path.symlink_metadata().ok()?;
    Some(i128::from(meta.ctime()) * 1_000_000_000 + i128::from(meta.ctime_nsec()))
}
