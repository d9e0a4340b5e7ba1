//! Hosts that are never in one wave of a run, because they have a label's value in common.

use std::collections::{BTreeMap, BTreeSet};

use super::policy::WavePolicy;
use crate::inventory::HostEntry;

/// The waves that hosts with one value of a label have taken: each with a later wave, up to which
/// all are taken. Following these and making them longer costs log n on average.
#[derive(Debug, Default)]
struct Taken(BTreeMap<u32, u32>);

impl Taken {
    /// Returns the first wave from `from` on that no host has taken.
    fn free(&mut self, from: u32) -> u32 {
        let mut free = from;
        while let Some(next) = self.0.get(&free) {
            free = *next;
        }
        let mut passed = from;
        while let Some(next) = self.0.get_mut(&passed) {
            passed = std::mem::replace(next, free);
        }
        free
    }

    fn take(&mut self, wave: u32) {
        self.0.entry(wave).or_insert(wave + 1);
    }
}

/// The waves that hosts have taken, over all groups of a run.
#[derive(Debug)]
pub(super) struct Slots<'a> {
    hosts: &'a [HostEntry],
    /// The labels that keep hosts apart, each with what the hosts of a value have taken.
    labels: Vec<(&'a str, BTreeMap<&'a str, Taken>)>,
    /// The waves of each host that has one of the labels.
    own: BTreeSet<(u32, u32)>,
}

impl<'a> Slots<'a> {
    /// Returns slots that are all free. A label that one group names holds for all groups of the
    /// run: another group on the same hosts takes the pair down just so.
    pub(super) fn of(hosts: &'a [HostEntry], policies: &[WavePolicy<'a>]) -> Self {
        let labels: BTreeSet<&str> = policies.iter().filter_map(|policy| policy.apart).collect();
        Self {
            hosts,
            labels: labels
                .into_iter()
                .map(|label| (label, BTreeMap::new()))
                .collect(),
            own: BTreeSet::new(),
        }
    }

    /// Puts a host into the first wave from `from` on in which no other host has a value in common
    /// with it, and returns the wave. Each wave that it passes over has such a host, and so an
    /// instance to signal.
    pub(super) fn take(&mut self, host: u32, from: u32) -> u32 {
        let Some(entry) = self.hosts.get(host as usize) else {
            return from;
        };
        let mut taken: Vec<&mut Taken> = self
            .labels
            .iter_mut()
            .filter_map(|(label, values)| {
                let value = entry.labels.get(*label)?;
                Some(values.entry(value.as_str()).or_default())
            })
            .collect();
        if taken.is_empty() {
            return from;
        }
        let mut wave = from;
        loop {
            let own = self.own.range((host, wave)..=(host, u32::MAX)).next();
            let own = own.map_or(u32::MAX, |(_, wave)| *wave);
            let free = taken.iter_mut().map(|taken| taken.free(wave)).max();
            let next = free.unwrap_or(wave).min(own);
            if next == wave {
                break;
            }
            wave = next;
        }
        taken.iter_mut().for_each(|taken| taken.take(wave));
        self.own.insert((host, wave));
        wave
    }
}
