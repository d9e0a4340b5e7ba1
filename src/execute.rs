//! From prepared hosts to a verdict: waves, engine, summary. A broadcast, a resume and a revert
//! share these steps.

use crate::{
    engine::{FleetPlan, RunEnd},
    event::{Abort, Event, Interrupts, Verdict, check_interrupts},
    inventory::HostName,
    protocol::Finish,
    report::RunReport,
    session::{Prepared, RunningSession},
};

mod command;
mod continued;
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

use self::{continued::AloneIn, fleet_run::FleetRun, reason::Reasons, rows::Rows};
pub(crate) use self::{
    continued::EarlierRun,
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
        let rows = Rows::of(&HostName::local(), prepared.preview());
        let reason = Reasons::new(run, &rows.instances, has_work).dry_run();
        let plan = FleetPlan::new(vec![((), host_plan)], run.groups.clone());
        let report = rows.report(Verdict::Converged, reason);
        return Ok(dry_run::report(run, &plan, report));
    }
    if !has_work && !must_record {
        let (rows, ends) = prepared.unchanged(interrupts).await?;
        let rows = Rows::of(&HostName::local(), rows);
        let reason = Reasons::new(run, &rows.instances, false).unchanged();
        return Ok(rows.report(Verdict::of(ends, false), reason));
    }
    check_interrupts(interrupts)?;
    let state_args = prepared.context().options.state_args.clone();
    let session = prepared.begin(None, interrupts).await?;
    let mut plan = FleetPlan::new(vec![(session, host_plan)], run.groups.clone());
    let mut report = |_: &HostName, event: &Event| on_event(event);
    let ended = run.carry_out(&mut plan, interrupts, &mut report).await;
    let session = plan.hosts.remove(0).link;
    let report = conclude(run, session, (ended, has_work), interrupts, on_event).await?;
    let Some(alone_in) = run.alone_in.as_ref() else {
        return Ok(report);
    };
    let is_worse = report.verdict == Verdict::Partial;
    let hint = is_worse.then(|| alone_in.next(&run.id, &state_args));
    Ok(RunReport { hint, ..report })
}

/// Ends the run of one host, and reports it.
async fn conclude(
    run: &FleetRun,
    mut session: RunningSession,
    (ended, has_work): (Result<RunEnd, Abort>, bool),
    interrupts: &Interrupts,
    on_event: &mut impl FnMut(&Event),
) -> Result<RunReport, Abort> {
    let rows = Rows::of(&HostName::local(), session.close_up(on_event));
    let (verdict, reason, gates) = match &ended {
        Ok(end) => {
            let reason = Reasons::new(run, &rows.instances, has_work).ended(end);
            let (verdict, reason) = match &run.alone_in {
                Some(alone_in) => (AloneIn::worsen(end.verdict), alone_in.with_reason(&reason)),
                None => (end.verdict, reason),
            };
            (verdict, reason, end.gates.clone())
        }
        Err(abort) => (abort.verdict, abort.reason.clone(), Vec::new()),
    };
    let report = RunReport {
        run: run.id.clone(),
        gates,
        back: run.back,
        ..rows.report(verdict, reason.clone())
    };
    let end = Finish {
        verdict,
        reason: reason.clone(),
        supersedes: ended.is_ok(),
    };
    session.finish(end, interrupts, on_event).await;
    on_event(&Event::Finished {
        verdict,
        reason,
        counts: report.counts(),
    });
    ended.map(|_| report)
}
