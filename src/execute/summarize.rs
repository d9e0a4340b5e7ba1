//! The summary of a run, from its plan and what its host reads.

use std::path::PathBuf;

use crate::{
    event::{FailureKind, Instance, Outcome, TargetReport, Verdict},
    host::Host,
    plan::Plan,
    report::Summary,
};

pub(super) fn summary(
    run: String,
    verdict: Verdict,
    reason: String,
    plan: &Plan,
    host: &Host,
) -> Summary {
    let targets: Vec<TargetReport> = plan
        .targets()
        .into_iter()
        .map(|s| s.report(host.disk_digest(&s.path)))
        .collect();
    let mut instances: Vec<Instance> = plan.instances().cloned().collect();
    let new = |path: &PathBuf| {
        targets.iter().any(|t| {
            t.path == *path && t.from.as_ref() != Some(&t.to) && t.disk.as_ref() == Some(&t.to)
        })
    };
    for sick in instances
        .iter_mut()
        .filter(|i| i.outcome == Outcome::Untouched)
    {
        // It was not signalled, but others have changed what it reads.
        if let (Some(trouble), Some(path)) = (
            sick.failure
                .as_mut()
                .filter(|t| t.kind == FailureKind::Unresponsive),
            sick.targets.iter().find(|path| new(path)),
        ) {
            trouble.text += &format!(
                "; `{}` holds the new config by now, on which it starts or reloads next",
                path.display()
            );
        }
    }
    let notes = host.notes().to_vec();
    Summary {
        notes,
        ..Summary::new(run, verdict, reason, targets, instances)
    }
}
