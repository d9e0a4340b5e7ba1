//! The wave in which each instance is signalled.

use std::{collections::BTreeMap, time::Duration};

use super::readers::group_by_targets;
use crate::{
    event::{Abort, Outcome, Verdict},
    fleet::{Group, Order, WaveEnd},
    inventory::{HostEntry, HostName},
    step::{PlannedInstance, Step},
    waves::{WaveEntry, WaveError, WavePolicy, assign},
};

#[cfg(test)]
mod tests;

/// Instances that are signalled together.
#[derive(Debug)]
pub(crate) struct Wave {
    /// Its number, from 1.
    pub number: usize,
    /// Its instances, by the targets that they read.
    pub steps: Vec<Step>,
    /// The pause before every proven instance is probed again.
    pub bake: Duration,
    /// Commands that must exit with 0 before the next wave.
    pub gates: Vec<Vec<String>>,
}

impl Wave {
    /// Returns the number of its instances that are to be signalled.
    #[must_use]
    pub(crate) fn instances(&self) -> usize {
        self.steps
            .iter()
            .flat_map(|s| &s.instances)
            .filter(|m| m.instance.outcome != Outcome::Unchanged)
            .count()
    }
}

/// Splits each step by wave; `order` is that of the file.
///
/// # Errors
/// Fails if there are more waves than can be numbered.
pub(super) fn in_waves(
    steps: Vec<Step>,
    order: &[&Group],
    beyond: &Order,
) -> Result<Vec<Wave>, Abort> {
    let policies: Vec<WavePolicy<'_>> = order.iter().map(|group| of_this_machine(group)).collect();
    let hosts = [HostEntry::named(HostName::local())];
    let waves = assign(&entries_of(&steps, order), &hosts, &policies, beyond)?;
    Ok(split(steps, &waves))
}

/// Returns the policy of a group in a run on this machine alone, where no wave names hosts. A plan
/// of an earlier run over hosts may have such a wave.
fn of_this_machine(group: &Group) -> WavePolicy<'_> {
    let mut policy = WavePolicy::of(group);
    policy.waves.retain(|end| matches!(end, WaveEnd::Share(_)));
    policy
}

impl From<WaveError> for Abort {
    fn from(why: WaveError) -> Self {
        let verdict = match why {
            WaveError::Unmatched { .. } | WaveError::NoLabel { .. } => Verdict::NoMatch,
            WaveError::TooMany => Verdict::Refused,
        };
        Self::new(verdict, why.to_string())
    }
}

/// Returns the entries of the instances on this machine: step by step, and in the order of
/// identities within a step. Its host has index 0, and the index of a group is that in `order`.
pub(crate) fn entries_of(steps: &[Step], order: &[&Group]) -> Vec<WaveEntry> {
    let indexes: BTreeMap<&str, u16> = order
        .iter()
        .zip(0..)
        .map(|(group, index)| (group.name.as_str(), index))
        .collect();
    let mut entries = Vec::with_capacity(steps.iter().map(|step| step.instances.len()).sum());
    for step in steps {
        let entry = |instance: &PlannedInstance| WaveEntry {
            host: 0,
            // A group that is not in the run has no waves of its own.
            group: indexes
                .get(instance.instance.group.as_str())
                .map_or(u16::MAX, |index| *index),
            signalled: instance.instance.outcome != Outcome::Unchanged,
            responsive: !instance.unresponsive,
        };
        // The survey finds instances in this order.
        if step.instances.is_sorted_by_key(|m| m.id) {
            entries.extend(step.instances.iter().map(entry));
        } else {
            let mut sorted: Vec<&PlannedInstance> = step.instances.iter().collect();
            sorted.sort_by_key(|m| m.id);
            entries.extend(sorted.into_iter().map(entry));
        }
    }
    entries
}

/// Splits each step by wave. `waves` has the number of the wave of each entry of [`entries_of`].
pub(crate) fn split(steps: Vec<Step>, waves: &[u16]) -> Vec<Wave> {
    let mut numbers = waves.iter().copied();
    let mut waves: BTreeMap<u16, Vec<Step>> = BTreeMap::new();
    for Step {
        changes,
        mut instances,
        direction,
    } in steps
    {
        // Sorting them again would need the memory of all of them once more.
        if !instances.is_sorted_by_key(|m| m.id) {
            instances.sort_by_key(|m| m.id);
        }
        let parts = group_by_targets(instances, |_| numbers.next().unwrap_or(u16::MAX));
        for (number, instances) in parts {
            waves.entry(number).or_default().push(Step {
                changes: changes.clone(),
                instances,
                direction,
            });
        }
    }
    waves
        .into_iter()
        .map(|(number, steps)| wave(steps, number.into()))
        .collect()
}

/// Puts all steps in one wave; none if there are no steps.
pub(super) fn single_wave(steps: Vec<Step>) -> Vec<Wave> {
    if steps.is_empty() {
        Vec::new()
    } else {
        vec![wave(steps, 1)]
    }
}

fn wave(mut steps: Vec<Step>, number: usize) -> Wave {
    steps
        .iter_mut()
        .flat_map(|s| &mut s.instances)
        .for_each(|m| m.instance.wave = number);
    let mut wave = Wave {
        number,
        steps: Vec::new(),
        bake: Duration::ZERO,
        gates: Vec::new(),
    };
    for instance in steps
        .iter()
        .flat_map(|s| &s.instances)
        .filter(|m| m.instance.outcome != Outcome::Unchanged)
    {
        let rollout = &instance.group.rollout;
        wave.bake = wave.bake.max(rollout.bake);
        if !rollout.gate.is_empty() && !wave.gates.contains(&rollout.gate) {
            wave.gates.push(rollout.gate.clone());
        }
    }
    wave.steps = steps;
    wave
}
