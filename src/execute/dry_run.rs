//! Shows what a run would do, without doing it.

use std::time::Duration;

use super::summarize::run_report;
use crate::{
    event::{TargetReport, Verdict},
    host::Host,
    plan::{Plan, Wave},
    report::{RunReport, WaveReport},
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
        ..report
    }
}

fn show_difference(target: &mut TargetReport, change: &TargetChange) {
    let Some(from) = &change.from else { return };
    let sides = ["now", "new"].map(|name| Side { name, note: "" });
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
