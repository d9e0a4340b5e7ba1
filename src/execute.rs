//! From a plan to its verdict: prepare, journal, engine, report. A broadcast, a resume and a revert
//! share these steps.

use crate::{
    engine::{self, EngineOptions, RunEnd},
    event::{Abort, Event, Instance, Interrupts, Outcome, Verdict, check_interrupts, interrupted},
    host::{Host, local::check::Recheck},
    plan::{Plan, Wave},
    report::RunReport,
    runs::{self, Journal, LastSeen, NotBegun, ProofCache, ProofsKept},
    step::PlannedInstance,
};

mod context;
mod dry_run;
mod emit;
mod options;
mod reason;
mod record;
mod session;
mod summarize;

pub(crate) use self::{
    context::RunContext,
    emit::emit_survey,
    options::{RunOptions, Validate},
    session::{open_host, survey},
};
use self::{
    emit::{emit_unresponsive, final_events},
    reason::Reasons,
    record::record,
    summarize::run_report,
};

/// The interrupts that the end of a run tolerates while it waits for other runs. An interrupted run
/// still records what it has done; the second interrupt ends that wait.
const PATIENCE: u8 = 1;

/// Carries out `plan`, or shows what it would do.
///
/// # Errors
/// Fails if the run ended before it touched anything.
pub(crate) async fn execute(
    context: RunContext<'_>,
    mut plan: Plan,
    mut host: Host,
    interrupts: &mut Interrupts,
    on_event: &mut impl FnMut(&Event),
) -> Result<RunReport, Abort> {
    emit_unresponsive(&plan, on_event);
    prepare(&context, &mut plan, &mut host, interrupts, on_event).await?;
    let has_work = plan.steps().any(|s| s.is_work() || host.needs_install(s));
    if context.dry_run {
        let reason = Reasons::new(&context, &plan, has_work).dry_run();
        return Ok(dry_run::report(&plan, &host, context.now, reason));
    }
    if !has_work && !must_close_a_run(&context, &plan) {
        return unchanged(&context, &mut plan, &mut host, interrupts).await;
    }
    check_interrupts(interrupts)?;
    let mut journal = begin(&context, &plan, &host, interrupts).await?;
    on_event(&Event::Waves {
        instances: plan.waves.iter().map(Wave::instances).collect(),
    });
    let options = EngineOptions {
        run: context.id,
        immediate: context.now,
        recovering: context.of.is_some(),
    };
    let ended = engine::run(
        &mut plan,
        &mut host,
        options,
        interrupts,
        &mut journal,
        on_event,
    )
    .await;
    let end = End {
        ended,
        has_work,
        interrupts,
    };
    conclude(&context, &plan, &mut host, journal, end, on_event).await
}

/// How the engine ended, and what the rest of the run depends on.
struct End<'a> {
    ended: Result<RunEnd, Abort>,
    has_work: bool,
    interrupts: &'a Interrupts,
}

/// Ends a run on its host and in the state directory, and reports it.
async fn conclude(
    context: &RunContext<'_>,
    plan: &Plan,
    host: &mut Host,
    mut journal: Journal,
    End {
        ended,
        has_work,
        interrupts,
    }: End<'_>,
    on_event: &mut impl FnMut(&Event),
) -> Result<RunReport, Abort> {
    for event in final_events(host, &journal) {
        on_event(&event);
        let _ = journal.record(&event);
        host.note(event);
    }
    let report = report_of(context, &ended, plan, host, has_work);
    let kept = keep_proofs(context, plan, host, interrupts, on_event).await;
    if kept == ProofsKept::Yes {
        for event in closed_runs(context, &ended, plan, interrupts).await {
            on_event(&event);
            // The journal of the closed run has this too.
            let _ = journal.record(&event);
        }
    }
    let finished = Event::Finished {
        verdict: report.verdict,
        reason: report.reason.clone(),
        counts: report.counts(),
    };
    // The verdict stands, whether or not the last line of the journal can be written.
    let _ = journal.record(&finished);
    journal.close(&finished, kept);
    let until = interrupted(interrupts, 0);
    if let Err(e) = runs::prune(context.state, context.keep, context.id, until).await {
        on_event(&Event::NotPruned { why: e.to_string() });
    }
    on_event(&finished);
    ended.map(|_| report)
}

fn report_of(
    context: &RunContext<'_>,
    ended: &Result<RunEnd, Abort>,
    plan: &Plan,
    host: &Host,
    has_work: bool,
) -> RunReport {
    let (verdict, reason, gates) = match ended {
        Ok(end) => {
            let reason = Reasons::new(context, plan, has_work).ended(end);
            (end.verdict, reason, end.gates.clone())
        }
        Err(abort) => (abort.verdict, abort.reason.clone(), Vec::new()),
    };
    RunReport {
        run: context.id.into(),
        gates,
        back: context.back,
        ..run_report(verdict, reason, plan, host)
    }
}

/// Prepares every step on the host. An invalid candidate is reported first, and a needed restart
/// before every other failure.
async fn prepare(
    context: &RunContext<'_>,
    plan: &mut Plan,
    host: &mut Host,
    interrupts: &mut Interrupts,
    on_event: &mut impl FnMut(&Event),
) -> Result<(), Abort> {
    let mut steps: Vec<_> = plan.waves.iter_mut().flat_map(|w| &mut w.steps).collect();
    let prepared = host
        .prepare(&mut steps, context.strict, interrupts, &mut |event| {
            on_event(&event);
        })
        .await;
    let restart = plan.restart.take();
    match prepared {
        Err(abort) => Err(restart
            .filter(|_| abort.verdict != Verdict::Invalid)
            .unwrap_or(abort)),
        Ok(()) => restart.map_or(Ok(()), Err),
    }
}

