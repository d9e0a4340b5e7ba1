//! The plan of `resume` and `revert`. The targets and instances of the earlier run are known from
//! its journal; the survey shows their present state.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use self::{instance::classify, target::target_change};
use super::{
    Plan, candidate,
    readers::{Readers, group_by_targets},
    unresponsive, waves,
};
use crate::{
    event::{Abort, Direction, Instance},
    fleet::Group,
    step::{PlannedInstance, Step, Survey, SurveyedTarget, TargetChange},
};

mod gone;
mod instance;
mod request;
mod target;
#[cfg(test)]
mod tests;

pub(crate) use self::{
    gone::{absent, unreplaced},
    request::RecoveryRequest,
};

impl Plan {
    /// Plans the recovery of `request.left`. `stored` returns the bytes of an earlier config by
    /// digest; `later_run` the run that gave a target its present content.
    ///
    /// # Errors
    /// Returns the first failure in the order of the exit codes: no match, busy, refused, invalid,
    /// restart required.
    pub(crate) fn recover(
        mut survey: Survey,
        request: RecoveryRequest<'_>,
        stored: impl Fn(&str) -> Option<Vec<u8>>,
        later_run: impl Fn(&Path, &str) -> Option<String>,
    ) -> Result<Self, Abort> {
        let left = request.left;
        let mut skipped = gone::check_missing(&survey, request)?;
        if let Some(abort) = survey.abort {
            return Err(abort);
        }
        survey
            .unresponsive
            .retain(|m| request.concerns(&m.instance.targets));
        let moved = instance::with_other_targets(&survey, left);
        if !moved.is_empty() {
            return Err(Abort::refused(moved));
        }
        let touched = |m: &PlannedInstance| left.same_boot && left.touched.contains_key(&m.id);
        let include = request.include_unresponsive;
        let (unresponsive, too_many) =
            unresponsive::resolve(&mut survey, &left.groups, include, touched);
        skipped.extend(unresponsive);
        let mut changes: BTreeMap<&Path, TargetChange> = BTreeMap::new();
        for target in &left.targets {
            let change = target_change(target, &survey, request, &stored, &later_run)?;
            changes.insert(&target.path, change);
        }
        let mut refused: Vec<Instance> = survey
            .refused
            .into_iter()
            .filter(|i| request.concerns(&i.targets))
            .collect();
        survey
            .instances
            .retain(|m| request.includes(&m.instance.targets));
        let readers: Readers = group_by_targets(survey.instances, |m| m.instance.targets.clone());
        let steps: Vec<Step> = readers
            .into_iter()
            .map(|(paths, instances)| {
                let step = plan_step(&paths, &survey.targets, &changes);
                classify_all(step, instances, request, &mut refused)
            })
            .collect();
        if !refused.is_empty() {
            return Err(unresponsive::refusal(refused, &too_many));
        }
        let unread = unread_steps(&steps, changes);
        let restart = candidate::check(&steps, &BTreeMap::new())?;
        Ok(Self {
            waves: in_waves(steps, unread, request)?,
            newcomers: Vec::new(),
            skipped,
            restart,
        })
    }
}

/// The changes of one step, and the targets as they are on disk.
struct StepTargets<'a> {
    changes: Vec<TargetChange>,
    on_disk: Vec<(&'a Path, &'a SurveyedTarget)>,
}

fn plan_step<'a>(
    paths: &[PathBuf],
    targets: &'a BTreeMap<PathBuf, SurveyedTarget>,
    changes: &BTreeMap<&Path, TargetChange>,
) -> StepTargets<'a> {
    let mut step = StepTargets {
        changes: Vec::new(),
        on_disk: Vec::new(),
    };
    for path in paths {
        let Some((path, target)) = targets.get_key_value(path) else {
            continue;
        };
        // A target that the earlier run did not change stays as it is.
        let unchanged = || TargetChange {
            path: path.clone(),
            rev: target.rev.clone(),
            from: Some(target.content.clone()),
            to: target.content.clone(),
            source: None,
            secret: target.secret,
        };
        let change = changes.get(path.as_path()).cloned();
        step.changes.push(change.unwrap_or_else(unchanged));
        step.on_disk.push((path.as_path(), target));
    }
    step
}

/// Classifies the instances of a step, and adds those that it refuses.
fn classify_all(
    targets: StepTargets<'_>,
    mut instances: Vec<PlannedInstance>,
    request: RecoveryRequest<'_>,
    refused: &mut Vec<Instance>,
) -> Step {
    for instance in &mut instances {
        if let Err(why) = classify(instance, &targets.changes, &targets.on_disk, request) {
            instance.refuse(why.to_string());
            refused.push(instance.instance.clone());
        }
    }
    Step {
        changes: targets.changes,
        instances,
        direction: Direction::Forward,
    }
}

/// Returns a step for each target that no instance reads any more. Its content changes all the
/// same, because a process that starts later would read it.
fn unread_steps(steps: &[Step], changes: BTreeMap<&Path, TargetChange>) -> Vec<Step> {
    let read: BTreeSet<&Path> = steps
        .iter()
        .flat_map(|step| &step.changes)
        .map(|change| change.path.as_path())
        .collect();
    changes
        .into_values()
        .filter(|change| !read.contains(change.path.as_path()))
        .map(|change| Step {
            changes: vec![change],
            instances: Vec::new(),
            direction: Direction::Forward,
        })
        .collect()
}

/// Puts the steps in waves; those without instances belong to the first.
fn in_waves(
    steps: Vec<Step>,
    unread: Vec<Step>,
    request: RecoveryRequest<'_>,
) -> Result<Vec<waves::Wave>, Abort> {
    let order: Vec<&Group> = request.left.groups.iter().collect();
    let mut waves = if request.at_once {
        waves::single_wave(steps)
    } else {
        waves::in_waves(steps, &order, &request.left.order)?
    };
    match waves.first_mut() {
        Some(first) => first.steps.extend(unread),
        None => waves = waves::single_wave(unread),
    }
    Ok(waves)
}
