//! The fourth verb: whether the instances still prove their config, without a signal.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

pub(crate) use self::lost::mark_lost;
use self::{
    lost::{claims_config, claims_life},
    recheck::recheck,
};
use crate::{
    event::{Direction, Event, Failure, FailureKind, Interrupts, Outcome},
    fleet::url_of,
    host::{
        local::host::LocalHost,
        net::sockets::Listeners,
        parallel::{admission::run_admitted, par_map::par_map},
        probe::{
            answer::KernelError,
            endpoint::{WHETHER_SHARED, foreign_listeners_in, sharing_text},
        },
        proc::guard::{Presence, is_over, presence, sees_the_same},
        target::install::Target,
    },
    step::{PlannedInstance, Step, TargetChange},
};

mod lost;
mod recheck;

/// The instances that a check probes again, and whose targets it reads. All others must only live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recheck {
    /// Every instance that was proven.
    All,
    /// Instances that were proven before this moment.
    SeenBefore(Instant),
    /// The same at the end of a run, which reads the targets itself.
    AtTheEnd(Instant),
}

impl Recheck {
    pub(crate) fn covers(self, planned: &PlannedInstance) -> bool {
        match self {
            Self::All => true,
            Self::SeenBefore(moment) | Self::AtTheEnd(moment) => {
                planned.proven_at.is_none_or(|proven_at| proven_at < moment)
            }
        }
    }

    /// Tells whether the check reads the targets.
    fn reads_targets(self) -> bool {
        !matches!(self, Self::AtTheEnd(_))
    }
}

/// Why an instance has no proof whose process has ended, where an interrupt prevented the search
/// for its successor.
const GONE: &str = "it ended, or is another process by now, and the run was interrupted before \
                    its successor was looked for";

/// A pid and a start time.
type ProcessId = (i32, u64);

impl LocalHost {
    pub(crate) async fn check(
        &mut self,
        steps: &mut [&mut Step],
        recheck: Recheck,
        (interrupts, patience): (&mut Interrupts, u8),
        emit: &mut impl FnMut(Event),
    ) -> bool {
        let reads_targets_of: BTreeSet<ProcessId> = steps
            .iter()
            .flat_map(|step| &step.instances)
            .filter(|m| claims_life(m) && recheck.reads_targets() && recheck.covers(m))
            .map(|m| m.id)
            .collect();
        let (is_complete, gone) = self
            .probe_again(steps, recheck, (interrupts, patience), emit)
            .await;
        for planned in steps
            .iter_mut()
            .flat_map(|step| &mut step.instances)
            .filter(|m| gone.contains(&m.id))
        {
            let failure = Failure {
                kind: Outcome::TimedOut.into(),
                text: GONE.into(),
            };
            emit(mark_lost(planned, failure));
        }
        let listeners = self.limits.listeners(Duration::ZERO);
        let is_exclusive = self.fail_shared_addresses(listeners, steps, emit);
        // Last, so that a change between the proofs and this reading is seen.
        if !reads_targets_of.is_empty() {
            self.fail_changed_targets(steps, &reads_targets_of, emit);
        }
        is_complete && is_exclusive
    }

