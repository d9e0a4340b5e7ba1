//! How many may fail: counted over the whole run, or over a group that says so.

use std::collections::{BTreeMap, BTreeSet};

use crate::{event::Outcome, fleet::OnFailure, plan::Plan, step::PlannedInstance};

/// What is left of every budget. A budget has the name of its group, or none for all groups that
/// say nothing of their own.
#[derive(Debug)]
pub(super) struct Budget {
    /// How many may fail.
    limits: BTreeMap<Option<String>, usize>,
    /// Who has.
    failed: BTreeMap<Option<String>, BTreeSet<(i32, u64)>>,
}

/// Failures that were not known before.
#[derive(Debug)]
pub(super) struct FailedInstances {
    pub(super) ids: BTreeSet<(i32, u64)>,
    /// The first, for people.
    pub(super) reason: String,
    /// What follows where a budget does not bear them.
    pub(super) then: Option<OnFailure>,
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
        let mut all: BTreeMap<Option<String>, (usize, &PlannedInstance)> = BTreeMap::new();
        // A part of those who are signalled: who runs it already cannot fail.
        for member in members(plan).filter(|m| m.instance.outcome != Outcome::Unchanged) {
            all.entry(key(member)).or_insert((0, member)).0 += 1;
        }
        let limits = all
            .into_iter()
            .map(|(key, (all, member))| (key, member.group.rollout.max_failures.rounded_down(all)))
            .collect();
        Self {
            limits,
            failed: BTreeMap::new(),
        }
    }

    /// Counts who has failed since it was asked last.
    pub(super) fn update(&mut self, plan: &Plan) -> FailedInstances {
        let mut failed = FailedInstances {
            ids: BTreeSet::new(),
            reason: String::new(),
            then: None,
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
                    .map_or("not proven", |t| &t.text);
                let more = if new.len() > 1 {
                    format!("; and {} more", new.len() - 1)
                } else {
                    String::new()
                };
                failed.reason = format!("pid {}: {why}{more}", member.instance.pid);
            }
            failed.ids.insert(member.id);
            if spent > self.limits.get(&key(member)).copied().unwrap_or(0) {
                failed.then = failed.then.max(Some(member.group.rollout.on_failure));
            }
        }
        failed
    }
}
