//! Processes that came during a run and read its targets.

use std::{cell::RefCell, collections::BTreeSet, io, path::PathBuf, sync::Arc};

use crate::{
    event::{Direction, Event, Failure, INTERRUPTED, Interrupts, Outcome},
    fleet::Group,
    host::{
        discover::{
            self,
            found::{Config, Finds, Found},
            new_processes::NewProcesses,
        },
        local::{failed::not_proven, host::LocalHost},
        parallel::admission::Slot,
        proc::guard,
        reload::successor::prove,
    },
    kernel::{pids, unread_hint},
    step::{PlannedInstance, Step},
};

/// Why the processes that came during a run are not known.
#[derive(Debug, thiserror::Error)]
pub enum NewcomersError {
    /// The kernel does not list the processes.
    #[error(
        "cannot list the processes that came during the run: {0}; {hint}",
        hint = unread_hint(.0)
    )]
    List(#[from] io::Error),
    /// No process can be read.
    #[error(
        "cannot read the processes that came during the run: {0}; {hint}",
        hint = unread_hint(.0)
    )]
    Read(io::Error),
    /// It cannot be read whether this process, or any where the pid is 0, is one of the group.
    #[error(
        "cannot tell which processes of group `{group}` came during the run: {}{why}; look for \
         them with `hello status`",
        subject(*.pid)
    )]
    Group {
        /// The name of the group.
        group: String,
        /// The process, or 0.
        pid: i32,
        /// Why; the process is the subject.
        why: String,
    },
}

/// Returns the subject of a reason: the process, or nothing if the pid is 0.
fn subject(pid: i32) -> String {
    if pid == 0 {
        String::new()
    } else {
        format!("pid {pid} ")
    }
}

/// A match that came after the survey, and why it prevents a reload, if it does.
type NewMatch = (PlannedInstance, Found, Option<String>);

impl LocalHost {
    /// Finds the matches that came after the survey and read a target of `steps`, and proves each
    /// of them on the content that its step installs. Returns all of them with their outcomes.
    ///
    /// # Errors
    /// Fails if the kernel does not list the processes, or if one of them cannot be read.
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
        for planned in self.new_matches().await? {
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
    async fn new_matches(&self) -> Result<Vec<NewMatch>, NewcomersError> {
        let newest = NewProcesses::look(&self.surveyed)?;
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
            let finds = newest.scan().find(group).await;
            check_read(&finds, &group.name, |pid| self.surveyed.is_new(pid))?;
            let refused = finds.refused.into_iter();
            let found = finds.found.into_iter().map(|f| (f, None));
            let matches = found.chain(refused.map(|(f, why)| (f, Some(why.to_string()))));
            // A process that two groups match belongs to the first.
            let matches = matches.filter(|(f, _)| is_new(f) && known.insert(f.pid));
            new.extend(matches.map(|(f, why)| (group, f, why)));
        }
        // They may share an address with each other, and are no foreign listeners.
        self.limits
            .add_known(new.iter().map(|(_, f, _)| (f.pid, f.started)));
        let planned = |(group, found, why): (&Arc<Group>, Found, Option<String>)| {
            let instance = found.instance(group);
            let mut planned = PlannedInstance::new(instance, group.clone(), found.args.clone());
            planned.identity = found.identity(group);
            (planned, found, why)
        };
        Ok(new.into_iter().map(planned).collect())
    }

    /// Proves a new process on the content of its step. None if it reads no target of `steps`, or
    /// has ended.
    async fn prove_newcomer(
        &self,
        (mut planned, mut found, refused): NewMatch,
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
        planned.instance = found.instance(&planned.group);
        let step = steps.iter().find(|step| reads(&found.configs, step))?;
        if let Some(why) = refused {
            let instance = &planned.instance;
            if guard::is_over(instance.pid, instance.started, &instance.exe) {
                return None;
            }
            planned.fail(outcome, failure(why));
            return Some(planned);
        }
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

/// Checks that every new process could be compared with the group; `is_new` tells of a pid whether
/// it came after the survey.
///
/// # Errors
/// Fails with the first one that could not.
fn check_read(
    finds: &Finds,
    group: &str,
    is_new: impl Fn(i32) -> bool,
) -> Result<(), NewcomersError> {
    if let Some(e) = &finds.blind {
        return Err(NewcomersError::Read(copy_of(e)));
    }
    let missing = finds.missing.iter();
    let skipped = finds.skipped.iter().filter(|(pid, _)| is_new(*pid));
    match missing.chain(skipped).find(|(_, why)| why.why.is_unread()) {
        Some((pid, why)) => Err(NewcomersError::Group {
            group: group.to_owned(),
            pid: *pid,
            why: why.to_string(),
        }),
        None => Ok(()),
    }
}

fn copy_of(e: &io::Error) -> io::Error {
    e.raw_os_error()
        .map_or_else(|| e.kind().into(), io::Error::from_raw_os_error)
}

/// Tells whether a process with these configs reads a target of `step`. One without any config is
/// only signalled, and belongs to the first step.
fn reads(configs: &[Config], step: &Step) -> bool {
    let is_read = |path: &PathBuf| configs.iter().any(|config| config.path == *path);
    configs.is_empty() || step.changes.iter().any(|change| is_read(&change.path))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;
    use crate::host::discover::{InspectError, MatchReason, MatchRefusal};

    fn too_many() -> io::Error {
        io::Error::from_raw_os_error(rustix::io::Errno::MFILE.raw_os_error())
    }

    fn refusal(why: MatchReason) -> MatchRefusal {
        why.into()
    }

    fn unread(finds: &Finds) -> Option<String> {
        let read = check_read(finds, "web", |pid| pid == 7);
        read.err().map(|why| why.to_string())
    }

    #[test]
    fn a_scan_that_could_read_no_process_does_not_show_that_none_came() {
        let finds = Finds {
            blind: Some(too_many()),
            ..Finds::default()
        };
        let text = unread(&finds).unwrap();
        assert!(
            text.contains("Too many open files") && text.contains("ulimit -n"),
            "{text}"
        );
    }

    #[test]
    fn a_group_whose_sockets_cannot_be_read_may_have_a_new_process() {
        let sockets = MatchReason::Sockets(Arc::new(too_many()));
        let finds = Finds {
            missing: vec![(0, refusal(sockets))],
            ..Finds::default()
        };
        let text = unread(&finds).unwrap();
        assert!(text.contains("group `web`"), "{text}");
    }

    #[test]
    fn a_new_process_that_cannot_be_read_may_be_one_of_the_group() {
        let failed = || InspectError::Failed(Arc::new(too_many()));
        let skipped = |pid: i32, why: InspectError| Finds {
            skipped: vec![(pid, refusal(why.into()))],
            ..Finds::default()
        };
        assert!(unread(&skipped(7, failed())).unwrap().contains("pid 7 "));
        assert_eq!(
            unread(&skipped(6, failed())),
            None,
            "the survey has named it"
        );
        assert_eq!(unread(&skipped(7, InspectError::Gone)), None);
    }
}
