//! The waves of one group, before they have numbers.

use std::collections::BTreeMap;

use super::{
    ends::{Units, ends},
    parts::Part,
    policy::WavePolicy,
    selections::Selections,
};
use crate::inventory::HostEntry;

/// One wave of a group: the index of each of its parts, and how many instances of that part have
/// been signalled after it.
pub(super) type Stage = Vec<(usize, u32)>;

/// Returns the waves of one group. `parts` are in the order of the hosts.
///
/// With a canary the first wave is one instance, even if `waves` begins with more.
pub(super) fn stages(
    parts: &[&mut Part],
    policy: &WavePolicy<'_>,
    hosts: &[HostEntry],
    selections: &Selections<'_>,
) -> Vec<Stage> {
    let signalled = || (0..parts.len()).filter(|part| parts[*part].signalled > 0);
    let mut stages = match (signalled().next(), signalled().nth(1)) {
        (Some(only), None) => of_one_host(only, parts[only], policy, selections),
        _ => of_hosts(&order(parts, policy, hosts, selections), parts, policy),
    };
    let Some(first) = stages.first_mut() else {
        return stages;
    };
    let size: u32 = first.iter().map(|(_, end)| end).sum();
    if policy.canary && size > 1 {
        let canary = first[0].0;
        // The rest of its host comes with the next wave, if it has a rest.
        if parts[canary].signalled == 1 {
            first.remove(0);
        }
        stages.insert(0, vec![(canary, 1)]);
    }
    stages
}

/// Cuts a group on one host into instances.
fn of_one_host(
    index: usize,
    part: &Part,
    policy: &WavePolicy<'_>,
    selections: &Selections<'_>,
) -> Vec<Stage> {
    let total = part.signalled as usize;
    let named = |wave: usize| {
        let selected = selections.of_wave(policy.waves[wave]);
        let is_named = selected.and_then(|has| has.get(part.host as usize));
        if is_named.is_some_and(|is_named| *is_named) {
            total
        } else {
            0
        }
    };
    let units = Units {
        units: total,
        instances: total,
        reach: &|instances| instances,
        named: &named,
    };
    ends(&policy.waves, &units)
        .into_iter()
        .filter_map(|end| Some(vec![(index, u32::try_from(end).ok()?)]))
        .collect()
}

/// A part of a group on several hosts, in the order in which they are taken.
struct Taken {
    part: usize,
    /// The index of the first wave that names the host; greater than all if none does.
    named_by: usize,
}

/// Cuts a group on several hosts into hosts.
fn of_hosts(order: &[Taken], parts: &[&mut Part], policy: &WavePolicy<'_>) -> Vec<Stage> {
    let mut instances = 0;
    let sums: Vec<usize> = order
        .iter()
        .map(|taken| {
            instances += parts[taken.part].signalled as usize;
            instances
        })
        .collect();
    let units = Units {
        units: order.len(),
        instances,
        reach: &|wanted| sums.partition_point(|sum| *sum < wanted) + 1,
        named: &|wave| order.partition_point(|taken| taken.named_by <= wave),
    };
    let mut begin = 0;
    ends(&policy.waves, &units)
        .into_iter()
        .map(|end| {
            let hosts = &order[begin..end];
            begin = end;
            let whole = |taken: &Taken| (taken.part, parts[taken.part].signalled);
            hosts.iter().map(whole).collect()
        })
        .collect()
}

/// Returns the parts that have an instance to signal, in the order in which they are taken: those
/// that a wave names come first, by wave. Of these, and of the others, hosts without a responsive
/// instance come last. Within that, the values of the label `spread` alternate in the order of the
/// hosts.
fn order(
    parts: &[&mut Part],
    policy: &WavePolicy<'_>,
    hosts: &[HostEntry],
    selections: &Selections<'_>,
) -> Vec<Taken> {
    let named: Vec<(usize, &[bool])> = policy
        .waves
        .iter()
        .enumerate()
        .filter_map(|(wave, end)| Some((wave, selections.of_wave(end)?)))
        .collect();
    // Hosts without the label count as one more value.
    let value = |host: u32| {
        let host = hosts.get(host as usize)?;
        policy.spread.and_then(|label| host.labels.get(label))
    };
    let mut values: BTreeMap<Option<&String>, usize> = BTreeMap::new();
    let mut dealt: BTreeMap<(usize, bool, usize), usize> = BTreeMap::new();
    let mut keyed = Vec::new();
    for (index, part) in parts.iter().enumerate().filter(|(_, p)| p.signalled > 0) {
        let host = part.host as usize;
        let named_by = named
            .iter()
            .find(|(_, has)| has.get(host).is_some_and(|has| *has))
            .map_or(usize::MAX, |(wave, _)| *wave);
        let is_unresponsive = part.responsive == 0;
        let known = values.len();
        let value = *values.entry(value(part.host)).or_insert(known);
        let round = dealt.entry((named_by, is_unresponsive, value)).or_insert(0);
        let round_of_spread = if policy.spread.is_some() { *round } else { 0 };
        *round += 1;
        keyed.push((named_by, is_unresponsive, round_of_spread, value, index));
    }
    keyed.sort_unstable();
    let taken = |(named_by, _, _, _, part)| Taken { part, named_by };
    keyed.into_iter().map(taken).collect()
}
