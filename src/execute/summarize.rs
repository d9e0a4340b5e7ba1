//! The report of a run, from its plan and the content on its host's disk.

use std::path::Path;

use crate::{
    event::{At, FailureKind, Instance, Outcome, TargetReport, Verdict},
    host::Host,
    plan::Plan,
    report::RunReport,
};

pub(super) fn run_report(verdict: Verdict, reason: String, plan: &Plan, host: &Host) -> RunReport {
    let targets: Vec<TargetReport> = plan
        .targets()
        .into_iter()
        .map(|change| {
            let mut report = change.report(host.disk_digest(&change.path));
            if let Some(key) = &mut report.key {
                key.own = host.own_revision(&change.path);
            }
            report
        })
        .collect();
    let mut instances: Vec<Instance> = plan.instances().cloned().collect();
    instances
        .iter_mut()
        .for_each(|instance| warn_of_new_config(instance, &targets));
    RunReport {
        notes: host.notes().iter().cloned().map(At::local).collect(),
        ..RunReport::new(verdict, reason, targets, instances)
    }
}

/// Adds to the failure of an unresponsive instance without a signal that its config has changed all
/// the same, because other instances read it too.
fn warn_of_new_config(instance: &mut Instance, targets: &[TargetReport]) {
    let is_new = |path: &Path| {
        targets.iter().any(|target| {
            target.path == path
                && target.from.as_ref() != Some(&target.to)
                && target.disk.as_ref() == Some(&target.to)
        })
    };
    if instance.outcome != Outcome::Untouched {
        return;
    }
    let Some(failure) = &mut instance.failure else {
        return;
    };
    if failure.kind != FailureKind::Unresponsive {
        return;
    }
    if let Some(path) = instance.targets.iter().find(|path| is_new(path)) {
        failure.text += &format!(
            "; `{}` holds the new config by now, on which it starts or reloads next",
            path.display()
        );
    }
}
