//! The present content of a process's targets, and the result of its own validator for it.

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
            self, ConfigRefusal,
            found::{Config, Found},
        },
        proc::guard::{self, KeptOpen},
        target::{
            behind::behind,
            install::{InstallError, Target},
            lock::{self, LockError},
        },
        validate::{
            case::{CacheKey, Candidate, ValidationCase},
            complaints::Complaints,
            run::ValidationError,
            verdicts::max_parallel,
        },
    },
    refusal::Refusal,
    runtime::off_thread,
    step::{Content, PlannedInstance},
};

/// Why the targets of a process are not known, or must not be replaced.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetsError {
    #[error(transparent)]
    Config(#[from] Box<ConfigRefusal>),
    #[error(transparent)]
    Directory(#[from] LockError),
}

impl TargetsError {
    /// Returns the error for a report, with what helps.
    pub(crate) fn reported(&self) -> Refusal {
        match self {
            Self::Config(refusal) => refusal.reported(),
            Self::Directory(e) => e.to_string().into(),
        }
    }
}

/// Why a run could not replace a target, or a process would not see its new content.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReplaceBlocker {
    #[error(transparent)]
    Install(#[from] InstallError),
    #[error(transparent)]
    KeptOpen(#[from] Refusal<KeptOpen>),
}

impl ReplaceBlocker {
    /// Returns the error for a report, with what helps.
    pub(crate) fn reported(&self) -> Refusal {
        match self {
            Self::Install(e) => e.reported(),
            Self::KeptOpen(refusal) => refusal.reported(),
        }
    }
}

/// A target with its present content.
#[derive(Debug)]
pub(crate) struct CurrentTarget {
    /// The path, resolved; the URL of a key.
    pub(crate) path: PathBuf,
    /// The revision of a key; none of a file or directory.
    pub(crate) rev: Option<String>,
    /// The content, or why it cannot be read.
    pub(crate) disk: Result<Content, InstallError>,
    /// The time of the last change of any kind, in nanoseconds since 1970.
    pub(crate) ctime: Option<i128>,
    /// The digest of the other files that are read through the target. None if it is not known.
    pub(crate) behind: Option<String>,
    /// True if the content must not be shown.
    pub(crate) secret: bool,
    /// True if neither the process nor the fleet names the path: it is a default of the program.
    pub(crate) assumed: bool,
    target: Target,
    /// The directory of a file; none of a key.
    dir: Option<Arc<OwnedFd>>,
}

impl CurrentTarget {
    /// Reads every target of a process, in the order of its group's `config`. Takes no lock.
    ///
    /// # Errors
    /// Fails if the targets are not known, or must not be replaced.
    pub(crate) async fn of(found: &Found, group: &Group) -> Result<Vec<Self>, TargetsError> {
        let paths = discover::ConfigPaths::default();
        let configs = discover::configs_of(found, group, &paths).await?;
        if let Some(key) = group.key() {
            let target = Target::of_key(key, Some(found.uid));
            let secret = group.secret;
            // A store may answer late, so this thread only waits.
            return Ok(vec![
                off_thread(move || Self::read_key(target, secret)).await,
            ]);
        }
        configs
            .into_iter()
            .map(|config| Self::read(config, found, group))
            .collect()
    }

    /// Reads a key, and writes its value where a validator can read it. A group may say whether it
    /// is a secret.
    fn read_key(mut target: Target, secret: Option<bool>) -> Self {
        let disk = target.survey();
        let secret =
            secret.unwrap_or_else(|| !disk.as_ref().is_ok_and(|disk| target.is_public(disk)));
        let disk = disk.and_then(|value| target.copy(&value, secret, "look").map(|()| value));
        Self {
            path: target.path().to_owned(),
            rev: target.revision().map(str::to_owned),
            ctime: target.ctime(),
            behind: None,
            disk,
            secret,
            assumed: false,
            target,
            dir: None,
        }
    }

    fn read(config: Config, found: &Found, group: &Group) -> Result<Self, TargetsError> {
        let Config { path, assumed, .. } = config;
        let (_, dir) = lock::open(parent(&path))?;
        let target = Target::new(&path, dir.clone());
        let disk = target.read();
        let secret = group
            .secret
            .unwrap_or_else(|| !disk.as_ref().is_ok_and(|disk| target.is_public(disk)));
        // A process that speaks the protocol reports what it has read.
        let readers: &[i32] = if group.speaks == Speaks::None {
            &[found.pid]
        } else {
            &[]
        };
        Ok(Self {
            rev: None,
            ctime: target.ctime(),
            behind: behind(&path, &group.reading.includes, readers),
            path,
            disk,
            secret,
            assumed,
            target,
            dir: Some(dir),
        })
    }

    /// Returns the digest of the content, if it can be read.
    pub(crate) fn sha256(&self) -> Option<&str> {
        self.disk
            .as_ref()
            .ok()
            .map(|content| content.sha256.as_str())
    }

    /// Returns why a run could not replace the target, or why the process `pid` would not see the
    /// new content. Writes nothing.
    pub(crate) fn replace_blocker(&self, pid: i32) -> Option<ReplaceBlocker> {
        if let Err(e) = self.target.replaceable() {
            return Some(e.into());
        }
        guard::keeps_directory_open(pid, &self.path)
            .filter(|_| self.target.is_directory())
            .map(ReplaceBlocker::from)
    }

    /// Returns the run that holds the lock of the target, as a sentence such as "another run holds
    /// the lock of `DIR`: pid 17 of uid 0: hello broadcast".
    pub(crate) fn lock_owner(&self) -> Option<String> {
        let owner = lock::blocked(self.dir.as_ref()?, self.path.file_name().as_slice())?;
        Some(LockError::Busy(parent(&self.path).into(), owner).to_string())
    }

    /// Tells whether a validator could read the content. That of a key must have been read before.
    pub(crate) fn has_file(&self) -> bool {
        self.target.live_file().is_some()
    }

    /// Returns the target as its own candidate.
    pub(crate) fn candidate(&self) -> Candidate {
        let file = self.target.live_file().unwrap_or(&self.path);
        Candidate {
            target: self.path.clone(),
            live: file.to_owned(),
            staged: file.to_owned(),
            inodes: self.target.inodes().unwrap_or_default(),
            sha256: self.sha256().unwrap_or_default().to_owned(),
            source: None,
            secret: self.secret,
        }
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// The result of a validator, and its command.
type Validated = (Result<Complaints, ValidationError>, String);

/// A map from keys to results, each of which is computed once.
type Results<T> = Mutex<HashMap<CacheKey, Arc<OnceCell<T>>>>;

/// The results of validators for the present content of targets, shared by all instances with equal
/// keys. Different validators run in parallel.
#[derive(Debug)]
pub(crate) struct ValidationCache {
    validations: Results<Validated>,
    binds: Results<Result<(), ValidationError>>,
    permits: Semaphore,
}

impl Default for ValidationCache {
    fn default() -> Self {
        Self {
            validations: Mutex::default(),
            binds: Mutex::default(),
            permits: Semaphore::new(max_parallel()),
        }
    }
}

impl ValidationCache {
    /// Returns the result of the group's validator, which must exist, for the present content.
    pub(crate) async fn of(
        &self,
        planned: &PlannedInstance,
        targets: &[CurrentTarget],
    ) -> Validated {
        let candidates: Vec<Candidate> = targets.iter().map(CurrentTarget::candidate).collect();
        let case = ValidationCase::of(planned, &candidates);
        self.once(&self.validations, case.key(), case.validate_case())
            .await
    }

    /// Checks that the validator could run for new content too.
    ///
    /// # Errors
    /// Fails if it could not.
    pub(crate) async fn can_bind(
        &self,
        planned: &PlannedInstance,
        targets: &[CurrentTarget],
    ) -> Result<(), ValidationError> {
        let candidates: Vec<Candidate> = targets.iter().map(CurrentTarget::candidate).collect();
        let case = ValidationCase::of(planned, &candidates);
        self.once(&self.binds, case.key(), case.can_bind()).await
    }

    /// Returns the result for `key`. Later calls with the same key wait for the first one.
    async fn once<T: Clone>(
        &self,
        results: &Results<T>,
        key: CacheKey,
        compute: impl Future<Output = T>,
    ) -> T {
        let cell = results
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(key)
            .or_default()
            .clone();
        let result = cell.get_or_init(|| async {
            let _permit = self.permits.acquire().await;
            compute.await
        });
        result.await.clone()
    }
}
