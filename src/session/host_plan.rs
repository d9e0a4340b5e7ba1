//! The plan of this host as a coordinator sees it.

use crate::{
    fleet::url_of,
    plan::Plan,
    protocol::{HostPlan, InstanceEntry},
};

/// Returns the entries of a plan, in the order of its waves.
pub(super) fn host_plan(plan: &Plan) -> HostPlan {
    let mut entries = HostPlan {
        keys: keys(plan),
        skipped: plan.skipped.len(),
        has_unread_targets: plan.steps().any(|s| s.instances.is_empty()),
        ..HostPlan::default()
    };
    for member in plan.skipped.iter().filter(|member| member.unresponsive) {
        let group = member.instance.group.clone();
        *entries.unresponsive.entry(group).or_default() += 1;
    }
    for member in plan.members() {
        let name = &member.instance.group;
        let known = entries.groups.iter().position(|group| group == name);
        let group = known.unwrap_or_else(|| {
            entries.groups.push(name.clone());
            entries.groups.len() - 1
        });
        entries.entries.push(InstanceEntry {
            started: member.id.1,
            pid: member.id.0,
            group: u16::try_from(group).unwrap_or(u16::MAX),
            wave: u16::try_from(member.instance.wave).unwrap_or(u16::MAX),
            outcome: member.instance.outcome,
            unresponsive: member.unresponsive,
        });
    }
    entries
}

fn keys(plan: &Plan) -> Vec<String> {
    let targets = plan.targets().into_iter();
    targets
        .filter_map(|change| url_of(&change.path).map(ToString::to_string))
        .collect()
}
