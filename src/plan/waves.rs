//! Who is signalled when.

use std::{collections::BTreeMap, time::Duration};

use super::readers::group_by_targets;
use crate::{
    event::Outcome,
    fleet::{Graph, Group, OnBadConfig, Order, Share},
    step::Step,
};

#[cfg(test)]
mod tests;

/// Instances that are signalled together.
#[derive(Debug)]
pub struct Wave {
    /// From 1.
    pub number: usize,
    /// By what they read.
    pub steps: Vec<Step>,
    /// How long it is left alone before every proven instance is looked at again.
    pub bake: Duration,
    /// Commands that must exit 0 before the next wave.
    pub gates: Vec<Vec<String>>,
}

impl Wave {
    /// How many of it are to be signalled.
    #[must_use]
    pub fn instances(&self) -> usize {
        self.steps
            .iter()
            .flat_map(|s| &s.instances)
            .filter(|m| m.instance.outcome != Outcome::Unchanged)
            .count()
    }
}

/// How many of `all` have been signalled after each wave: cumulative, the last is `all`. A wave has
/// one more than the one before at least, as long as there are any; so more instances never make a
/// wave empty. With `canary` the first is one alone, whatever `waves` say.
pub(super) fn cuts(waves: &[Share], all: usize, canary: bool) -> Vec<usize> {
    // The waves may begin with one alone themselves.
    let canary = canary && waves.first().is_none_or(|first| first.rounded_up(all) > 1);
    let mut ends: Vec<usize> = Vec::new();
    for wanted in canary
        .then_some(1)
        .into_iter()
        .chain(waves.iter().map(|w| w.rounded_up(all)))
        .chain([all])
    {
        let last = ends.last().copied().unwrap_or(0);
        if last < all {
            ends.push(wanted.max(last + 1).min(all));
        }
    }
    ends
}

/// What is known of one group: the wave that its own begin after, how many it has signalled by the
/// end of each, and how many have had their turn, of those that answer and of those that do not.
type Turns = (usize, Vec<usize>, [usize; 2]);

/// Where the waves of each group begin: after the last one of every group that it comes after. A
/// group of `beyond` is not in the run and has no waves; what comes after it comes after all that
/// it comes after. Takes as long as there are groups, edges and members.
fn turns(steps: &[Step], order: &[&Group], beyond: &Order) -> BTreeMap<String, Turns> {
    let mut many: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for member in steps
        .iter()
        .flat_map(|s| &s.instances)
        .filter(|m| m.instance.outcome != Outcome::Unchanged)
    {
        let (all, healthy) = many.entry(&member.instance.group).or_default();
        *all += 1;
        *healthy += usize::from(!member.unresponsive);
    }
    let named: BTreeMap<&str, &Group> = order.iter().map(|g| (g.name.as_str(), *g)).collect();
    let mine = order.iter().map(|g| (g.name.as_str(), g.after.as_slice()));
    let others = beyond
        .iter()
        .map(|(name, after)| (name.as_str(), after.as_slice()))
        .filter(|(name, _)| !named.contains_key(name));
    let nodes: Vec<(&str, &[String])> = mine.chain(others).collect();
    let mut turns: BTreeMap<String, Turns> = BTreeMap::new();
    let mut ends: Vec<Option<usize>> = vec![None; nodes.len()];
    let graph = Graph::of(&nodes);
    for at in graph.sorted() {
        let begins = graph
            .before(at)
            .filter_map(|before| ends[before])
            .max()
            .unwrap_or(0);
        let mut signalled = Vec::new();
        if let Some(group) = named.get(nodes[at].0) {
            let (all, healthy) = many.get(nodes[at].0).copied().unwrap_or_default();
            let canary = group.kind.is_none() || group.on_bad_config == OnBadConfig::Dies;
            signalled = cuts(&group.rollout.waves, all, canary);
            turns.insert(
                group.name.clone(),
                (begins, signalled.clone(), [0, healthy]),
            );
        }
        ends[at] = Some(begins + signalled.len());
    }
    turns
}

/// Each step in parts, by wave; `order` is that of the file.
pub(super) fn in_waves(steps: Vec<Step>, order: &[&Group], beyond: &Order) -> Vec<Wave> {
    let mut groups = turns(&steps, order, beyond);
    let mut waves: BTreeMap<usize, Vec<Step>> = BTreeMap::new();
    for Step {
        changes: shifts,
        instances: mut members,
        undo,
    } in steps
    {
        // The survey finds them in this order; only what it did not is moved, which takes the room
        // of all of them once more.
        if !members.is_sorted_by_key(|m| m.id) {
            members.sort_by_key(|m| m.id);
        }
        let parts = group_by_targets(members, |member| {
            groups
                .get_mut(&member.instance.group)
                .map_or(0, |(begins, ends, turns)| {
                    if member.instance.outcome == Outcome::Unchanged {
                        // A wave in which nobody is signalled is none.
                        return if ends.is_empty() { 0 } else { *begins };
                    }
                    // A canary that is known to be silent would prove nothing: those go last.
                    let turn = &mut turns[usize::from(member.unresponsive)];
                    *turn += 1;
                    *begins + ends.iter().take_while(|end| **end < *turn).count()
                })
        });
        for (at, members) in parts {
            waves.entry(at).or_default().push(Step {
                changes: shifts.clone(),
                instances: members,
                undo,
            });
        }
    }
    waves
        .into_values()
        .zip(1..)
        .map(|(steps, number)| wave(steps, number))
        .collect()
}

/// All of them together.
pub(super) fn instances_at_once(steps: Vec<Step>) -> Vec<Wave> {
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
    for member in steps
        .iter()
        .flat_map(|s| &s.instances)
        .filter(|m| m.instance.outcome != Outcome::Unchanged)
    {
        let rollout = &member.group.rollout;
        wave.bake = wave.bake.max(rollout.bake);
        if !rollout.gate.is_empty() && !wave.gates.contains(&rollout.gate) {
            wave.gates.push(rollout.gate.clone());
        }
    }
    wave.steps = steps;
    wave
}