    /// Probes the instances that `recheck` covers, and those whose process has gone. Returns
    /// whether each of them was waited for, and the gone ones that were not.
    async fn probe_again(
        &self,
        steps: &mut [&mut Step],
        recheck_policy: Recheck,
        (interrupts, patience): (&mut Interrupts, u8),
        emit: &mut impl FnMut(Event),
    ) -> (bool, BTreeSet<ProcessId>) {
        let rollbacks: Vec<Vec<TargetChange>> =
            steps.iter().map(|step| rolled_back_changes(step)).collect();
        let claiming = claiming_instances(steps, &rollbacks);
        let instances: Vec<_> = claiming.iter().map(|(_, m)| &m.instance).collect();
        let presences = par_map(&instances, |i| presence(i.pid, i.started, &i.exe));
        let is_same = |presence: &Presence| matches!(presence, Presence::Same(_));
        let probed: Vec<_> = claiming
            .into_iter()
            .zip(presences)
            .filter(|((_, m), presence)| {
                !is_same(presence) || (claims_config(m) && recheck_policy.covers(m))
            })
            .collect();
        let mut gone: BTreeSet<ProcessId> = probed
            .iter()
            .filter(|(_, presence)| !is_same(presence))
            .map(|((_, m), _)| m.id)
            .collect();
        if probed.is_empty() {
            return (true, gone);
        }
        let mark_signalled = &RefCell::default();
        let probe = |((changes, planned), _), slot| async move {
            let planned: &mut PlannedInstance = planned;
            let id = planned.id;
            let direction = if planned.instance.outcome == Outcome::Reverted {
                Direction::Back
            } else {
                Direction::Forward
            };
            let context = self.proof_context(changes, direction, &slot, mark_signalled);
            let checked = recheck(Box::new(planned.clone()), context, &self.limits).await;
            let is_new = !claims_life(&checked) || checked.instance.pid != planned.instance.pid;
            *planned = *checked;
            (id, is_new.then(|| Event::of(&planned.instance)))
        };
        // No instance is signalled: one that is not waited for stays as it was, if it lives.
        let is_complete = run_admitted(
            probed.into_iter(),
            probe,
            self.parallel_reloads,
            interrupts,
            patience,
            |(id, event)| {
                gone.remove(&id);
                event.into_iter().for_each(&mut *emit);
            },
        )
        .await;
        (is_complete, gone)
    }

    /// Fails every instance of `covered` that runs a target which another program has changed, or
    /// that sees another file there.
    fn fail_changed_targets(
        &self,
        steps: &mut [&mut Step],
        covered: &BTreeSet<ProcessId>,
        emit: &mut impl FnMut(Event),
    ) {
        // Many steps have the same targets: each is read once.
        let mut faults: BTreeMap<&Path, Option<TargetFault>> = BTreeMap::new();
        for Step {
            changes, instances, ..
        } in steps.iter_mut().map(|step| &mut **step)
        {
            let changed = changes.iter().find_map(|change| {
                let read = || TargetFault::of(self.targets.get(&change.path)?, change);
                let fault = *faults.entry(&change.path).or_insert_with(read);
                Some((change, fault?))
            });
            let checked = instances.iter_mut().filter(|m| {
                claims_config(m)
                    && m.instance.outcome != Outcome::Reverted
                    && covered.contains(&m.id)
            });
            for planned in checked {
                if let Some(failure) = target_failure(planned, changed) {
                    emit(mark_lost(planned, failure));
                }
            }
        }
    }

    /// Fails every instance on whose address a process outside the run listens. Its earlier answers
    /// may be those of the foreign listener. Returns false if the listeners cannot be read while an
    /// instance claims an address.
    fn fail_shared_addresses(
        &self,
        listeners: Result<Arc<Listeners>, KernelError>,
        steps: &mut [&mut Step],
        emit: &mut impl FnMut(Event),
    ) -> bool {
        let Ok(listeners) = listeners else {
            let mut instances = steps.iter().flat_map(|step| &step.instances);
            return !instances.any(|m| claims_config(m) && !m.instance.endpoint.is_empty());
        };
        for planned in steps
            .iter_mut()
            .flat_map(|step| &mut step.instances)
            .filter(|m| claims_config(m))
        {
            let failure = match foreign_listeners_in(planned, &listeners, &self.limits) {
                Ok(foreign) if foreign.is_empty() => continue,
                Ok(foreign) => Failure {
                    kind: FailureKind::ForeignListener,
                    text: sharing_text(&foreign),
                },
                Err(why) => why.cannot_tell(WHETHER_SHARED),
            };
            emit(mark_lost(planned, failure));
        }
        true
    }
}

/// Returns the instances whose outcome claims that they live, each with the changes whose content
/// it runs.
fn claiming_instances<'a>(
    steps: &'a mut [&mut Step],
    rollbacks: &'a [Vec<TargetChange>],
) -> Vec<(&'a [TargetChange], &'a mut PlannedInstance)> {
    let with_changes = |(step, rollback): (&'a mut &mut Step, &'a Vec<TargetChange>)| {
        let changes = step.changes.as_slice();
        step.instances.iter_mut().map(move |planned| {
            let is_reverted = planned.instance.outcome == Outcome::Reverted;
            let changes = if is_reverted { rollback } else { changes };
            (changes, planned)
        })
    };
    steps
        .iter_mut()
        .zip(rollbacks)
        .flat_map(with_changes)
        .filter(|(_, planned)| claims_life(planned))
        .collect()
}

