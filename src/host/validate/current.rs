//! What stands on the disk of a process's targets now, and what its own validator says of it.

use std::{
    collections::HashMap,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OnceCell, Semaphore};

use crate::{
    fleet::{Group, Speaks},
    host::{
        discover::{
            self,
            found::{Config, Found},
        },
        proc::guard,
        target::{
            behind::behind,
            install::Target,
            lock::{self, LockError},
        },
        validate::{
            case::{Candidate, Key, ValidationCase},
            complaints::Complaints,
            run::ValidationError,
            verdicts::side_by_side,
        },
    },
    step::{Content, PlannedInstance},
};

/// A target as it stands.
#[derive(Debug)]
pub(crate) struct CurrentTarget {
    /// Resolved.
    pub(crate) path: PathBuf,
    /// What it is; a sentence where it cannot be read.
    pub(crate) disk: Result<Content, String>,
    /// Its last change of any kind, in nanoseconds since 1970.
    pub(crate) ctime: Option<i128>,
    /// The digest of everything that is read through it and is none of it; none where that is not
    /// known.
    pub(crate) behind: Option<String>,
    /// Whether its content must not be shown.
    pub(crate) secret: bool,
    /// True where neither the process nor the fleet names it: it is what its program reads by
    /// default.
    pub(crate) assumed: bool,
    target: Target,
    dir: Arc<OwnedFd>,
}

impl CurrentTarget {
    /// Everything that a process reads of its config, in the order of its group's `config`. No lock
    /// is taken.
    ///
    /// # Errors
    /// A sentence: it cannot be told, or must not be replaced.
    pub(crate) async fn of(found: &Found, group: &Group) -> Result<Vec<Self>, String> {
        let mut all = Vec::new();
        for Config { path, assumed } in
            discover::configs_of(found, group, &discover::ConfigPaths::default()).await?
        {
            let (_, dir) =
                lock::open(path.parent().unwrap_or(Path::new("/"))).map_err(|e| e.to_string())?;
            let target = Target::new(&path, dir.clone());
            let disk = target.read().map_err(|e| e.to_string());
            let secret = group
                .secret
                .unwrap_or_else(|| !disk.as_ref().is_ok_and(|disk| target.is_public(disk)));
            let readers: &[i32] = if group.speaks == Speaks::None {
                &[found.pid]
            } else {
                &[]
            };
            let behind = behind(&path, &group.reading.includes, readers);
            all.push(Self {
                ctime: target.ctime(),
                behind,
                path,
                disk,
                secret,
                assumed,
                target,
                dir,
            });
        }
        Ok(all)
    }

    /// Its digest.
    pub(crate) fn sha256(&self) -> Option<&str> {
        self.disk.as_ref().ok().map(|blob| blob.sha256.as_str())
    }

    /// Why a run could not replace it, or the process `pid` would not see what replaced it; nothing
    /// is written to find that out.
    pub(crate) fn replace_blocker(&self, pid: i32) -> Option<String> {
        let clings =
            || guard::keeps_directory_open(pid, &self.path).filter(|_| self.target.is_directory());
        self.target
            .replaceable()
            .err()
            .map(|e| e.to_string())
            .or_else(clings)
    }

    /// Another run that holds its lock: "another run holds the lock of `DIR`: pid 17 of uid 0:
    /// hello broadcast".
    pub(crate) fn lock_owner(&self) -> Option<String> {
        let owner = lock::blocked(&self.dir, self.path.file_name().as_slice())?;
        Some(
            LockError::Busy(self.path.parent().unwrap_or(Path::new("/")).into(), owner).to_string(),
        )
    }

    /// As it is judged, as if it were its own candidate.
    pub(crate) fn candidate(&self) -> Candidate {
        let sha256 = self.sha256().unwrap_or_default().to_owned();
        let inodes = self.target.inodes().unwrap_or_default();
        Candidate {
            live: self.path.clone(),
            staged: self.path.clone(),
            inodes,
            sha256,
            secret: self.secret,
        }
    }
}

/// What a validator said, and who it was.
type Validated = (Result<Complaints, ValidationError>, String);

/// What was said already of what stands on the disk: once for all instances that would be asked the
/// same. Different validators run side by side.
#[derive(Debug)]
pub(crate) struct ValidationCache {
    said: Answers<Validated>,
    places: Answers<Result<(), String>>,
    turns: Semaphore,
}

type Answers<T> = Mutex<HashMap<Key, Arc<OnceCell<T>>>>;

impl Default for ValidationCache {
    fn default() -> Self {
        Self {
            said: Mutex::default(),
            places: Mutex::default(),
            turns: Semaphore::new(side_by_side()),
        }
    }
}

impl ValidationCache {
    /// What the validator of the group of `member`, which has one, says of what stands at `live`.
    pub(crate) async fn of(&self, member: &PlannedInstance, live: &[CurrentTarget]) -> Validated {
        let candidates: Vec<Candidate> = live.iter().map(CurrentTarget::candidate).collect();
        let case = ValidationCase::of(member, &candidates);
        self.once(&self.said, case.key(), case.validate_case())
            .await
    }

    /// Whether it could be asked of a new content as well.
    ///
    /// # Errors
    /// Why it could not.
    pub(crate) async fn place(
        &self,
        member: &PlannedInstance,
        live: &[CurrentTarget],
    ) -> Result<(), String> {
        let candidates: Vec<Candidate> = live.iter().map(CurrentTarget::candidate).collect();
        let case = ValidationCase::of(member, &candidates);
        self.once(&self.places, case.key(), case.has_place()).await
    }

    /// Every later call for the same key waits for the first answer.
    async fn once<T: Clone>(
        &self,
        known: &Answers<T>,
        key: Key,
        ask: impl Future<Output = T>,
    ) -> T {
        let cell = known
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(key)
            .or_default()
            .clone();
        let answer = cell.get_or_init(|| async {
            let _turn = self.turns.acquire().await;
            ask.await
        });
        answer.await.clone()
    }
}
