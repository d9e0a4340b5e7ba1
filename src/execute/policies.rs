//! What the coordinator's file says of the groups that hosts have: waves, counts, failures.

use std::collections::BTreeMap;

use crate::{
    engine::GroupPolicy,
    event::{Abort, Outcome, Verdict},
    fleet::{Count, Fleet, Order},
    hosts::ReadyHost,
    inventory::{Expression, HostEntry},
    names,
    protocol::HostPlan,
    screen,
    waves::{
        CountPolicy, Rounds, WaveEntry, WavePolicy, assign_rounds, check_labels, check_per_host,
    },
};

/// A group of a run over hosts.
#[derive(Debug)]
pub(super) struct HostGroup {
    pub(super) policy: GroupPolicy,
    /// The groups that it comes after.
    after: Vec<String>,
    /// One instance goes first alone.
    canary: bool,
    /// The hosts of the group; none if every host may have it.
    hosts: Option<Expression>,
    /// The number of instances over all hosts; none if the coordinator's file has no such group.
    count: Option<Count>,
    /// The number of instances on each host.
    per_host: Option<Count>,
}

/// Returns every group that a host has, those of the coordinator's file first.
pub(super) fn group_policies(
    (fleet, count): (&Fleet, Option<Count>),
    ready: &[ReadyHost],
) -> Vec<HostGroup> {
    let mut canaries: BTreeMap<&str, bool> = BTreeMap::new();
    for host in ready {
        for name in &host.plan.groups {
            let greeting = host
                .greeting
                .groups
                .iter()
                .find(|group| group.name == *name);
            // A group that the greeting lacks is taken for the careful case.
            *canaries.entry(name).or_default() |= greeting.is_none_or(|group| group.canary);
        }
    }
    let mut groups = Vec::new();
    for group in &fleet.groups {
        // A group that no host has is not in the run, unless its count says so.
        let canary = canaries.remove(group.name.as_str());
        groups.push(HostGroup {
            policy: GroupPolicy {
                name: group.name.clone(),
                rollout: group.rollout.clone(),
                rounds: Rounds::new(),
            },
            after: group.after.clone(),
            canary: canary.unwrap_or(false),
            hosts: group.hosts.clone(),
            count: Some(count.unwrap_or(group.count)),
            per_host: group.per_host,
        });
    }
    groups.extend(canaries.into_iter().map(|(name, canary)| HostGroup {
        policy: GroupPolicy {
            name: name.to_owned(),
            rollout: fleet.rollout.clone(),
            rounds: Rounds::new(),
        },
        after: Vec::new(),
        canary,
        hosts: None,
        count,
        per_host: None,
    }));
    groups
}

/// Returns the entries of all hosts, one after another.
fn wave_entries(plans: &[HostPlan], groups: &[HostGroup]) -> Vec<WaveEntry> {
    let place: BTreeMap<&str, u16> = groups
        .iter()
        .zip(0..)
        .map(|(group, index)| (group.policy.name.as_str(), index))
        .collect();
    let of_host = |(host, plan): (u32, &HostPlan)| {
        let group = |index: u16| {
            let name = plan.groups.get(usize::from(index));
            name.and_then(|name| place.get(name.as_str()).copied())
        };
        let entries = plan.entries.iter().map(|entry| WaveEntry {
            host,
            group: group(entry.group).unwrap_or(u16::MAX),
            signalled: entry.outcome != Outcome::Unchanged,
            responsive: !entry.unresponsive,
        });
        entries.collect::<Vec<_>>()
    };
    (0..).zip(plans).flat_map(of_host).collect()
}

/// Returns the unresponsive instances that hosts skip. They count as instances of their group.
fn skipped_entries(plans: &[HostPlan], groups: &[HostGroup]) -> Vec<WaveEntry> {
    let mut entries = Vec::new();
    for (host, plan) in (0..).zip(plans) {
        for (group, index) in groups.iter().zip(0..) {
            let skipped = plan.unresponsive.get(&group.policy.name);
            let entry = WaveEntry {
                host,
                group: index,
                signalled: false,
                responsive: false,
            };
            entries.extend(std::iter::repeat_n(entry, skipped.copied().unwrap_or(0)));
        }
    }
    entries
}

