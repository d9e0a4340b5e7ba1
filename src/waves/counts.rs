//! The number of instances of each group, over all hosts and on each.

use std::collections::BTreeMap;

use super::policy::WaveEntry;
use crate::{
    fleet::Count,
    inventory::{HostEntry, HostName},
};

/// The numbers of instances that a group must have.
#[derive(Debug, Clone)]
pub(crate) struct CountPolicy<'a> {
    /// Its name.
    pub name: &'a str,
    /// The indexes of its hosts, in the order in which they are checked.
    pub hosts: &'a [u32],
    /// The number over all hosts.
    pub count: Count,
    /// The number on each of its hosts; none if any number will do.
    pub per_host: Option<Count>,
}

/// A group that has another number of instances than it must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WrongCount {
    /// The group.
    pub group: String,
    /// The host; none if the number is that over all hosts.
    pub host: Option<HostName>,
    /// The number of instances that were found.
    pub found: usize,
    /// The number that there must be.
    pub wanted: Count,
}

/// Returns the first number of instances that is wrong: in the order of the policies, that of each
/// host before that over all hosts, which says less.
///
/// `refused` has the group and host of each instance that a check refused. Such an instance may be
/// one too many, which its refusal says better than a number: it counts towards the smallest number
/// alone.
pub(crate) fn check_per_host(
    entries: &[WaveEntry],
    refused: &[(u16, u32)],
    hosts: &[HostEntry],
    policies: &[CountPolicy<'_>],
) -> Option<WrongCount> {
    let mut on_hosts: BTreeMap<(usize, u32), Numbers> = BTreeMap::new();
    let mut over_all: BTreeMap<usize, Numbers> = BTreeMap::new();
    let passed = entries.iter().map(|entry| (entry.group, entry.host, true));
    let refused = refused.iter().map(|(group, host)| (*group, *host, false));
    for (group, host, has_passed) in passed.chain(refused) {
        let group = usize::from(group);
        on_hosts.entry((group, host)).or_default().add(has_passed);
        over_all.entry(group).or_default().add(has_passed);
    }
    policies.iter().enumerate().find_map(|(group, policy)| {
        let wrong = |host: Option<HostName>, numbers: Option<&Numbers>, wanted: Count| {
            let numbers = numbers.copied().unwrap_or_default();
            (!wanted.holds(numbers.found, numbers.passed)).then(|| WrongCount {
                group: policy.name.to_owned(),
                host,
                found: numbers.found,
                wanted,
            })
        };
        let on_host = |host: &u32| {
            let name = &hosts.get(*host as usize)?.name;
            let numbers = on_hosts.get(&(group, *host));
            wrong(Some(name.clone()), numbers, policy.per_host?)
        };
        let on_a_host = policy.hosts.iter().find_map(on_host);
        on_a_host.or_else(|| wrong(None, over_all.get(&group), policy.count))
    })
}

/// The instances of a group that were found, and those of them that no check refused.
#[derive(Debug, Default, Clone, Copy)]
struct Numbers {
    found: usize,
    passed: usize,
}

impl Numbers {
    fn add(&mut self, has_passed: bool) {
        self.found += 1;
        self.passed += usize::from(has_passed);
    }
}
