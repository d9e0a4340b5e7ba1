//! Shows what a run would do, without doing it.

use std::time::Duration;

use super::summarize::run_report;
use crate::{
    event::{TargetReport, Verdict},
    fleet::{OnFailure, Rollout, Share},
    host::Host,
    plan::{Plan, Wave},
    report::{AfterFailure, RunReport, WaveReport},
    step::{ContentDifference, Side, TargetChange},
};

/// Returns what would be done, with the difference of every config that is not secret. With `now`
/// there is neither bake nor gate.
pub(super) fn report(plan: &Plan, host: &Host, now: bool, reason: String) -> RunReport {
    let mut report = run_report(Verdict::Converged, reason, plan, host);
    for (target, change) in report.targets.iter_mut().zip(plan.targets()) {
        show_difference(target, change);
    }
    let waves = plan.waves.iter().map(|wave| wave_report(wave, now));
    RunReport {
        waves: waves.collect(),
        dry_run: true,
        after_failure: after_failure(plan, now),
        ..report
    }
}

/// Returns what a failure would lead to, as far as the groups of the plan agree on it.
fn after_failure(plan: &Plan, now: bool) -> AfterFailure {
    let mut rollouts = plan
        .steps()
        .flat_map(|step| &step.instances)
        .map(|instance| &instance.group.rollout);
    let rolls_back = |rollout: &Rollout| {
        rollout.on_failure == OnFailure::Revert && rollout.max_failures == Share::Count(0)
    };
    if now {
        AfterFailure::Nothing
    } else if rollouts.all(rolls_back) {
        AfterFailure::RollBack
    } else {
        AfterFailure::RollBackFailed
    }
}

fn show_difference(target: &mut TargetReport, change: &TargetChange) {
    let Some(from) = &change.from else { return };
    // A content that is on the disk already is compared with the one from before it.
    let names = match &target.disk {
        Some(disk) if *disk == target.to => ["before", "disk"],
        _ => ["now", "new"],
    };
    let sides = names.map(|name| Side { name, note: "" });
    let difference = ContentDifference::of(from, &change.to, sides);
    target.entries = difference.entries;
    target.diff = difference.diff.filter(|_| !change.secret);
}

fn wave_report(wave: &Wave, now: bool) -> WaveReport {
    let (bake, gates) = if now {
        (Duration::ZERO, Vec::new())
    } else {
        (wave.bake, wave.gates.clone())
    };
    WaveReport {
        wave: wave.number,
        instances: wave.instances(),
        bake_seconds: bake.as_secs_f64(),
        gates,
    }
}
