//! The hosts that the terms of waves select, and the labels that policies name.

use std::collections::BTreeSet;

use super::policy::{WaveError, WavePolicy};
use crate::{
    fleet::WaveEnd,
    inventory::{Expression, HostEntry, HostName},
};

/// Terms, each with the hosts that it selects. Groups that share `[rollout]` share their terms too,
/// and each is matched once.
#[derive(Debug)]
pub(super) struct Selections<'a>(Vec<(&'a Expression, Vec<bool>)>);

impl<'a> Selections<'a> {
    /// Matches the terms of all policies.
    ///
    /// # Errors
    /// Fails with the first term that fits no host.
    pub(super) fn of(hosts: &[HostEntry], policies: &[WavePolicy<'a>]) -> Result<Self, WaveError> {
        let mut known: Vec<(&Expression, Vec<bool>)> = Vec::new();
        let ends = policies
            .iter()
            .flat_map(|policy| policy.waves.iter().map(|end| (policy.name, *end)));
        for (group, end) in ends {
            let WaveEnd::Hosts { on } = end else { continue };
            if known.iter().any(|(terms, _)| *terms == on) {
                continue;
            }
            // Terms of a file name no earlier run.
            let selected = on.select(hosts, |_, _, _: &HostName| false);
            let selected = selected.map_err(|unmatched| WaveError::Unmatched {
                group: group.to_owned(),
                unmatched,
            })?;
            let mut has = vec![false; hosts.len()];
            selected.into_iter().for_each(|host| has[host] = true);
            known.push((on, has));
        }
        Ok(Self(known))
    }

    /// Returns for each host whether the terms of a wave select it; none for a wave that is a
    /// share.
    pub(super) fn of_wave(&self, end: &WaveEnd) -> Option<&[bool]> {
        let WaveEnd::Hosts { on } = end else {
            return None;
        };
        let known = self.0.iter().find(|(terms, _)| *terms == on);
        known.map(|(_, has)| has.as_slice())
    }
}

/// Checks that each label of `spread` and `apart` is on a host. `hosts` are those of the fleet: a
/// run over some of them may well have no such host.
///
/// # Errors
/// Fails with the first label that no host has.
#[cfg_attr(
    not(test),
    expect(
        dead_code,
        reason = "the coordinator of a run over hosts checks its labels"
    )
)]
pub(crate) fn check_labels(
    hosts: &[HostEntry],
    policies: &[WavePolicy<'_>],
) -> Result<(), WaveError> {
    let known: BTreeSet<&str> = hosts
        .iter()
        .flat_map(|host| host.labels.keys())
        .map(String::as_str)
        .collect();
    for policy in policies {
        for (key, label) in [("spread", policy.spread), ("apart", policy.apart)] {
            if let Some(label) = label.filter(|label| !known.contains(label)) {
                return Err(WaveError::NoLabel {
                    group: policy.name.to_owned(),
                    key,
                    label: label.to_owned(),
                });
            }
        }
    }
    Ok(())
}
