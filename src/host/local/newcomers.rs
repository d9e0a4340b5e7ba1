//! Processes that came during a run and read its targets.

use std::{cell::RefCell, collections::BTreeSet};

use crate::{
    event::{Event, Failure, INTERRUPTED, Interrupts, Outcome},
    host::{
        discover::{self, found::Found, new_processes::NewProcesses},
        local::host::LocalHost,
        parallel::admission::Slot,
        proc::kernel::pids,
        reload::{context::ProofContext, successor::prove},
    },
    step::{PlannedInstance, Step},
};

impl LocalHost {
    /// Matches that were not there at the survey and read a target of `steps`, each proven on what
    /// that step installs, or not.
    ///
    /// # Errors
    /// A sentence: the kernel does not tell which processes came.
    pub(crate) async fn newcomers(
        &self,
        steps: &[&Step],
        undo: bool,
        halts: &mut Interrupts,
        tell: &mut impl FnMut(Event),
    ) -> Result<Vec<PlannedInstance>, String> {
        let surveyed = &self.surveyed;
        // Nobody is signalled: a run that was halted already looks to its end.
        let patience = u8::from(undo).max((*halts.borrow()).min(1));
        let now =
            pids().map_err(|e| format!("which processes came during the run is not known: {e}"))?;
        if now.into_iter().all(|pid| surveyed.was_there(pid)) {
            return Ok(Vec::new());
        }
        let (newest, mut new, mut known) =
            (NewProcesses::look(surveyed), Vec::new(), BTreeSet::new());
        for group in self
            .groups
            .iter()
            .filter(|g| g.instances.is_empty() && newest.may_have(g))
        {
            // A worker that has lost its leader meanwhile looks like one, and was there.
            let came = |f: &Found| {
                !self.limits.is_known((f.pid, f.started)) && surveyed.is_before(f.pid, f.started)
            };
            let found = newest.scan.find(group).await.found.into_iter().filter(came);
            // One that two groups match belongs to the first.
            new.extend(found.filter(|f| known.insert(f.pid)).map(|f| (group, f)));
        }
        // They may share an address, and are no strangers to each other.
        self.limits
            .add_known(new.iter().map(|(_, f)| (f.pid, f.started)));
        let mut all = Vec::new();
        for (group, found) in new {
            let targets =
                discover::configs_of(&found, group, &discover::ConfigPaths::default()).await;
            let reads = |step: &&&Step| {
                targets.as_ref().is_ok_and(|t| {
                    t.is_empty()
                        || step
                            .changes
                            .iter()
                            .any(|s| t.iter().any(|config| config.path == s.path))
                })
            };
            let found = Found {
                configs: targets.clone().unwrap_or_default(),
                ..found
            };
            let mut member = PlannedInstance::new(
                found.instance(&group.name),
                group.clone(),
                found.args.clone(),
            );
            member.identity = found.identity(group);
            let state = if undo {
                Outcome::RevertFailed
            } else {
                Outcome::TimedOut
            };
            match steps.iter().find(reads) {
                Some(step) => {
                    let fresh = ProofContext {
                        changes: &step.changes,
                        since: &self.since,
                        surveyed,
                        undo: step.undo,
                        slot: &Slot::default(),
                        mark_signalled: &RefCell::default(),
                        targets: &self.targets,
                        openings: &self.openings,
                    };
                    let proof = prove(&found, &member, fresh, member.timeout, &self.limits);
                    let said = tokio::select! {
                        said = proof => said,
                        Ok(_) = halts.wait_for(|n| *n > patience) => {
                            Err(Failure { kind: state.into(), text: INTERRUPTED.into() })
                        }
                    };
                    match said {
                        Ok(proven) => member = proven,
                        // Somebody's validator, or another command of the same program: it runs no
                        // config any more.
                        Err(trouble) if trouble.kind.outcome() == Outcome::Died => continue,
                        Err(trouble) => member.fail(state, trouble),
                    }
                }
                // Another config than that of the run is no business of it.
                None if targets.is_ok() => continue,
                None => member.fail(
                    state,
                    Failure {
                        kind: state.into(),
                        text: targets.err().unwrap_or_default(),
                    },
                ),
            }
            tell(Event::of(&member.instance));
            all.push(member);
        }
        Ok(all)
    }
}
