//! The third verb: installs, signals and confirms. A rollback is the same over flipped steps.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use self::{install::FailedInstalls, reload::reload_and_confirm};
use crate::{
    event::{Abort, Direction, Event, Failure, INTERRUPTED, Interrupts, Outcome},
    fleet::{Speaks, url_of},
    host::{
        local::{failed::not_proven, host::LocalHost},
        parallel::admission::run_admitted,
    },
    step::{PlannedInstance, Step},
};

mod install;
mod reload;

/// Instances that were not seen to open a target, by group and target: the first pid, and how many.
type NotOpened = BTreeMap<(String, PathBuf), (i32, usize)>;

/// How the wait for the instances of a commit ended.
struct Progress {
    /// True if it was not interrupted.
    is_complete: bool,
    /// The instances that ended, by step and by index in the step.
    ended: BTreeSet<(usize, usize)>,
    /// The instances that were about to be signalled, by pid and start time.
    begun: BTreeSet<(i32, u64)>,
    not_opened: NotOpened,
}

impl LocalHost {
    pub(crate) async fn commit(
        &mut self,
        steps: &mut [Step],
        interrupts: &mut Interrupts,
        emit: &mut impl FnMut(Event),
    ) -> Result<(), Abort> {
        let failed = self.install(steps, emit)?;
        // It is not known whether a later change behind a target is read.
        for change in steps.iter().flat_map(|step| &step.changes) {
            if let Some(follow) = self.follows.get_mut(&change.path)
                && url_of(&change.path).is_none()
            {
                follow.update(&change.path);
            }
        }
        fail_uninstalled(steps, &failed, emit);
        // A process that speaks the protocol reports what it has read.
        let is_watched = |m: &PlannedInstance| {
            m.group.speaks == Speaks::None && m.instance.outcome != Outcome::Unchanged
        };
        self.openings.mark(
            steps
                .iter()
                .filter(|step| step.instances.iter().any(is_watched))
                .flat_map(|step| &step.changes),
        );
        let progress = self.reload_all(steps, &failed, interrupts, emit).await;
        for ((group, path), (pid, instances)) in &progress.not_opened {
            let event = Event::NotOpened {
                group: group.clone(),
                pid: *pid,
                instances: *instances,
                path: path.clone(),
            };
            self.notes.push(event.clone());
            emit(event);
        }
        if !progress.is_complete {
            fail_interrupted(steps, &failed, &progress);
        }
        failed.into_values().next().map_or(Ok(()), Err)
    }

    /// Signals every instance whose targets are installed, and waits for it. An interrupt ends the
    /// wait, and no instance is signalled after it.
    async fn reload_all(
        &self,
        steps: &mut [Step],
        failed: &FailedInstalls,
        interrupts: &mut Interrupts,
        emit: &mut impl FnMut(Event),
    ) -> Progress {
        let direction = Direction::any_back(steps.iter().map(|step| step.direction));
        let begun = &RefCell::new(BTreeSet::new());
        let signalled = steps
            .iter_mut()
            .enumerate()
            .filter(|(_, step)| is_installed(step, failed))
            .flat_map(|(step_index, step)| {
                let changes = step.changes.as_slice();
                let instances = step.instances.iter_mut().enumerate();
                instances.map(move |(index, planned)| ((step_index, index), changes, planned))
            })
            .filter(|(_, _, planned)| planned.instance.outcome != Outcome::Unchanged);
        let reload = |(place, changes, planned), slot| async move {
            let planned: &mut PlannedInstance = planned;
            let context = self.proof_context(changes, direction, &slot, begun);
            // It works on a copy: an interrupt must leave the instance as it was.
            let copy = Box::new(planned.clone());
            let (reloaded, not_opened) = reload_and_confirm(copy, context, &self.limits).await;
            *planned = *reloaded;
            (place, Event::of(&planned.instance), not_opened)
        };
        let mut ended = BTreeSet::new();
        let mut not_opened = NotOpened::new();
        let is_complete = run_admitted(
            signalled,
            reload,
            self.parallel_reloads
                .saturating_sub(self.held_files.held / 2)
                .max(16),
            interrupts,
            direction.tolerated_interrupts(),
            |(place, event, path)| {
                if let (Some(path), Event::Instance { group, pid, .. }) = (path, &event) {
                    let (_first, count) =
                        not_opened.entry((group.clone(), path)).or_insert((*pid, 0));
                    *count += 1;
                }
                emit(event);
                ended.insert(place);
            },
        )
        .await;
        Progress {
            is_complete,
            ended,
            begun: begun.take(),
            not_opened,
        }
    }
}

/// Tells whether every target of a step is installed.
fn is_installed(step: &Step, failed: &FailedInstalls) -> bool {
    !step
        .changes
        .iter()
        .any(|change| failed.contains_key(&change.path))
}

/// Fails the instances that would read a target that could not be rolled back. They are not
/// signalled; all other instances are rolled back.
fn fail_uninstalled(steps: &mut [Step], failed: &FailedInstalls, emit: &mut impl FnMut(Event)) {
    for step in steps {
        let Some(abort) = step.changes.iter().find_map(|c| failed.get(&c.path)) else {
            continue;
        };
        for planned in &mut step.instances {
            let outcome = if planned.instance.outcome == Outcome::Died {
                Outcome::Died
            } else {
                Outcome::RevertFailed
            };
            planned.fail(
                outcome,
                Failure {
                    kind: outcome.into(),
                    text: format!("its config could not be rolled back: {}", abort.reason),
                },
            );
            emit(Event::of(&planned.instance));
        }
    }
}

/// Fails the instances whose proof was not waited for. They may have been signalled, and count as
/// touched. All other instances stay as they were.
fn fail_interrupted(steps: &mut [Step], failed: &FailedInstalls, progress: &Progress) {
    let direction = Direction::any_back(steps.iter().map(|step| step.direction));
    let outcome = not_proven(direction);
    for (step_index, step) in steps.iter_mut().enumerate() {
        if !is_installed(step, failed) {
            continue;
        }
        for (index, planned) in step.instances.iter_mut().enumerate() {
            let is_open = !progress.ended.contains(&(step_index, index))
                && planned.instance.outcome != Outcome::Unchanged;
            if !is_open || !(direction.is_back() || progress.begun.contains(&planned.id)) {
                continue;
            }
            planned.signalled.get_or_insert_with(jiff::Timestamp::now);
            planned.fail(
                outcome,
                Failure {
                    kind: outcome.into(),
                    text: INTERRUPTED.into(),
                },
            );
        }
    }
}