/// Checks the number of unresponsive instances of each group over all hosts, where the
/// coordinator's file limits it.
///
/// # Errors
/// Fails with the first group that has too many, or that has no other instance.
pub(super) fn check_unresponsive(
    entries: &[HostEntry],
    plans: &[HostPlan],
    groups: &[HostGroup],
) -> Result<(), Abort> {
    let found = wave_entries(plans, groups);
    for (group, index) in groups.iter().zip(0_u16..) {
        let (name, rollout) = (&group.policy.name, &group.policy.rollout);
        let of_host = |plan: &HostPlan| plan.unresponsive.get(name).copied().unwrap_or(0);
        let skipped: usize = plans.iter().map(of_host).sum();
        if skipped == 0 || !rollout.limits_unresponsive {
            continue;
        }
        let others = found.iter().filter(|entry| entry.group == index);
        let responsive = others.clone().filter(|entry| entry.responsive).count();
        let total = others.count() + skipped;
        let max = rollout.max_unresponsive;
        if responsive > 0 && skipped <= max.rounded_down(total) {
            continue;
        }
        let hosts = entries.iter().zip(plans);
        let hosts = hosts.filter(|(_, plan)| of_host(plan) > 0);
        let hosts = names::list(hosts.map(|(entry, _)| &entry.name), ", ", names::MOST);
        let why = format!(
            "{skipped} of {total} of group `{name}` over all hosts are unresponsive ({hosts}), and \
             its `max_unresponsive` is {max}; --include-unresponsive includes them"
        );
        return Err(Abort::new(Verdict::Refused, why));
    }
    Ok(())
}

/// Checks the number of instances of each group, on each of its hosts and over all.
///
/// # Errors
/// Fails with the first number that is wrong.
pub(super) fn check_counts(
    entries: &[HostEntry],
    plans: &[HostPlan],
    groups: &[HostGroup],
) -> Result<(), Abort> {
    let all: Vec<u32> = (0..).take(entries.len()).collect();
    let hosts: Vec<Vec<u32>> = groups
        .iter()
        .map(|group| match &group.hosts {
            None => all.clone(),
            Some(terms) => (0..)
                .zip(entries)
                .filter(|(_, entry)| terms.fits(entry))
                .map(|(index, _)| index)
                .collect(),
        })
        .collect();
    let policies: Vec<CountPolicy<'_>> = groups
        .iter()
        .zip(&hosts)
        .map(|(group, hosts)| CountPolicy {
            name: &group.policy.name,
            hosts,
            count: group.count.unwrap_or_else(Count::any),
            per_host: group.per_host,
        })
        .collect();
    let mut found = wave_entries(plans, groups);
    found.extend(skipped_entries(plans, groups));
    let Some(wrong) = check_per_host(&found, &[], entries, &policies) else {
        return Ok(());
    };
    let place = wrong
        .host
        .map_or_else(|| "over all hosts".to_owned(), |host| format!("on {host}"));
    Err(Abort::new(
        Verdict::NoMatch,
        format!(
            "group `{}` has {} {place}, not {}",
            wrong.group,
            screen::counted(wrong.found, "instance"),
            wrong.wanted
        ),
    ))
}

/// Gives each instance its wave over all hosts. Returns the rounds of each group.
///
/// # Errors
/// Fails if a term or a label fits no host, or if there are too many waves.
pub(super) fn set_waves(
    plans: &mut [HostPlan],
    entries: &[HostEntry],
    groups: &[HostGroup],
    beyond: &Order,
) -> Result<Vec<Rounds>, Abort> {
    let policies: Vec<WavePolicy<'_>> = groups
        .iter()
        .map(|group| WavePolicy {
            name: &group.policy.name,
            after: &group.after,
            waves: group.policy.rollout.waves.iter().collect(),
            canary: group.canary,
            spread: group.policy.rollout.spread.as_deref(),
            apart: group.policy.rollout.apart.as_deref(),
        })
        .collect();
    check_labels(entries, &policies)?;
    let found = wave_entries(plans, groups);
    let assigned = assign_rounds(&found, entries, &policies, beyond)?;
    let entries = plans.iter_mut().flat_map(|plan| &mut plan.entries);
    for (entry, wave) in entries.zip(assigned.waves) {
        entry.wave = wave;
    }
    Ok(assigned.rounds)
}

/// Checks that no key of a store is the target of several hosts: each would replace it, and only
/// the first could.
///
/// # Errors
/// Fails with `Usage` if one is.
pub(super) fn check_keys(entries: &[HostEntry], plans: &[HostPlan]) -> Result<(), Abort> {
    let mut owners: BTreeMap<&str, &HostEntry> = BTreeMap::new();
    for (entry, plan) in entries.iter().zip(plans) {
        for key in &plan.keys {
            if let Some(other) = owners.insert(key, entry) {
                let (one, two) = (&other.name, &entry.name);
                let why = format!(
                    "`{key}` is the target of a group on {one} and on {two}: a key that several \
                     hosts read is changed once, and reloaded by `source` on each of them"
                );
                return Err(Abort::new(Verdict::Usage, why));
            }
        }
    }
    Ok(())
}
