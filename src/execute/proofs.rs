//! The proofs that a run leaves for later runs.

use std::{collections::BTreeMap, path::PathBuf};

use crate::{
    event::Outcome,
    fleet::Speaks,
    host::Host,
    plan::Plan,
    runs::{ProvenInstance, ProvenTarget, Reload},
    step::{PlannedInstance, Step, TargetChange},
};

/// Returns the proofs of every touched process that cannot report what it runs.
pub(super) fn proofs_of(plan: &Plan, host: &Host) -> impl Iterator<Item = ProvenInstance> {
    plan.steps()
        .flat_map(|step| step.instances.iter().map(move |m| (step, m)))
        .filter(|(_, m)| m.group.speaks == Speaks::None && m.is_touched())
        .map(|(step, member)| proof_of(step, member, host))
}

fn proof_of(step: &Step, member: &PlannedInstance, host: &Host) -> ProvenInstance {
    // One target that is not proven proves none of them.
    let targets: Option<BTreeMap<_, _>> = step
        .changes
        .iter()
        .map(|change| proven_target(change, member, host))
        .collect();
    let signalled = member.signalled.unwrap_or(jiff::Timestamp::MIN);
    let reload = if member.instance.outcome.is_settled() {
        Reload::Over(signalled)
    } else {
        Reload::Open
    };
    ProvenInstance {
        pid: member.instance.pid,
        started: member.instance.started,
        targets: targets.unwrap_or_default(),
        reload,
    }
}

/// Returns the target as it was proven; none where the proof does not cover its content on disk.
fn proven_target(
    change: &TargetChange,
    member: &PlannedInstance,
    host: &Host,
) -> Option<(PathBuf, ProvenTarget)> {
    let content = match member.instance.outcome {
        Outcome::Confirmed => Some(&change.to),
        Outcome::Reverted if !member.is_back_by_answers_alone() => change.from.as_ref(),
        _ => None,
    }?;
    let sha256 = host
        .disk_digest(&change.path)
        .filter(|disk| *disk == content.sha256)?;
    let target = ProvenTarget {
        sha256,
        ctime: host.ctime(&change.path)?,
        behind: host.behind(&change.path),
    };
    Some((change.path.clone(), target))
}
