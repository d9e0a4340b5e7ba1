//! One machine and its verbs, each over a batch: survey, prepare, commit, check. Locks, staged
//! files and pidfds belong to one machine, and stay with its host.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

pub(crate) use self::exec::gate::{LIMIT as GATE_LIMIT, run as run_gate};
use self::{local::check::Recheck, target::install};
pub use self::{
    local::{
        host::{LateEdits, LocalHost, SurveyRequest},
        newcomers::NewcomersError,
    },
    target::lock::Intent,
};
use crate::{
    event::{Abort, Direction, Event, Interrupts},
    fleet::Group,
    runs::Staging,
    step::{PlannedInstance, Step, Survey, TargetChange},
};

pub(crate) mod discover;
pub(crate) mod exec;
pub(crate) mod local;
pub(crate) mod net;
pub(crate) mod parallel;
pub(crate) mod probe;
pub(crate) mod proc;
pub(crate) mod reload;
pub mod store;
pub(crate) mod target;
pub(crate) mod validate;

/// A machine.
#[derive(Debug)]
pub enum Host {
    /// This one.
    Local(LocalHost),
    /// A host whose answers a test has set.
    #[cfg(test)]
    Script(local::script::ScriptHost),
}

impl Host {
    /// Returns this machine, for the run named `run`.
    #[must_use]
    pub fn local(run: &str) -> Self {
        Self::Local(LocalHost::new(run))
    }

    /// Finds the instances of `groups`, locks and reads each target, probes each instance, and
    /// applies the guards. Changes no target, and signals no process.
    pub async fn survey(&mut self, groups: &[Arc<Group>], request: SurveyRequest<'_>) -> Survey {
        match self {
            Self::Local(host) => host.survey(groups, request).await,
            #[cfg(test)]
            Self::Script(_) => Survey::default(),
        }
    }

    /// Stages every candidate beside its target, validates it once per distinct executable, and
    /// checks that it can be installed. Changes no target, and signals no process.
    ///
    /// # Errors
    /// Fails with the first target or instance that is not ready, as `Invalid`, `Refused` or
    /// `Failed`.
    pub async fn prepare(
        &mut self,
        steps: &mut [&mut Step],
        strict: bool,
        interrupts: &mut Interrupts,
        emit: &mut impl FnMut(Event),
    ) -> Result<(), Abort> {
        match self {
            Self::Local(host) => host.prepare(steps, strict, interrupts, emit).await,
            #[cfg(test)]
            Self::Script(_) => Ok(()),
        }
    }

    /// Installs each target, then signals and confirms every instance, and records its outcome. A
    /// rollback is the same over flipped steps.
    ///
    /// # Errors
    /// Fails if a target could not be installed. A forward run has then sent no signal. A rollback
    /// has gone on with the other targets.
    pub async fn commit(
        &mut self,
        steps: &mut [Step],
        interrupts: &mut Interrupts,
        emit: &mut impl FnMut(Event),
    ) -> Result<(), Abort> {
        match self {
            Self::Local(host) => host.commit(steps, interrupts, emit).await,
            #[cfg(test)]
            Self::Script(host) => host.commit(steps, interrupts, emit),
        }
    }

    /// Checks, without a signal, every instance whose outcome claims which config it runs. An
    /// instance that does not prove that any more gets a failure. `recheck` selects the instances
    /// that are probed; all others must only live. More interrupts than `patience` end the wait.
    /// Returns whether every probed instance was waited for.
    pub async fn check(
        &mut self,
        steps: &mut [&mut Step],
        recheck: Recheck,
        (interrupts, patience): (&mut Interrupts, u8),
        emit: &mut impl FnMut(Event),
    ) -> bool {
        match self {
            Self::Local(host) => {
                host.check(steps, recheck, (interrupts, patience), emit)
                    .await
            }
            #[cfg(test)]
            Self::Script(host) => {
                host.check(steps, recheck, emit);
                true
            }
        }
    }

    /// Finds the matches that came after the survey and read a target of `steps`, and proves each
    /// on its present content. Returns them with their outcomes. An interrupt ends the wait.
    ///
    /// # Errors
    /// Fails if the processes cannot be listed.
    pub async fn newcomers(
        &self,
        steps: &[&Step],
        direction: Direction,
        interrupts: &mut Interrupts,
        emit: &mut impl FnMut(Event),
    ) -> Result<Vec<PlannedInstance>, NewcomersError> {
        match self {
            Self::Local(host) => host.newcomers(steps, direction, interrupts, emit).await,
            #[cfg(test)]
            Self::Script(_) => Ok(Vec::new()),
        }
    }