/// Returns the changes of a step's rollback, if an instance of it was rolled back; else none.
fn rolled_back_changes(step: &Step) -> Vec<TargetChange> {
    let is_rolled_back = step
        .instances
        .iter()
        .any(|m| m.instance.outcome == Outcome::Reverted);
    if is_rolled_back {
        step.changes_back().unwrap_or_default()
    } else {
        Vec::new()
    }
}

/// Why a target does not show the new content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TargetFault {
    /// It holds another one.
    Changed,
    /// It is a key, and its store did not answer.
    Unread,
}

impl TargetFault {
    /// Returns the fault of a target; none if it holds the new content.
    fn of(target: &Target, change: &TargetChange) -> Option<Self> {
        match target.digest() {
            Some(digest) if digest == change.to.sha256 => None,
            None if url_of(&change.path).is_some() => Some(Self::Unread),
            _ => Some(Self::Changed),
        }
    }
}

/// Returns why the targets of an instance are not known to be those of this run; `changed` is one
/// with a fault.
fn target_failure(
    planned: &PlannedInstance,
    changed: Option<(&TargetChange, TargetFault)>,
) -> Option<Failure> {
    let instance = &planned.instance;
    let failure = |outcome: Outcome, text: String| {
        Some(Failure {
            kind: outcome.into(),
            text,
        })
    };
    if let Some((change, fault)) = changed {
        let path = change.path.display();
        let text = match fault {
            TargetFault::Changed => format!("`{path}` was changed by another program since"),
            TargetFault::Unread => {
                format!("`{path}` cannot be read, so that it is not known what it holds")
            }
        };
        return failure(Outcome::TimedOut, text);
    }
    let sees_another =
        |path: &&PathBuf| url_of(path).is_none() && !sees_the_same(instance.pid, path);
    let path = instance.targets.iter().find(sees_another)?;
    // A process that has ended sees no file.
    if is_over(instance.pid, instance.started, &instance.exe) {
        return failure(Outcome::Died, "the process ended".into());
    }
    let text = format!(
        "sees another file at `{}` than this host does",
        path.display()
    );
    failure(Outcome::TimedOut, text)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::{
        assertion::Expectation,
        tests::{
            probed::silent,
            unprivileged::{HIDDEN, unprivileged},
        },
    };

    /// Returns a step with one confirmed instance.
    fn confirmed(pid: i32) -> Step {
        let (mut member, _) = silent(Expectation::Changed);
        member.instance.outcome = Outcome::Confirmed;
        member.instance.pid = pid;
        Step {
            changes: Vec::new(),
            instances: vec![member],
            direction: Direction::Forward,
        }
    }

    #[test]
    fn an_address_is_exclusive_only_if_the_listening_sockets_could_be_read() {
        let host = LocalHost::new("run");
        let mut step = confirmed(HIDDEN);
        let unread = Err(KernelError::Listeners(io::ErrorKind::Other.into()));
        assert!(!host.fail_shared_addresses(unread, &mut [&mut step], &mut drop));
    }

    #[test]
    fn an_instance_whose_sockets_cannot_be_read_at_the_end_is_not_proven() {
        let mut step = confirmed(HIDDEN);
        step.instances[0].instance.endpoint.clear();
        let end = |step: &mut Step| {
            let host = LocalHost::new("run");
            let listeners = host.limits.listeners(Duration::ZERO);
            host.fail_shared_addresses(listeners, &mut [step], &mut drop);
            step.instances[0].instance.outcome
        };
        assert_eq!(unprivileged(|| end(&mut step)), Outcome::TimedOut);
        let own = i32::try_from(std::process::id()).unwrap_or_default();
        assert_eq!(end(&mut confirmed(own)), Outcome::Confirmed);
    }
}
