//! The wave in which each instance is signalled.

use std::{collections::BTreeMap, time::Duration};

use super::readers::group_by_targets;
use crate::{
    event::Outcome,
    fleet::{Graph, Group, OnBadConfig, Order, Share},
    step::{PlannedInstance, Step},
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
    /// Returns a wave of these steps.
    pub(crate) fn new(number: usize, steps: Vec<Step>) -> Self {
        Self {
            number,
            steps,
            bake: Duration::ZERO,
            gates: Vec::new(),
        }
    }
}

/// Returns how many of `total` instances have been signalled after each wave. The last number is
/// `total`.
///
/// Each wave has one instance more than the one before at least, while there are any. A larger
/// group therefore never makes a wave empty. With `canary` the first wave is one instance, even if
/// `waves` begins with more.
pub(super) fn cuts(waves: &[Share], total: usize, canary: bool) -> Vec<usize> {
    let canary = canary
        && waves
            .first()
            .is_none_or(|first| first.rounded_up(total) > 1);
    let mut ends: Vec<usize> = Vec::new();
    for wanted in canary
        .then_some(1)
        .into_iter()
        .chain(waves.iter().map(|w| w.rounded_up(total)))
        .chain([total])
    {
        let last = ends.last().copied().unwrap_or(0);
        if last < total {
            ends.push(wanted.max(last + 1).min(total));
        }
    }
    ends
}

/// The waves of one group.
struct GroupWaves {
    /// The number of waves before the first of the group.
    begin: usize,
    /// The number of its instances that are signalled by the end of each of its waves.
    ends: Vec<usize>,
    /// The place of the next responsive instance.
    next_responsive: usize,
    /// The place of the next unresponsive instance, after all responsive ones.
    next_unresponsive: usize,
}

impl GroupWaves {
    /// Returns the wave of the next instance.
    fn assign(&mut self, instance: &PlannedInstance) -> usize {
        if instance.instance.outcome == Outcome::Unchanged {
            // It joins a wave that signals another instance, if the group has one.
            return if self.ends.is_empty() { 0 } else { self.begin };
        }
        // Unresponsive instances go last: as a canary they would prove nothing.
        let next = if instance.unresponsive {
            &mut self.next_unresponsive
        } else {
            &mut self.next_responsive
        };
        *next += 1;
        self.begin + self.ends.iter().take_while(|end| **end < *next).count()
    }
}

/// Returns the waves of each group, which begin after the last wave of every group that it comes
/// after.
///
/// A group that only `beyond` has is not in the run and has no waves. A group after it begins
/// behind all groups that it comes after itself. The time is linear in the groups, the edges and
/// the instances.
fn group_waves(steps: &[Step], order: &[&Group], beyond: &Order) -> BTreeMap<String, GroupWaves> {
    let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for instance in steps
        .iter()
        .flat_map(|s| &s.instances)
        .filter(|m| m.instance.outcome != Outcome::Unchanged)
    {
        let (total, responsive) = counts.entry(&instance.instance.group).or_default();
        *total += 1;
        *responsive += usize::from(!instance.unresponsive);
    }
    let groups: BTreeMap<&str, &Group> = order.iter().map(|g| (g.name.as_str(), *g)).collect();
    let inside = order.iter().map(|g| (g.name.as_str(), g.after.as_slice()));
    let outside = beyond
        .iter()
        .map(|(name, after)| (name.as_str(), after.as_slice()))
        .filter(|(name, _)| !groups.contains_key(name));
    let nodes: Vec<(&str, &[String])> = inside.chain(outside).collect();
    let mut waves: BTreeMap<String, GroupWaves> = BTreeMap::new();
    let mut last_waves: Vec<Option<usize>> = vec![None; nodes.len()];
    let graph = Graph::of(&nodes);
    for node in graph.sorted() {
        let begin = graph
            .before(node)
            .filter_map(|before| last_waves[before])
            .max()
            .unwrap_or(0);
        let mut length = 0;
        if let Some(group) = groups.get(nodes[node].0) {
            let (total, responsive) = counts.get(nodes[node].0).copied().unwrap_or_default();
            let canary = group.kind.is_none() || group.on_bad_config == OnBadConfig::Dies;
            let ends = cuts(&group.rollout.waves, total, canary);
            length = ends.len();
            let group_waves = GroupWaves {
                begin,
                ends,
                next_responsive: 0,
                next_unresponsive: responsive,
            };
            waves.insert(group.name.clone(), group_waves);
        }
        last_waves[node] = Some(begin + length);
    }
    waves
}

/// Splits each step by wave; `order` is that of the file.
pub(super) fn in_waves(steps: Vec<Step>, order: &[&Group], beyond: &Order) -> Vec<Wave> {
    let mut groups = group_waves(&steps, order, beyond);
    let mut waves: BTreeMap<usize, Vec<Step>> = BTreeMap::new();
    for Step {
        changes,
        mut instances,
        direction,
    } in steps
    {
        // The survey finds instances in this order. Sorting them again would need the memory of all
        // of them once more.
        if !instances.is_sorted_by_key(|m| m.id) {
            instances.sort_by_key(|m| m.id);
        }
        let parts = group_by_targets(instances, |instance| {
            groups
                .get_mut(&instance.instance.group)
                .map_or(0, |waves| waves.assign(instance))
        });
        for (index, instances) in parts {
            waves.entry(index).or_default().push(Step {
                changes: changes.clone(),
                instances,
                direction,
            });
        }
    }
    waves
        .into_values()
        .zip(1..)
        .map(|(steps, number)| wave(steps, number))
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
