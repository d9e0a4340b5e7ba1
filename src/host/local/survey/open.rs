//! Finds the targets of the matched processes, and opens and locks their directories.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    event::{Abort, Event, Verdict},
    fleet::{Group, url_of},
    host::{
        discover::{self, found::Found},
        local::{
            host::{LocalHost, SurveyRequest},
            refusals::refused,
        },
        target::{
            install::Target,
            lock::{self, LockError, holders::Holders},
        },
    },
    step::Survey,
};

/// A target, and the user of a process that reads it. None for a target that the request names.
type TargetReader<'a> = (&'a PathBuf, Option<u32>);

fn lock_abort(error: LockError) -> Abort {
    let verdict = match error {
        LockError::Busy(..) => Verdict::Busy,
        LockError::Swapped(..) => Verdict::Refused,
        LockError::Io(..) => Verdict::Failed,
    };
    Abort::new(verdict, error.to_string())
}

impl LocalHost {
    /// Opens the directory of every target, and locks it if the request has a `lock`. Returns the
    /// processes with the paths of their configs; refuses those whose config is not known.
    pub(super) async fn open_targets(
        &mut self,
        found: Vec<(Arc<Group>, Found)>,
        request: SurveyRequest<'_>,
        survey: &mut Survey,
    ) -> Vec<(Arc<Group>, Found)> {
        let found = with_configs(found, survey).await;
        let read = found
            .iter()
            .flat_map(|(_, f)| f.configs.iter().map(|config| (&config.path, Some(f.uid))));
        let also = request.also.iter().map(|path| (path, None));
        let mut directories: BTreeMap<PathBuf, Vec<TargetReader<'_>>> = BTreeMap::new();
        for reader in read.chain(also) {
            if url_of(reader.0).is_some() {
                self.open_key(reader);
                continue;
            }
            let directory = reader.0.parent().unwrap_or(Path::new("/"));
            let readers = directories.entry(directory.to_owned()).or_default();
            // Many instances of one user read the same target.
            if readers.last() != Some(&reader) {
                readers.push(reader);
            }
        }
        let mut holders = Holders::default();
        let deadline = tokio::time::Instant::now() + request.lock.unwrap_or_default();
        for (directory, readers) in directories {
            let opened = self
                .open_directory(
                    &directory,
                    &readers,
                    (request, deadline),
                    &mut holders,
                    survey,
                )
                .await;
            match opened {
                Ok(fd) => {
                    for (path, _) in readers {
                        self.targets
                            .entry(path.clone())
                            .or_insert_with(|| Target::new(path, fd.clone()));
                    }
                    self.dirs.insert(directory, fd);
                }
                Err(abort) => drop(survey.abort.get_or_insert(abort)),
            }
        }
        found
    }

    /// Adds a target that is a key. Nothing locks it: its writes expect a revision.
    fn open_key(&mut self, (path, uid): TargetReader<'_>) {
        let key = self
            .groups
            .iter()
            .find_map(|group| group.key().filter(|key| key.target() == *path));
        if let Some(key) = key {
            self.targets
                .entry(path.clone())
                .or_insert_with(|| Target::of_key(key, uid));
        }
    }

    /// Opens one directory of targets, and locks it if the request has a `lock`.
    async fn open_directory(
        &mut self,
        directory: &Path,
        readers: &[TargetReader<'_>],
        (request, deadline): (SurveyRequest<'_>, tokio::time::Instant),
        holders: &mut Holders,
        survey: &mut Survey,
    ) -> Result<Arc<OwnedFd>, Abort> {
        let (resolved, fd) = lock::open(directory).map_err(lock_abort)?;
        // Its name may belong to another directory since discovery checked the path.
        let users: BTreeSet<u32> = readers
            .iter()
            .filter_map(|(_, uid)| *uid)
            .filter(|uid| *uid != rustix::process::geteuid().as_raw())
            .collect();
        for uid in users {
            resolved.entries_changeable_only_by(uid).map_err(|why| {
                let text = format!("`{}` became another directory: {why}", directory.display());
                Abort::new(Verdict::Refused, text)
            })?;
        }
        if request.lock.is_some() {
            let names: BTreeSet<&OsStr> = readers
                .iter()
                .filter_map(|(path, _)| path.file_name())
                .collect();
            let names: Vec<&OsStr> = names.into_iter().collect();
            let lock_request = lock::LockRequest {
                until: deadline,
                intent: request.intent,
                names: &names,
                note: &self.note,
            };
            let locked = lock::lock(&fd, directory, lock_request, holders)
                .await
                .map_err(lock_abort)?;
            if let Some(holder) = locked.foreign.clone() {
                let event = Event::ForeignLock {
                    path: directory.into(),
                    holder,
                };
                self.notes.push(event.clone());
                survey.notes.push(event);
            }
            self.locks.push(locked);
        }
        Ok(fd)
    }
}

/// Adds the paths of its configs to each process; refuses those whose config is not known.
async fn with_configs(
    found: Vec<(Arc<Group>, Found)>,
    survey: &mut Survey,
) -> Vec<(Arc<Group>, Found)> {
    let configs = discover::all_configs(&found, &discover::ConfigPaths::default()).await;
    let mut known = Vec::new();
    for ((group, mut found), configs) in found.into_iter().zip(configs) {
        match configs {
            Ok(configs) => {
                found.configs = configs;
                known.push((group, found));
            }
            Err(why) => survey.refused.push(refused(found.instance(&group), why)),
        }
    }
    known
}
