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
    let selections = Selections::of(hosts, policies)?;
    let mut slots = Slots::of(hosts, policies);
    let mut parts = Parts::of(entries);
    let inside: std::collections::BTreeSet<&str> = policies.iter().map(|p| p.name).collect();
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
    let graph = Graph::of(&nodes);
    for node in graph.sorted() {
        let before = graph.before(node).map(|before| last_waves[before]);
        let begin = before.max().unwrap_or(0);
        last_waves[node] = policies.get(node).map_or(begin, |policy| {
            let mut group = parts.of_group(node);
            let stages = stages(&group, policy, hosts, &selections);
            place(&mut group, &stages, begin, &mut slots)
        });
    }
    parts.waves(entries)
}

/// Numbers the waves of one group, which begin after the wave `begin`, and returns the last one.
fn place(
    parts: &mut [&mut Part],
    stages: &[Vec<(usize, u32)>],
    begin: u32,
    slots: &mut Slots<'_>,
) -> u32 {
    let mut last = begin;
    let mut first = u32::MAX;
    for stage in stages {
        let from = last + 1;
        for (part, end) in stage {
            let part = &mut parts[*part];
            let wave = slots.take(part.host, from);
            part.ends.push((*end, wave));
            last = last.max(wave);
            first = first.min(wave);
        }
    }
    if last > begin {
        for part in parts.iter_mut().filter(|part| part.signalled == 0) {
            part.first_wave = first;
        }
    }
    last
}
