//! The plan of a run over all of its hosts, as the engine sees it: instances as entries, waves, and
//! what the groups say of failures.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    event::{Failure, Instance, Outcome},
    fleet::{OnFailure, Rollout},
    inventory::HostName,
    protocol::{HostLink, HostPlan, InstanceEntry},
    waves::Rounds,
};

/// Tells whether an outcome ends the run's work on its instance badly.
pub(super) fn has_failed(outcome: Outcome) -> bool {
    !matches!(
        outcome,
        Outcome::Confirmed
            | Outcome::Unconfirmed
            | Outcome::Unchanged
            | Outcome::Reverted
            | Outcome::Untouched
    )
}

/// One host of a run.
#[derive(Debug)]
pub(crate) struct RunHost<L> {
    /// The way to it.
    pub(crate) link: L,
    /// Its part of the plan.
    pub(crate) plan: HostPlan,
    /// The group of each entry, as an index of [`FleetPlan::groups`], by its own index.
    groups: Vec<usize>,
    /// True if a commit may have reached it.
    pub(super) is_committed: bool,
    /// True if the run has touched an instance or a target of it.
    pub(super) is_touched: bool,
    /// True if the rollback content of all of that is known.
    pub(super) can_roll_back: bool,
    /// Why it is lost, if it is.
    pub(crate) lost: Option<String>,
    /// Why instances failed, by their numbers.
    pub(super) failures: BTreeMap<u32, String>,
    /// The last outcome that the host has reported of each instance that failed because the host
    /// is lost.
    pub(super) reported: BTreeMap<u32, Outcome>,
}

/// The policy of a group, by the coordinator's file.
#[derive(Debug, Clone)]
pub(crate) struct GroupPolicy {
    /// The group.
    pub(crate) name: String,
    /// How it is rolled out.
    pub(crate) rollout: Rollout,
    /// The waves that are not the last round of a wave as it is written.
    pub(crate) rounds: Rounds,
}

/// Instances that are signalled together.
#[derive(Debug, Clone)]
pub(crate) struct FleetWave {
    /// Its number, from 1.
    pub(crate) number: usize,
    /// How many instances it signals.
    pub(crate) instances: usize,
    /// The pause before every proven instance is probed again.
    pub(crate) bake: Duration,
    /// Commands that must exit with 0 before the next wave.
    pub(crate) gates: Vec<Vec<String>>,
}

/// The plan of a run over all of its hosts.
#[derive(Debug)]
pub(crate) struct FleetPlan<L> {
    /// The hosts, in the order of the inventory.
    pub(crate) hosts: Vec<RunHost<L>>,
    /// The groups of the run.
    pub(crate) groups: Vec<GroupPolicy>,
    /// The waves, in their order.
    pub(crate) waves: Vec<FleetWave>,
}

/// An instance of a run: the index of its host, and its number there.
pub(super) type InstanceId = (usize, u32);

impl<L: HostLink> RunHost<L> {
    /// Returns the name of an instance in a sentence. That of a fleet of one host is its pid.
    pub(super) fn name_of(&self, number: u32) -> String {
        let pid = self.entry(number).map_or(0, |entry| entry.pid);
        if *self.link.name() == HostName::local() {
            format!("pid {pid}")
        } else {
            format!("{} pid {pid}", self.link.name())
        }
    }
}

impl<L> RunHost<L> {
    /// Returns true unless the connection to it broke.
    pub(super) fn is_there(&self) -> bool {
        self.lost.is_none()
    }

    /// Returns an instance as far as the coordinator knows it.
    fn instance(&self, number: u32, entry: &InstanceEntry) -> Instance {
        let group = self.plan.groups.get(usize::from(entry.group));
        let group = group.map_or("", String::as_str);
        let text = self.failures.get(&number);
        let failure = text
            .filter(|_| has_failed(entry.outcome))
            .map(|text| Failure {
                kind: entry.outcome.into(),
                text: text.clone(),
            });
        Instance {
            wave: usize::from(entry.wave),
            outcome: entry.outcome,
            failure,
            ..Instance::new(group, entry.pid, entry.started)
        }
    }

    /// Iterates over its instances as far as the coordinator knows them, by their numbers.
    pub(crate) fn instances(&self) -> impl Iterator<Item = (u32, Instance)> {
        let entries = (0..).zip(&self.plan.entries);
        entries.map(|(number, entry)| (number, self.instance(number, entry)))
    }

    pub(super) fn entry(&self, number: u32) -> Option<&InstanceEntry> {
        self.plan.entries.get(usize::try_from(number).ok()?)
    }

