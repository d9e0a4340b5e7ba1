//! One machine and its verbs, each over a batch: survey, prepare, commit, read back. What cannot
//! travel (locks, staged files, pidfds) stays with its host.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use self::{exec::gate, local::check::Recheck, target::install};
pub use self::{
    local::host::{LateEdits, LocalHost, SurveyRequest},
    target::lock::Intent,
};
use crate::{
    event::{Abort, Event, Instance, Interrupts},
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
pub(crate) mod target;
pub(crate) mod validate;

/// A machine.
#[derive(Debug)]
pub enum Host {
    /// This one.
    Local(LocalHost),
    /// One whose every answer a test has written down.
    #[cfg(test)]
    Script(local::script::ScriptHost),
}

impl Host {
    /// This machine, for the run named `run`.
    #[must_use]
    pub fn local(run: &str) -> Self {
        Self::Local(LocalHost::new(run))
    }

    /// Finds the instances of `groups`; locks each target, then reads it; asks what each instance
    /// runs; holds it against the guards. Touches nothing.
    pub async fn survey(&mut self, groups: &[Arc<Group>], look: SurveyRequest<'_>) -> Survey {
        match self {
            Self::Local(host) => host.survey(groups, look).await,
            #[cfg(test)]
            Self::Script(_) => Survey::default(),
        }
    }

    /// Stages every target beside the live file and validates it, once per distinct executable;
    /// proves that install can succeed. Touches nothing live.
    ///
    /// # Errors
    /// The first that is not ready: `Invalid`, `Refused`, or `Failed`.
    pub async fn prepare(
        &mut self,
        steps: &mut [&mut Step],
        strict: bool,
        halts: &mut Interrupts,
        tell: &mut impl FnMut(Event),
    ) -> Result<(), Abort> {
        match self {
            Self::Local(host) => host.prepare(steps, strict, halts, tell).await,
            #[cfg(test)]
            Self::Script(_) => Ok(()),
        }
    }

    /// Installs each target, then hangs up and confirms every instance. Where each is afterwards
    /// stands in its state. An undo is this, over flipped steps.
    ///
    /// # Errors
    /// A target could not be installed; no signal was sent then.
    pub async fn commit(
        &mut self,
        steps: &mut [Step],
        halts: &mut Interrupts,
        tell: &mut impl FnMut(Event),
    ) -> Result<(), Abort> {
        match self {
            Self::Local(host) => host.commit(steps, halts, tell).await,
            #[cfg(test)]
            Self::Script(host) => host.commit(steps, halts, tell),
        }
    }

    /// Looks again, without a signal, at every instance whose state says what it runs: one that
    /// does not show it any more has its trouble then. `ask` says which are asked; the others must
    /// live. An interrupt past `patience` ends the wait. Returns whether each has answered that was
    /// asked.
    pub async fn check(
        &mut self,
        steps: &mut [&mut Step],
        ask: Recheck,
        (halts, patience): (&mut Interrupts, u8),
        tell: &mut impl FnMut(Event),
    ) -> bool {
        match self {
            Self::Local(host) => host.check(steps, ask, (halts, patience), tell).await,
            #[cfg(test)]
            Self::Script(host) => {
                host.check(steps, ask, tell);
                true
            }
        }
    }

    /// Runs a command of the operator's that judges a wave, at most [`gate::LIMIT`]; `instances`
    /// are those of the wave. A halt ends it.
    pub async fn gate(
        &self,
        argv: &[String],
        run: &str,
        wave: usize,
        instances: &[&Instance],
        halts: &mut Interrupts,
    ) -> gate::GateOutcome {
        match self {
            Self::Local(_) => gate::ask(argv, run, wave, instances, halts).await,
            #[cfg(test)]
            Self::Script(host) => host.gate(argv, wave),
        }
    }

    /// Matches that were not there at the survey and read a target of `steps`: each is proven on
    /// what that is now, or not. A halt ends the wait.
    ///
    /// # Errors
    /// A sentence: whether there are any is not known.
    pub async fn newcomers(
        &self,
        steps: &[&Step],
        undo: bool,
        halts: &mut Interrupts,
        tell: &mut impl FnMut(Event),
    ) -> Result<Vec<PlannedInstance>, String> {
        match self {
            Self::Local(host) => host.newcomers(steps, undo, halts, tell).await,
            #[cfg(test)]
            Self::Script(_) => Ok(Vec::new()),
        }
    }

    /// Writes down in `staging` what it stages, so that a later run can remove what is left of it.
    pub fn record_in(&mut self, staging: Staging) {
        match self {
            Self::Local(host) => host.staging = Arc::new(staging),
            #[cfg(test)]
            Self::Script(_) => {}
        }
    }

    /// Takes in something that the operator should know.
    pub fn note(&mut self, event: Event) {
        match self {
            Self::Local(host) => host.notes.push(event),
            #[cfg(test)]
            Self::Script(_) => {}
        }
    }

    /// What the operator should know, until now.
    #[must_use]
    pub fn notes(&self) -> &[Event] {
        match self {
            Self::Local(host) => &host.notes,
            #[cfg(test)]
            Self::Script(_) => &[],
        }
    }

    /// Looks once more at everything that this run has exchanged away.
    pub fn late_edits(&mut self) -> LateEdits {
        match self {
            Self::Local(host) => LateEdits {
                late: host
                    .targets
                    .values_mut()
                    .flat_map(install::Target::late)
                    .map(|late| (late.path, late.what, late.bytes))
                    .collect(),
                not_held: host.held.not,
            },
            #[cfg(test)]
            Self::Script(_) => LateEdits::default(),
        }
    }

    /// Removes everything that this run has staged; answers what stays, with the reason.
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

    /// Digest of what stands at a target now; none when it cannot be read.
    #[must_use]
    pub fn disk_digest(&self, path: &Path) -> Option<String> {
        match self {
            Self::Local(host) => host.targets.get(path)?.digest(),
            #[cfg(test)]
            Self::Script(host) => host.files.get(path).cloned(),
        }
    }

    /// When what stands at a target was last changed in any way, in nanoseconds since 1970; none
    /// when it cannot be read.
    #[must_use]
    pub fn ctime(&self, path: &Path) -> Option<i128> {
        match self {
            Self::Local(host) => host.targets.get(path)?.ctime(),
            #[cfg(test)]
            Self::Script(_) => None,
        }
    }

    /// The digest of everything that is read through a target and is none of it, as it was before
    /// its instances were signalled.
    #[must_use]
    pub fn behind(&self, path: &Path) -> Option<String> {
        match self {
            Self::Local(host) => host.follows.get(path)?.behind.clone(),
            #[cfg(test)]
            Self::Script(_) => None,
        }
    }

    /// Whether a target of `step` is still what it was: there is work though nobody may get a
    /// signal.
    #[must_use]
    pub fn needs_install(&self, step: &Step) -> bool {
        let lags = |s: &TargetChange| {
            s.from.as_ref().is_some_and(|from| {
                from.sha256 != s.to.sha256
                    && self.disk_digest(&s.path).as_ref() == Some(&from.sha256)
            })
        };
        step.changes.iter().any(lags)
    }

    /// Whether this run has exchanged the target at `path`.
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
