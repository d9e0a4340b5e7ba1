//! Shows what a run would do, without doing it.

use std::time::Duration;

use super::fleet_run::FleetRun;
use crate::{
    engine::{FleetPlan, FleetWave},
    event::Verdict,
    fleet::{OnFailure, Rollout, Share},
    report::{AfterFailure, RunReport, WaveReport},
};

/// Adds to the rows of a run what a dry run shows besides. A run that only signals has neither
/// bake nor gate.
pub(super) fn report<L>(run: &FleetRun, plan: &FleetPlan<L>, report: RunReport) -> RunReport {
    RunReport {
        verdict: Verdict::Converged,
        waves: plan
            .waves
            .iter()
            .map(|wave| wave_report(wave, run.now))
            .collect(),
        dry_run: true,
        after_failure: after_failure(plan, run.now),
        ..report
    }
}

/// Returns what a failure would lead to, as far as the groups of the plan agree on it.
fn after_failure<L>(plan: &FleetPlan<L>, now: bool) -> AfterFailure {
    let mut rollouts = plan.rollouts();
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

fn wave_report(wave: &FleetWave, now: bool) -> WaveReport {
    let (bake, gates) = if now {
        (Duration::ZERO, Vec::new())
    } else {
        (wave.bake, wave.gates.clone())
    };
    WaveReport {
        wave: wave.number,
        instances: wave.instances,
        bake_seconds: bake.as_secs_f64(),
        gates,
    }
}