    /// Records staged files in `staging` from now on, so that a later run can remove the remains.
    pub fn record_in(&mut self, staging: Staging) {
        match self {
            Self::Local(host) => host.staging = Arc::new(staging),
            #[cfg(test)]
            Self::Script(_) => {}
        }
    }

    /// Sets what another run says of this one if it finds the locks of this run held.
    pub fn note_in_locks(&mut self, note: String) {
        match self {
            Self::Local(host) => host.note = note,
            #[cfg(test)]
            Self::Script(_) => {}
        }
    }

    /// Adds a note to the operator.
    pub fn note(&mut self, event: Event) {
        match self {
            Self::Local(host) => host.notes.push(event),
            #[cfg(test)]
            Self::Script(_) => {}
        }
    }

    /// Returns the notes to the operator so far.
    #[must_use]
    pub fn notes(&self) -> &[Event] {
        match self {
            Self::Local(host) => &host.notes,
            #[cfg(test)]
            Self::Script(_) => &[],
        }
    }

    /// Reads the old files again that this run has exchanged away, and returns later edits in them.
    pub fn late_edits(&mut self) -> LateEdits {
        match self {
            Self::Local(host) => LateEdits {
                late: host
                    .targets
                    .values_mut()
                    .flat_map(install::Target::late_edits)
                    .map(|late| (late.path, late.what, late.bytes))
                    .collect(),
                not_held: host.held_files.not_held,
            },
            #[cfg(test)]
            Self::Script(_) => LateEdits::default(),
        }
    }

    /// Removes every staged file of this run. Returns those that stay, each with the reason.
    pub fn clear(&mut self) -> Vec<(PathBuf, String)> {
        match self {
            Self::Local(host) => {
                let stays = host
                    .targets
                    .values_mut()
                    .flat_map(install::Target::clear)
                    .collect();
                host.staging.end();
                stays
            }
            #[cfg(test)]
            Self::Script(_) => Vec::new(),
        }
    }

    /// Ends the watch on the openings of the targets: no instance is signalled any more. The kernel
    /// takes up to 30 ms to end it, and an exit of this process would wait for that.
    pub(crate) fn end_watch(&mut self) {
        match self {
            Self::Local(host) => host.openings = reload::opened::Openings::default(),
            #[cfg(test)]
            Self::Script(_) => {}
        }
    }

    /// Returns the digest of the present content of a target. None if it cannot be read.
    #[must_use]
    pub fn disk_digest(&self, path: &Path) -> Option<String> {
        match self {
            Self::Local(host) => host.targets.get(path)?.digest(),
            #[cfg(test)]
            Self::Script(host) => host.files.get(path).cloned(),
        }
    }

    /// Returns the time of the last change of a target in any way, in nanoseconds since 1970. None
    /// if it cannot be read.
    #[must_use]
    pub fn ctime(&self, path: &Path) -> Option<i128> {
        match self {
            Self::Local(host) => host.targets.get(path)?.ctime(),
            #[cfg(test)]
            Self::Script(_) => None,
        }
    }

    /// Returns the revision of a key after this run's last write; none of any other target, and of
    /// a key that was not written.
    #[must_use]
    pub fn own_revision(&self, path: &Path) -> Option<String> {
        match self {
            Self::Local(host) if self.is_installed(path) => host.revision(path),
            Self::Local(_) => None,
            #[cfg(test)]
            Self::Script(_) => None,
        }
    }

    /// Returns the digest of the other files that are read through a target, such as includes, as
    /// they were before its instances were signalled.
    #[must_use]
    pub fn behind(&self, path: &Path) -> Option<String> {
        match self {
            Self::Local(host) => host.follows.get(path)?.behind.clone(),
            #[cfg(test)]
            Self::Script(_) => None,
        }
    }

    /// Tells whether a target of `step` still has its old content. It must be installed then, even
    /// if no instance gets a signal.
    #[must_use]
    pub fn needs_install(&self, step: &Step) -> bool {
        let is_behind = |s: &TargetChange| {
            s.from.as_ref().is_some_and(|from| {
                from.sha256 != s.to.sha256
                    && self.disk_digest(&s.path).as_ref() == Some(&from.sha256)
            })
        };
        step.changes.iter().any(is_behind)
    }

    /// Tells whether this run has exchanged the target at `path`.
    #[must_use]
    pub fn is_installed(&self, path: &Path) -> bool {
        match self {
            Self::Local(host) => host
                .targets
                .get(path)
                .is_some_and(install::Target::is_exchanged),
            #[cfg(test)]
            Self::Script(host) => host.installed.contains(path),
        }
    }
}
