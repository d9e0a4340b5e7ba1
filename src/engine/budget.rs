//! Budgets: how many failures a run bears, over the whole run or over a group that has its own.

use std::collections::{BTreeMap, BTreeSet};

use super::fleet_plan::{FleetPlan, InstanceId, has_failed};
use crate::{
    event::Outcome,
    fleet::{OnFailure, Rollout},
    names,
    protocol::HostLink,
};

/// Every budget of a run. The key is the name of the group, or none for all groups without a budget
/// of their own.
#[derive(Debug)]
pub(super) struct Budget {
    /// How many instances may fail.
    limits: BTreeMap<Option<String>, usize>,
    /// The instances that have failed.
    failed: BTreeMap<Option<String>, BTreeSet<InstanceId>>,
}

/// Failures that were not known before.
#[derive(Debug)]
pub(super) struct FailedInstances {
    pub(super) ids: BTreeSet<InstanceId>,
    /// The first failure, as a sentence.
    pub(super) reason: String,
    /// The action of the strictest group whose budget is exceeded; none where all are within it.
    pub(super) action: Option<OnFailure>,
}

fn key(group: &str, rollout: &Rollout) -> Option<String> {
    rollout.alone.then(|| group.to_owned())
}

impl Budget {
    pub(super) fn of<L: HostLink>(plan: &FleetPlan<L>) -> Self {
        let mut signalled: BTreeMap<Option<String>, (usize, &Rollout)> = BTreeMap::new();
        // A percentage counts the instances that get a signal; one that runs the new config already
        // cannot fail.
        for (_, host, entry) in plan.entries() {
            if entry.outcome == Outcome::Unchanged {
                continue;
            }
            let rollout = plan.policy(host, entry);
            let key = key(plan.group_of(host, entry), rollout);
            signalled.entry(key).or_insert((0, rollout)).0 += 1;
        }
        let limits = signalled
            .into_iter()
            .map(|(key, (count, rollout))| (key, rollout.max_failures.rounded_down(count)))
            .collect();
        Self {
            limits,
            failed: BTreeMap::new(),
        }
    }

    /// Takes instances back that have not failed after all.
    pub(super) fn forgive(&mut self, ids: impl Iterator<Item = InstanceId>) {
        for id in ids {
            for failed in self.failed.values_mut() {
                failed.remove(&id);
            }
        }
    }

    /// Counts the failures that are new since the last call.
    pub(super) fn update<L: HostLink>(&mut self, plan: &FleetPlan<L>) -> FailedInstances {
        let mut failed = FailedInstances {
            ids: BTreeSet::new(),
            reason: String::new(),
            action: None,
        };
        let mut new: Vec<_> = plan
            .entries()
            // Instances of a host that is skipped have a budget of their own.
            .filter(|(_, _, entry)| entry.wave > 0 && has_failed(entry.outcome))
            .map(|(id, host, entry)| {
                let rollout = plan.policy(host, entry);
                (id, host, rollout, key(plan.group_of(host, entry), rollout))
            })
            .collect();
        new.retain(|(id, _, _, key)| self.failed.entry(key.clone()).or_default().insert(*id));
        for (id, host, rollout, key) in &new {
            let spent = self.failed.get(key).map_or(0, BTreeSet::len);
            if failed.ids.is_empty() {
                let why = host
                    .failures
                    .get(&id.1)
                    .map_or("not proven", String::as_str);
                let more = names::and_more(new.len() - 1);
                failed.reason = format!("{}: {why}{more}", host.name_of(id.1));
            }
            failed.ids.insert(*id);
            if spent > self.limits.get(key).copied().unwrap_or(0) {
                failed.action = failed.action.max(Some(rollout.on_failure));
            }
        }
        failed
    }
}
