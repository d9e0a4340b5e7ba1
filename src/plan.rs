//! The plan of a run: the change of each target, its readers, and the waves in which they are
//! signalled. Planning touches no process and no file.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use self::{
    counts::check_counts,
    readers::{Readers, group_by_targets},
    running::is_reload_pending,
    steps::StepPlanner,
};
use crate::{
    change::Changes,
    event::{Abort, Event, Instance, Outcome},
    fleet::{Count, Fleet, Group, Trigger, Unproven},
    runs::ProofCache,
    step::{PlannedInstance, Step, Survey, TargetChange},
};

mod candidate;
mod counts;
mod desired;
mod drift;
mod holds;
mod readers;
mod recovery;
mod running;
mod steps;
#[cfg(test)]
mod tests;
mod unresponsive;
mod waves;

pub(crate) use self::{
    desired::{candidate, entries_without_target},
    recovery::{RecoveryRequest, absent, unreplaced},
    waves::Wave,
};

/// Waves of steps, in the order in which they are committed.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The waves; each starts only after the one before is proven.
    pub waves: Vec<Wave>,
    /// Instances that started after the survey and read a target of the run. They must prove it as
    /// well.
    pub newcomers: Vec<PlannedInstance>,
    /// Instances that the run does not include, each with its failure.
    pub skipped: Vec<PlannedInstance>,
    /// Why the plan can only be prepared, and never carried out. The validity of the candidates is
    /// reported before it.
    pub restart: Option<Abort>,
}

/// The input of a plan besides the survey.
#[derive(Debug)]
pub(crate) struct PlanRequest<'a> {
    /// The groups of the run.
    pub fleet: &'a Fleet,
    /// The change of their targets.
    pub changes: &'a Changes,
    /// Replaces the count of every group.
    pub count: Option<Count>,
    /// True if one `--config` may replace targets that differ now.
    pub overwrite: bool,
    /// True if unresponsive instances are signalled too.
    pub include_unresponsive: bool,
    /// The config that each instance was last proven to run, for instances that do not report it.
    pub proven: &'a ProofCache,
}

impl Plan {
    /// Decides everything that can be decided without touching anything. `stored` returns the bytes
    /// of an earlier config by digest.
    ///
    /// # Errors
    /// Returns the first failure in the order of the exit codes: no match, busy, refused, invalid,
    /// restart required.
    pub(crate) fn new(
        mut survey: Survey,
        request: &PlanRequest<'_>,
        stored: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<Self, Abort> {
        check_counts(&survey, request.fleet, request.count)?;
        if let Some(abort) = survey.abort {
            return Err(abort);
        }
        let groups = &request.fleet.groups;
        let (skipped, too_many) =
            unresponsive::resolve(&mut survey, groups, request.include_unresponsive, |_| false);
        for instance in &mut survey.instances {
            instance.signal_may_be_pending = is_reload_pending(instance, request.proven);
        }
        let mut refused = survey.refused;
        let readers: Readers = group_by_targets(survey.instances, |m| m.instance.targets.clone());
        let unequal = if request.overwrite {
            None
        } else {
            drift::unequal_targets(&readers, &survey.targets, request.changes)
        };
        let (desired, invalid) =
            desired::desired_contents(&survey.targets, &readers, request.changes)?;
        let planner = StepPlanner {
            targets: &survey.targets,
            desired: &desired,
            proven: request.proven,
            include_unresponsive: request.include_unresponsive,
            stored,
        };
        let steps: Vec<Step> = readers
            .into_iter()
            .map(|(paths, instances)| planner.step(&paths, instances, &mut refused))
            .collect();
        if !refused.is_empty() {
            return Err(unresponsive::refusal(refused, &too_many));
        }
        if let Some(abort) = unequal.or(invalid) {
            return Err(abort);
        }
        let restart = candidate::check(&steps, &desired)?;
        let order: Vec<&Group> = groups.iter().collect();
        Ok(Self {
            waves: waves::in_waves(steps, &order, &request.fleet.order)?,
            newcomers: Vec::new(),
            skipped,
            restart,
        })
    }

    /// Iterates over every step, in order.
    pub(crate) fn steps(&self) -> impl Iterator<Item = &Step> {
        self.waves.iter().flat_map(|w| &w.steps)
    }

    /// Iterates over the instances that the run includes, in the order of the waves.
    pub(crate) fn members(&self) -> impl Iterator<Item = &PlannedInstance> {
        self.steps().flat_map(|step| &step.instances)
    }

    fn planned_instances(&self) -> impl Iterator<Item = &PlannedInstance> {
        self.steps()
            .flat_map(|s| &s.instances)
            .chain(&self.newcomers)
            .chain(&self.skipped)
    }

    /// Iterates over every instance, also those that the run skips.
    pub(crate) fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.planned_instances().map(|m| &m.instance)
    }

    /// Iterates over the outcome of every instance, for [`crate::event::Verdict::of`]. A command
    /// that was to make an instance reload, and failed, does not prove that it kept the old config.
    pub(crate) fn ends(&self) -> impl Iterator<Item = (Outcome, Unproven)> {
        self.planned_instances().map(|m| {
            let outcome = match (m.instance.outcome, m.group.trigger()) {
                (Outcome::Rejected, Trigger::Command(_)) => Outcome::TimedOut,
                (outcome, _) => outcome,
            };
            (outcome, m.group.unproven)
        })
    }

    /// Returns the change of each target once.
    #[must_use]
    pub(crate) fn targets(&self) -> Vec<&TargetChange> {
        let mut known = BTreeSet::new();
        self.steps()
            .flat_map(|s| &s.changes)
            .filter(|change| known.insert(change.path.as_path()))
            .collect()
    }

    /// Returns the assertions with a literal value that did not hold before the run. The new config
    /// may satisfy them, or they may be a mistake.
    #[must_use]
    pub(crate) fn unheld(&self) -> Vec<Event> {
        holds::literals(self.steps())
    }

    /// Returns the path of each target once.
    #[must_use]
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.targets().into_iter().map(|s| s.path.clone()).collect()
    }

    /// Replaces the plan's instances by those of `steps`, which hold the outcomes.
    pub(crate) fn apply_outcomes(&mut self, steps: &[Step]) {
        let ended: BTreeMap<(i32, u64), &PlannedInstance> = steps
            .iter()
            .flat_map(|s| &s.instances)
            .map(|m| (m.id, m))
            .collect();
        for instance in self
            .waves
            .iter_mut()
            .flat_map(|w| &mut w.steps)
            .flat_map(|s| &mut s.instances)
        {
            if let Some(ended) = ended.get(&instance.id) {
                *instance = (*ended).clone();
            }
        }
    }
}
