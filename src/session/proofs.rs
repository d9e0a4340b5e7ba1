//! The proofs that a run leaves for later runs, and for its own if it is killed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{
    event::Outcome,
    fleet::Speaks,
    host::Host,
    runs::{ProvenInstance, ProvenTarget, Reload},
    step::{PlannedInstance, Step, TargetChange},
};

/// Returns the proofs of every touched process of `steps` that cannot report what it runs.
pub(super) fn proofs_of<'a>(
    steps: impl Iterator<Item = &'a Step>,
    host: &Host,
) -> Vec<ProvenInstance> {
    let mut disk = Disk {
        host,
        targets: BTreeMap::new(),
    };
    steps
        .flat_map(|step| step.instances.iter().map(move |m| (step, m)))
        .filter(|(_, m)| m.group.speaks == Speaks::None && m.is_touched())
        .map(|(step, member)| proof_of(step, member, &mut disk))
        .collect()
}

/// The targets on the disk, each read once: many instances read the same one.
struct Disk<'a> {
    host: &'a Host,
    targets: BTreeMap<PathBuf, Option<ProvenTarget>>,
}

impl Disk<'_> {
    /// Returns a target as it is now; none if it cannot be read.
    fn target(&mut self, path: &Path) -> Option<ProvenTarget> {
        if let Some(known) = self.targets.get(path) {
            return known.clone();
        }
        let host = self.host;
        // Attributes before bytes: a change in between shows in a later read.
        let target = host.ctime(path).and_then(|ctime| {
            Some(ProvenTarget {
                ctime,
                sha256: host.disk_digest(path)?,
                behind: host.behind(path),
            })
        });
        self.targets.insert(path.to_owned(), target.clone());
        target
    }
}

fn proof_of(step: &Step, member: &PlannedInstance, disk: &mut Disk<'_>) -> ProvenInstance {
    // One target that is not proven proves none of them.
    let targets: Option<BTreeMap<_, _>> = step
        .changes
        .iter()
        .map(|change| proven_target(change, member, disk))
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
    disk: &mut Disk<'_>,
) -> Option<(PathBuf, ProvenTarget)> {
    let content = match member.instance.outcome {
        Outcome::Confirmed => Some(&change.to),
        Outcome::Reverted if !member.is_back_by_answers_alone() => change.from.as_ref(),
        _ => None,
    }?;
    let target = disk.target(&change.path)?;
    (target.sha256 == content.sha256).then(|| (change.path.clone(), target))
}
