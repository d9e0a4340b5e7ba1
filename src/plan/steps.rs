//! One step: the targets that the same instances read, and their changes.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    desired::DesiredContent,
    drift::refuse_drifted,
    holds,
    running::{already_current, previous_content},
};
use crate::{
    event::{Direction, Instance, Outcome},
    runs::ProofCache,
    step::{PlannedInstance, RanBefore, Step, SurveyedTarget, TargetChange},
};

/// Makes the steps of a plan.
pub(super) struct StepPlanner<'a, F> {
    pub(super) targets: &'a BTreeMap<PathBuf, SurveyedTarget>,
    pub(super) desired: &'a BTreeMap<&'a Path, DesiredContent>,
    pub(super) proven: &'a ProofCache,
    pub(super) include_unresponsive: bool,
    /// Returns the bytes of an earlier config by digest.
    pub(super) stored: F,
}

impl<F: Fn(&str) -> Option<Vec<u8>>> StepPlanner<'_, F> {
    /// Plans the step of the instances that read `paths`, and adds those that it refuses.
    pub(super) fn step(
        &self,
        paths: &[PathBuf],
        mut instances: Vec<PlannedInstance>,
        refused: &mut Vec<Instance>,
    ) -> Step {
        let targets: Vec<(&Path, &SurveyedTarget, &DesiredContent)> = paths
            .iter()
            .filter_map(|path| {
                let (path, target) = self.targets.get_key_value(path)?;
                Some((path.as_path(), target, self.desired.get(path.as_path())?))
            })
            .collect();
        let adopted = targets
            .iter()
            .all(|(_, target, desired)| target.content.sha256 == desired.to.sha256);
        self.mark_current(&targets, adopted, &mut instances);
        let mut changes = Vec::new();
        for (index, (path, target, desired)) in targets.iter().enumerate() {
            let from = if adopted {
                let alone = targets.len() == 1;
                previous_content(
                    path,
                    target,
                    alone,
                    &mut instances,
                    self.proven,
                    &self.stored,
                )
            } else {
                if index == 0 {
                    let disk = &target.content;
                    refuse_drifted(path, disk, &desired.to, &mut instances, refused);
                }
                Some(target.content.clone())
            };
            changes.push(TargetChange {
                path: (*path).into(),
                rev: target.rev.clone(),
                from,
                to: desired.to.clone(),
                source: desired.source.clone(),
                secret: desired.secret,
            });
        }
        if !self.include_unresponsive {
            holds::refuse(&mut instances, &changes, refused);
        }
        Step {
            changes,
            instances,
            direction: Direction::Forward,
        }
    }

    /// Marks the instances that run the targets as they are on disk. If these are adopted, they
    /// need no signal.
    fn mark_current(
        &self,
        targets: &[(&Path, &SurveyedTarget, &DesiredContent)],
        adopted: bool,
        instances: &mut [PlannedInstance],
    ) {
        let on_disk: Vec<(&Path, &SurveyedTarget)> = targets
            .iter()
            .map(|(path, target, _)| (*path, *target))
            .collect();
        for instance in instances {
            if already_current(instance, &on_disk, self.proven) {
                instance.ran_before = RanBefore::Disk;
            }
            if adopted && instance.ran_before == RanBefore::Disk {
                instance.instance.outcome = Outcome::Unchanged;
            }
        }
    }
}
