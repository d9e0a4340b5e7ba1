//! Budgets: how many failures a run bears, over the whole run or over a group that has its own.

use std::collections::{BTreeMap, BTreeSet};

use crate::{event::Outcome, fleet::OnFailure, names, plan::Plan, step::PlannedInstance};

/// Every budget of a run. The key is the name of the group, or none for all groups without a budget
/// of their own.
#[derive(Debug)]
pub(super) struct Budget {
    /// How many instances may fail.
    limits: BTreeMap<Option<String>, usize>,
    /// The instances that have failed.
    failed: BTreeMap<Option<String>, BTreeSet<(i32, u64)>>,
}

/// Failures that were not known before.
#[derive(Debug)]
pub(super) struct FailedInstances {
    pub(super) ids: BTreeSet<(i32, u64)>,
    /// The first failure, as a sentence.
    pub(super) reason: String,
    /// The action of the strictest group whose budget is exceeded; none where all are within it.
    pub(super) action: Option<OnFailure>,
}

fn key(member: &PlannedInstance) -> Option<String> {
    member
        .group
        .rollout
        .alone
        .then(|| member.group.name.clone())
}

fn members(plan: &Plan) -> impl Iterator<Item = &PlannedInstance> {
    plan.steps().flat_map(|s| &s.instances)
}

impl Budget {
    pub(super) fn of(plan: &Plan) -> Self {
        let mut signalled: BTreeMap<Option<String>, (usize, &PlannedInstance)> = BTreeMap::new();
        // A percentage counts the instances that get a signal; one that runs the new config already
        // cannot fail.
        for member in members(plan).filter(|m| m.instance.outcome != Outcome::Unchanged) {
            signalled.entry(key(member)).or_insert((0, member)).0 += 1;
        }
        let limits = signalled
            .into_iter()
            .map(|(key, (count, member))| {
                (key, member.group.rollout.max_failures.rounded_down(count))
            })
            .collect();
        Self {
            limits,
            failed: BTreeMap::new(),
        }
    }

    /// Counts the failures that are new since the last call.
    pub(super) fn update(&mut self, plan: &Plan) -> FailedInstances {
        let mut failed = FailedInstances {
            ids: BTreeSet::new(),
            reason: String::new(),
            action: None,
        };
        let mut new: Vec<&PlannedInstance> = members(plan)
            .filter(|m| !m.is_good() && m.instance.outcome != Outcome::Untouched)
            .collect();
        new.retain(|m| self.failed.entry(key(m)).or_default().insert(m.id));
        for member in &new {
            let spent = self.failed.get(&key(member)).map_or(0, BTreeSet::len);
            if failed.ids.is_empty() {
                let why = member
                    .instance
                    .failure
                    .as_ref()
                    .map_or("not proven", |f| &f.text);
                let more = names::and_more(new.len() - 1);
                failed.reason = format!("pid {}: {why}{more}", member.instance.pid);
            }
            failed.ids.insert(member.id);
            if spent > self.limits.get(&key(member)).copied().unwrap_or(0) {
                failed.action = failed.action.max(Some(member.group.rollout.on_failure));
            }
        }
        failed
    }
}
