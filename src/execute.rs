//! From prepared hosts to a verdict: waves, engine, summary. A broadcast, a resume and a revert
//! share these steps.

use crate::{
    engine::{self, EngineOptions, FleetPlan, RunEnd},
    event::{Abort, Event, Interrupts, Verdict, check_interrupts},
    inventory::HostName,
    protocol::{Finish, HostRows},
    report::RunReport,
    session::{Prepared, RunningSession},
};

mod command;
mod decision;
mod dry_run;
mod fleet_run;
mod gate;
mod hosts_end;
mod hosts_order;
mod index;
mod options;
mod over_hosts;
mod policies;
mod reason;
mod rows;

use self::{fleet_run::FleetRun, gate::OperatorGates, reason::Reasons, rows::report_of};
pub(crate) use self::{
    hosts_order::{Candidates, HostsOrder},
    options::RunOptions,
    over_hosts::execute_over_hosts,
};

/// Carries out the run of a prepared host, or shows what it would do.
///
/// # Errors
/// Fails if the run ended before it touched anything.
pub(crate) async fn execute(
    prepared: Prepared,
    interrupts: &mut Interrupts,
    on_event: &mut impl FnMut(&Event),
) -> Result<RunReport, Abort> {
    let explain = prepared.explanation();
    let run = FleetRun::of_this_host(prepared.context());
    carry_out(&run, prepared, interrupts, on_event)
        .await
        .map_err(explain)
}

/// Carries out the run of one prepared host.
async fn carry_out(
    run: &FleetRun,
    prepared: Prepared,
    interrupts: &mut Interrupts,
    on_event: &mut impl FnMut(&Event),
) -> Result<RunReport, Abort> {
    let host_plan = prepared.host_plan();
    let (has_work, must_record) = (host_plan.has_work, host_plan.must_record);
    if run.dry_run {
        let rows = prepared.preview();
        let reason = Reasons::new(run, &rows.instances, has_work).dry_run();
        let plan = FleetPlan::new(vec![((), host_plan)], run.groups.clone());
        let report = report_of(Verdict::Converged, reason, rows);
        return Ok(dry_run::report(run, &plan, report));
    }
    if !has_work && !must_record {
        let (rows, ends) = prepared.unchanged(interrupts).await?;
        let reason = Reasons::new(run, &rows.instances, false).unchanged();
        return Ok(report_of(Verdict::of(ends, false), reason, rows));
    }
    check_interrupts(interrupts)?;
    let session = prepared.begin(None, interrupts).await?;
    let mut plan = FleetPlan::new(vec![(session, host_plan)], run.groups.clone());
    on_event(&Event::Waves {
        instances: plan.waves.iter().map(|wave| wave.instances).collect(),
    });
    let options = EngineOptions {
        immediate: run.now,
        parallel: run.parallel,
    };
    let mut gates = OperatorGates { run: &run.id };
    let mut report = |_: &HostName, event: &Event| on_event(event);
    let ended = engine::run(&mut plan, options, interrupts, &mut gates, &mut report).await;
    conclude(run, plan, (ended, has_work), interrupts, on_event).await
}

/// Ends a run on its hosts, and reports it.
async fn conclude(
    run: &FleetRun,
    plan: FleetPlan<RunningSession>,
    (ended, has_work): (Result<RunEnd, Abort>, bool),
    interrupts: &Interrupts,
    on_event: &mut impl FnMut(&Event),
) -> Result<RunReport, Abort> {
    let mut sessions: Vec<RunningSession> = plan.hosts.into_iter().map(|host| host.link).collect();
    let mut rows = HostRows::default();
    for session in &mut sessions {
        let HostRows {
            targets,
            instances,
            notes,
        } = session.close_up(on_event);
        rows.targets.extend(targets);
        rows.instances.extend(instances);
        rows.notes.extend(notes);
    }
    let (verdict, reason, gates) = match &ended {
        Ok(end) => {
            let reason = Reasons::new(run, &rows.instances, has_work).ended(end);
            (end.verdict, reason, end.gates.clone())
        }
        Err(abort) => (abort.verdict, abort.reason.clone(), Vec::new()),
    };
    let report = RunReport {
        run: run.id.clone(),
        gates,
        back: run.back,
        ..report_of(verdict, reason.clone(), rows)
    };
    let end = Finish {
        verdict,
        reason: reason.clone(),
        supersedes: ended.is_ok(),
    };
    for session in sessions {
        session.finish(end.clone(), interrupts, on_event).await;
    }
    on_event(&Event::Finished {
        verdict,
        reason,
        counts: report.counts(),
    });
    ended.map(|_| report)
}