/// Returns true if a run without work must be recorded all the same. It is the end of the run that
/// it continues, or of a run that was left open over the same targets.
fn must_close_a_run(context: &RunContext<'_>, plan: &Plan) -> bool {
    context.of.is_some()
        || !context.replaces.is_empty()
        || !runs::left_over(context.state, &plan.paths(), &group_names(context)).is_empty()
}

fn group_names<'a>(context: &RunContext<'a>) -> Vec<&'a str> {
    context.groups.iter().map(|g| g.name.as_str()).collect()
}

/// Ends a run that has nothing to do.
async fn unchanged(
    context: &RunContext<'_>,
    plan: &mut Plan,
    host: &mut Host,
    interrupts: &mut Interrupts,
) -> Result<RunReport, Abort> {
    recheck_unchanged(plan, host, interrupts).await?;
    let verdict = Verdict::of(plan.ends(), false);
    let reason = Reasons::new(context, plan, false).unchanged();
    let until = interrupted(interrupts, 0);
    let _ = LastSeen::keep(context.state, context.groups, plan.instances(), until).await;
    Ok(run_report(verdict, reason, plan, host))
}

/// Checks once more the instances and files of a run without work: validators may have taken long
/// since the survey.
///
/// # Errors
/// Fails with `Refused` if an instance is not what the survey showed; nothing was touched.
async fn recheck_unchanged(
    plan: &mut Plan,
    host: &mut Host,
    interrupts: &mut Interrupts,
) -> Result<(), Abort> {
    let mut steps: Vec<_> = plan.waves.iter_mut().flat_map(|w| &mut w.steps).collect();
    if !host
        .check(&mut steps, Recheck::All, (interrupts, 0), &mut |_| {})
        .await
    {
        return Err(Abort::interrupted());
    }
    let outcome = |m: &PlannedInstance| {
        if m.failed_unsignalled() {
            Outcome::Refused
        } else {
            m.instance.outcome
        }
    };
    let changed: Vec<Instance> = plan
        .steps()
        .flat_map(|s| &s.instances)
        .filter(|m| m.instance.outcome != Outcome::Unchanged)
        .map(|m| Instance {
            outcome: outcome(m),
            ..m.instance.clone()
        })
        .collect();
    if changed.is_empty() {
        Ok(())
    } else {
        Err(Abort::refused(changed))
    }
}

async fn begin(
    context: &RunContext<'_>,
    plan: &Plan,
    host: &Host,
    interrupts: &Interrupts,
) -> Result<Journal, Abort> {
    let record = record(context, plan);
    let begun = Journal::begin(context.state, &record, interrupts).await;
    let mut journal = begun.map_err(|why| match why {
        NotBegun::Interrupted(interrupted) => interrupted.into(),
        NotBegun::Io(e) => {
            let state = context.state.display();
            let why = format!("the state directory `{state}` cannot be used: {e}");
            Abort::new(Verdict::Failed, why)
        }
    })?;
    for note in host.notes() {
        let _ = journal.record(note);
    }
    Ok(journal)
}

/// Closes the runs that this one takes the place of. These are the run that it continues and, where
/// it has proven everything, open runs over the same targets. If this run touched nothing, those
/// runs stay open.
async fn closed_runs(
    context: &RunContext<'_>,
    ended: &Result<RunEnd, Abort>,
    plan: &Plan,
    interrupts: &Interrupts,
) -> Vec<Event> {
    let is_proven = |i: &Instance| matches!(i.outcome, Outcome::Confirmed | Outcome::Unchanged);
    let Ok(end) = ended else { return Vec::new() };
    let all = end.verdict == Verdict::Converged && plan.instances().all(is_proven);
    let (paths, groups, replaced) = if all {
        (plan.paths(), group_names(context), context.replaces)
    } else {
        (Vec::new(), Vec::new(), [].as_slice())
    };
    let mut closed = Vec::new();
    let of = replaced.iter().map(|run| Some(run.as_str()));
    for of in [context.of].into_iter().chain(of) {
        let until = interrupted(interrupts, PATIENCE);
        let runs = runs::supersede(context.state, context.id, of, &paths, &groups, until).await;
        closed.extend(runs.into_iter().map(|run| Event::Superseded { run }));
    }
    closed
}

/// Keeps what the run has proven. The run is still open here, so that no other run removes the
/// bytes that the proofs name, and none believes an older record.
async fn keep_proofs(
    context: &RunContext<'_>,
    plan: &Plan,
    host: &Host,
    interrupts: &Interrupts,
    on_event: &mut impl FnMut(&Event),
) -> ProofsKept {
    let until = || interrupted(interrupts, PATIENCE);
    let RunContext {
        state, id, groups, ..
    } = *context;
    let proofs = engine::proofs_of(plan.steps(), host);
    let proven = ProofCache::keep(state, id, proofs, until()).await;
    let seen = LastSeen::keep(state, groups, plan.instances(), until()).await;
    if let Err(e) = &proven {
        let why = format!("what this run has proven: {e}; older proofs of its instances are void");
        on_event(&Event::NotKept { why });
    }
    if let Err(e) = seen {
        let why =
            format!("what this run leaves alive: {e}; `hello status` will miss the end of it");
        on_event(&Event::NotKept { why });
    }
    match proven {
        Ok(()) => ProofsKept::Yes,
        Err(_) => ProofsKept::No,
    }
}