    /// Returns true if a wave signals or replaces something there.
    pub(super) fn is_in(&self, wave: usize) -> bool {
        let mut entries = self.plan.entries.iter();
        (wave == 1 && self.plan.has_unread_targets)
            || entries.any(|entry| usize::from(entry.wave) == wave)
    }
}

impl<L> FleetPlan<L> {
    /// Joins the plans of all hosts. `groups` has the policy of every group.
    pub(crate) fn new(hosts: Vec<(L, HostPlan)>, groups: Vec<GroupPolicy>) -> Self {
        let place: BTreeMap<&str, usize> = groups
            .iter()
            .enumerate()
            .map(|(index, group)| (group.name.as_str(), index))
            .collect();
        let hosts = hosts
            .into_iter()
            .map(|(link, plan)| RunHost {
                groups: plan
                    .groups
                    .iter()
                    .map(|name| place.get(name.as_str()).copied().unwrap_or(0))
                    .collect(),
                link,
                plan,
                is_committed: false,
                is_touched: false,
                can_roll_back: true,
                lost: None,
                failures: BTreeMap::new(),
                reported: BTreeMap::new(),
            })
            .collect();
        let mut plan = Self {
            hosts,
            groups,
            waves: Vec::new(),
        };
        plan.waves = plan.waves_of_entries();
        plan
    }

    fn group(&self, host: &RunHost<L>, entry: &InstanceEntry) -> &GroupPolicy {
        let index = host.groups.get(usize::from(entry.group)).copied();
        &self.groups[index.unwrap_or(0)]
    }

    /// Returns true if a wave is the last of several rounds of a group.
    pub(super) fn ends_rounds(&self, wave: usize) -> bool {
        let mut rounds = self.groups.iter().flat_map(|group| group.rounds.values());
        rounds.any(|last| *last == wave)
    }

    /// Returns the policy of an entry's group.
    pub(super) fn policy(&self, host: &RunHost<L>, entry: &InstanceEntry) -> &Rollout {
        &self.group(host, entry).rollout
    }

    /// Iterates over the rollout of every entry's group.
    pub(crate) fn rollouts(&self) -> impl Iterator<Item = &Rollout> {
        let entries = self.entries();
        entries.map(|(_, host, entry)| self.policy(host, entry))
    }

    /// Returns the name of an entry's group.
    pub(super) fn group_of(&self, host: &RunHost<L>, entry: &InstanceEntry) -> &str {
        &self.group(host, entry).name
    }

    /// Iterates over every entry, with its host and its identity in the run.
    pub(super) fn entries(
        &self,
    ) -> impl Iterator<Item = (InstanceId, &RunHost<L>, &InstanceEntry)> {
        self.hosts.iter().enumerate().flat_map(|(index, host)| {
            (0..)
                .zip(&host.plan.entries)
                .map(move |(number, entry)| ((index, number), host, entry))
        })
    }

    /// Returns the waves that the entries name.
    fn waves_of_entries(&self) -> Vec<FleetWave> {
        let mut waves: BTreeMap<usize, FleetWave> = BTreeMap::new();
        let empty = |number| FleetWave {
            number,
            instances: 0,
            bake: Duration::ZERO,
            gates: Vec::new(),
        };
        if self.hosts.iter().any(|host| host.plan.has_unread_targets) {
            waves.insert(1, empty(1));
        }
        for (_, host, entry) in self.entries() {
            let number = usize::from(entry.wave);
            let wave = waves.entry(number).or_insert_with(|| empty(number));
            if entry.outcome == Outcome::Unchanged {
                continue;
            }
            wave.instances += 1;
            // Bake and gate follow the wave as it is written, once.
            if self.group(host, entry).rounds.contains_key(&number) {
                continue;
            }
            let rollout = self.policy(host, entry);
            wave.bake = wave.bake.max(rollout.bake);
            if !rollout.gate.is_empty() && !wave.gates.contains(&rollout.gate) {
                wave.gates.push(rollout.gate.clone());
            }
        }
        waves.into_values().collect()
    }

    /// Returns the reaction of the strictest group of the waves up to `number`, at least `Stop`.
    pub(super) fn strictest_reaction(&self, number: usize) -> OnFailure {
        let begun = self
            .entries()
            .filter(|(_, _, entry)| (1..=number).contains(&usize::from(entry.wave)));
        let reactions = begun.map(|(_, host, entry)| self.policy(host, entry).on_failure);
        reactions
            .max()
            .unwrap_or(OnFailure::Stop)
            .max(OnFailure::Stop)
    }
}
