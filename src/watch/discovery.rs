//! Which processes and which subjects a group has now.

use std::{collections::BTreeSet, io, path::PathBuf, sync::Arc};

use super::subject::{KeySubject, Subject};
use crate::{
    fleet::{ContentSource, Fleet, Group, Key},
    host::{
        discover::{ConfigPaths, Scan, all_configs, found::Found},
        target::source::source_path,
    },
};

/// One group as it is now.
#[derive(Debug, Default)]
pub(super) struct Discovered {
    /// Its processes, by pid and start time.
    pub(super) instances: BTreeSet<(i32, u64)>,
    /// The subjects of those whose config is known.
    pub(super) subjects: BTreeSet<Subject>,
    /// True if the config of every process is known.
    pub(super) is_complete: bool,
}

/// Finds the processes and subjects of each group.
///
/// # Errors
/// Fails if the processes of this machine cannot be read.
pub(super) async fn discover(fleet: &Fleet) -> io::Result<Vec<Discovered>> {
    let finds = Scan::take()?.find_all(fleet.groups.iter()).await;
    let mut all = Vec::new();
    for (group, finds) in fleet.groups.iter().zip(finds) {
        let group = Arc::new(group.clone());
        let refused = finds.refused.into_iter().map(|(found, _)| found);
        let found = finds.found.into_iter().chain(refused);
        let found: Vec<(Arc<Group>, Found)> = found.map(|f| (group.clone(), f)).collect();
        let mut discovered = Discovered {
            instances: found.iter().map(|(_, f)| (f.pid, f.started)).collect(),
            subjects: BTreeSet::new(),
            is_complete: !found.is_empty(),
        };
        for configs in all_configs(&found, &ConfigPaths::default()).await {
            match configs {
                Ok(configs) => {
                    let configs = configs.into_iter();
                    let subjects = configs.flat_map(|c| subjects(&group, c.path, c.named));
                    discovered.subjects.extend(subjects);
                }
                Err(_) => discovered.is_complete = false,
            }
        }
        all.push(discovered);
    }
    Ok(all)
}

/// Returns the subjects of one target. The target counts as long as its source does not exist.
fn subjects(group: &Group, path: PathBuf, named: PathBuf) -> Vec<Subject> {
    let subject = |key: &Key| Subject::Key(KeySubject(Arc::new(key.clone())));
    if let (Some(key), None) = (group.key(), &group.source) {
        return vec![subject(key)];
    }
    let target = Subject::Path {
        named,
        includes: group.reading.includes.clone(),
    };
    let Some(source) = &group.source else {
        return vec![target];
    };
    let source = match source {
        ContentSource::Path(source) => source_path(source, &path),
        ContentSource::Key(key) => {
            return vec![subject(key)];
        }
    };
    let exists = source.symlink_metadata().is_ok();
    let source = Subject::Path {
        named: source,
        includes: Vec::new(),
    };
    if exists {
        vec![source]
    } else {
        vec![source, target]
    }
}
