//! Processes that came during a run and read its targets.

use std::{cell::RefCell, collections::BTreeSet, io, path::PathBuf, sync::Arc};

use crate::{
    event::{Direction, Event, Failure, INTERRUPTED, Interrupts, Outcome},
    fleet::Group,
    host::{
        discover::{
            self,
            found::{Config, Found},
            new_processes::NewProcesses,
        },
        local::{failed::not_proven, host::LocalHost},
        parallel::admission::Slot,
        reload::successor::prove,
    },
    kernel::pids,
    step::{PlannedInstance, Step},
};

/// The kernel does not list the processes that came during a run.
#[derive(Debug, thiserror::Error)]
#[error("cannot list the processes that came during the run: {0}")]
pub struct NewcomersError(#[from] io::Error);

impl LocalHost {
    /// Finds the matches that came after the survey and read a target of `steps`, and proves each
    /// of them on the content that its step installs. Returns all of them with their outcomes.
    ///
    /// # Errors
    /// Fails if the kernel does not list the processes.
    pub(crate) async fn newcomers(
        &self,
        steps: &[&Step],
        direction: Direction,
        interrupts: &mut Interrupts,
        emit: &mut impl FnMut(Event),
    ) -> Result<Vec<PlannedInstance>, NewcomersError> {
        // No process is signalled here: a run that was interrupted before goes on to its end.
        let patience = direction
            .tolerated_interrupts()
            .max((*interrupts.borrow()).min(1));
        let present = pids()?;
        if present.into_iter().all(|pid| self.surveyed.was_there(pid)) {
            return Ok(Vec::new());
        }
        let mut newcomers = Vec::new();
        for planned in self.new_matches().await {
            let newcomer = self
                .prove_newcomer(planned, steps, direction, (interrupts, patience))
                .await;
            if let Some(planned) = newcomer {
                emit(Event::of(&planned.instance));
                newcomers.push(planned);
            }
        }
        Ok(newcomers)
    }

    /// Finds the matches of all groups that came after the survey.
    async fn new_matches(&self) -> Vec<(PlannedInstance, Found)> {
        let newest = NewProcesses::look(&self.surveyed);
        let mut new = Vec::new();
        let mut known = BTreeSet::new();
        for group in self
            .groups
            .iter()
            .filter(|g| g.instances.is_empty() && newest.may_have(g))
        {
            // A worker that lost its leader meanwhile looks like a newcomer, and was there before.
            let is_new = |f: &Found| {
                !self.limits.is_known((f.pid, f.started))
                    && self.surveyed.is_before(f.pid, f.started)
            };
            let found = newest.scan().find(group).await.found.into_iter();
            // A process that two groups match belongs to the first.
            let found = found.filter(is_new).filter(|f| known.insert(f.pid));
            new.extend(found.map(|f| (group, f)));
        }
        // They may share an address with each other, and are no foreign listeners.
        self.limits
            .add_known(new.iter().map(|(_, f)| (f.pid, f.started)));
        let planned = |(group, found): (&Arc<Group>, Found)| {
            let instance = found.instance(&group.name);
            let mut planned = PlannedInstance::new(instance, group.clone(), found.args.clone());
            planned.identity = found.identity(group);
            (planned, found)
        };
        new.into_iter().map(planned).collect()
    }

    /// Proves a new process on the content of its step. None if it reads no target of `steps`, or
    /// has ended.
    async fn prove_newcomer(
        &self,
        (mut planned, mut found): (PlannedInstance, Found),
        steps: &[&Step],
        direction: Direction,
        (interrupts, patience): (&mut Interrupts, u8),
    ) -> Option<PlannedInstance> {
        let outcome = not_proven(direction);
        let failure = |text: String| Failure {
            kind: outcome.into(),
            text,
        };
        let paths = discover::ConfigPaths::default();
        match discover::configs_of(&found, &planned.group, &paths).await {
            Ok(configs) => found.configs = configs,
            Err(why) => {
                planned.fail(outcome, failure(why.to_string()));
                return Some(planned);
            }
        }
        planned.instance = found.instance(&planned.group.name);
        let step = steps.iter().find(|step| reads(&found.configs, step))?;
        let slot = Slot::default();
        let signalled = RefCell::default();
        let context = self.proof_context(&step.changes, step.direction, &slot, &signalled);
        let result = tokio::select! {
            result = prove(&found, &planned, context, planned.timeout, &self.limits) => result,
            Ok(_) = interrupts.wait_for(|count| *count > patience) => {
                Err(failure(INTERRUPTED.into()))
            }
        };
        match result {
            Ok(proven) => Some(proven),
            // A validator, or another command of the same program: it runs no config any more.
            Err(failure) if failure.kind.outcome() == Outcome::Died => None,
            Err(failure) => {
                planned.fail(outcome, failure);
                Some(planned)
            }
        }
    }
}

/// Tells whether a process with these configs reads a target of `step`. One without any config is
/// only signalled, and belongs to the first step.
fn reads(configs: &[Config], step: &Step) -> bool {
    let is_read = |path: &PathBuf| configs.iter().any(|config| config.path == *path);
    configs.is_empty() || step.changes.iter().any(|change| is_read(&change.path))
}
