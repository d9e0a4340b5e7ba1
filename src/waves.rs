//! The wave of each instance, over one host or many: a pure function of numbers, labels and the
//! policies of groups. It knows no process and no file.

mod apart;
mod counts;
mod ends;
mod parts;
mod policy;
mod selections;
mod stages;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use self::{
    apart::Slots,
    parts::{Part, Parts},
    selections::Selections,
    stages::stages,
};
use crate::{
    fleet::{Graph, Order},
    inventory::HostEntry,
};

pub(crate) use self::policy::{WaveEntry, WaveError, WavePolicy};
pub(crate) use self::{
    counts::{CountPolicy, check_per_host},
    selections::check_labels,
};

/// The waves that `apart` has cut out of a larger one and that another round of it follows, each
/// with the last round.
pub(crate) type Rounds = BTreeMap<usize, usize>;

/// The waves of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assigned {
    /// The wave of each entry, from 1.
    pub waves: Vec<u16>,
    /// The rounds of each group.
    pub rounds: Vec<Rounds>,
}

/// Returns the wave of each entry, from 1.
///
/// - A group on one host is cut into instances, in the order of `entries`. A group on several hosts
///   is cut into whole hosts, in the order of `hosts`.
/// - Entries without a signal take no place. They join the first wave of their host, else that of
///   their group.
/// - Responsive instances come before unresponsive ones, which would prove nothing as a canary; so
///   do hosts that have a responsive instance.
/// - A group begins after the last wave of every group that it comes after. A group that only
///   `beyond` has is not in the run and has no waves: a group after it begins behind all groups
///   that it comes after itself.
/// - No wave before the last is without a signal.
///
/// The time is n log n in the entries, and linear in the groups and edges.
///
/// # Errors
/// Fails if a term of a policy fits none of `hosts`, or if a wave has a number above 65,535.
pub(crate) fn assign(
    entries: &[WaveEntry],
    hosts: &[HostEntry],
    policies: &[WavePolicy<'_>],
    beyond: &Order,
) -> Result<Vec<u16>, WaveError> {
    let assigned = assign_rounds(entries, hosts, policies, beyond);
    assigned.map(|assigned| assigned.waves)
}

/// Returns the wave of each entry like [`assign`], and the waves that are rounds of a larger one.
///
/// # Errors
/// Fails as [`assign`] does.
pub(crate) fn assign_rounds(
    entries: &[WaveEntry],
    hosts: &[HostEntry],
    policies: &[WavePolicy<'_>],
    beyond: &Order,
) -> Result<Assigned, WaveError> {
    let selections = Selections::of(hosts, policies)?;
    let mut slots = Slots::of(hosts, policies);
    let mut parts = Parts::of(entries);
    let inside: BTreeSet<&str> = policies.iter().map(|p| p.name).collect();
    let outside = beyond
        .iter()
        .map(|(name, after)| (name.as_str(), after.as_slice()))
        .filter(|(name, _)| !inside.contains(name));
    let nodes: Vec<(&str, &[String])> = policies
        .iter()
        .map(|policy| (policy.name, policy.after))
        .chain(outside)
        .collect();
    let mut last_waves = vec![0; nodes.len()];
    let mut rounds = vec![Rounds::new(); policies.len()];
    let graph = Graph::of(&nodes);
    for node in graph.sorted() {
        let before = graph.before(node).map(|before| last_waves[before]);
        let begin = before.max().unwrap_or(0);
        last_waves[node] = policies.get(node).map_or(begin, |policy| {
            let mut group = parts.of_group(node);
            let stages = stages(&group, policy, hosts, &selections);
            let (last, of_group) = place(&mut group, &stages, begin, &mut slots);
            rounds[node] = of_group;
            last
        });
    }
    let waves = parts.waves(entries)?;
    Ok(Assigned { waves, rounds })
}

/// Numbers the waves of one group, which begin after the wave `begin`. Returns the last one, and
/// those that another round follows.
fn place(
    parts: &mut [&mut Part],
    stages: &[Vec<(usize, u32)>],
    begin: u32,
    slots: &mut Slots<'_>,
) -> (u32, Rounds) {
    let mut last = begin;
    let mut first = u32::MAX;
    let mut rounds = Rounds::new();
    for stage in stages {
        let from = last + 1;
        let mut of_stage = BTreeSet::new();
        for (part, end) in stage {
            let part = &mut parts[*part];
            let wave = slots.take(part.host, from);
            part.ends.push((*end, wave));
            last = last.max(wave);
            first = first.min(wave);
            of_stage.insert(wave as usize);
        }
        of_stage.remove(&(last as usize));
        rounds.extend(of_stage.into_iter().map(|wave| (wave, last as usize)));
    }
    if last > begin {
        for part in parts.iter_mut().filter(|part| part.signalled == 0) {
            part.first_wave = first;
        }
    }
    (last, rounds)
}
