//! One batch of steps: the intent is on disk first, then the host carries the batch out.

use super::log::{EventLog, EventStore};
use crate::{
    event::{Abort, Direction, Event, Interrupts, Outcome, Phase, check_interrupts},
    host::Host,
    step::Step,
};

/// Writes to the journal what is about to be done.
pub(super) fn record_intent<J: EventStore>(steps: &[Step], wave: usize, log: &mut EventLog<'_, J>) {
    let direction = Direction::any_back(steps.iter().map(|step| step.direction));
    let targets = steps
        .iter()
        .flat_map(|s| &s.changes)
        .map(|change| change.report(None))
        .collect();
    let signalled = steps
        .iter()
        .flat_map(|s| &s.instances)
        .map(|m| &m.instance)
        .filter(|i| i.outcome != Outcome::Unchanged);
    log.emit(&Event::Intent {
        direction,
        wave,
        targets,
        pids: signalled.map(|i| (i.pid, i.started)).collect(),
        armed_s: log.armed_s,
    });
}

/// Shows how long the instances that are about to be signalled have.
fn show_wait<J: EventStore>(steps: &[Step], log: &mut EventLog<'_, J>) {
    let awaited = || {
        let instances = steps.iter().flat_map(|step| &step.instances);
        instances.filter(|m| m.instance.outcome != Outcome::Unchanged)
    };
    if let Some(limit) = awaited().map(|m| m.timeout).max() {
        log.emit(&Event::Phase {
            phase: Phase::Confirming,
            done: 0,
            all: awaited().count(),
            limit: Some(limit),
        });
    }
}

/// Carries out one batch. An interrupt is checked before the intent is written, so that the journal
/// lists no instance that will not be signalled. Only the second interrupt ends a rollback.
///
/// # Errors
/// Fails if the batch was interrupted, a target could not be installed, or the journal missed an
/// event. A rollback goes on without a journal.
pub(super) async fn commit<J: EventStore>(
    steps: &mut [Step],
    wave: usize,
    host: &mut Host,
    interrupts: &mut Interrupts,
    log: &mut EventLog<'_, J>,
) -> Result<(), Abort> {
    let direction = Direction::any_back(steps.iter().map(|step| step.direction));
    if *interrupts.borrow() > direction.tolerated_interrupts() {
        return Err(Abort::interrupted());
    }
    record_intent(steps, wave, log);
    show_wait(steps, log);
    if direction.is_back() {
        return host
            .commit(steps, interrupts, &mut |event| log.emit(&event))
            .await;
    }
    ensure_going(interrupts, log)?;
    host.commit(steps, interrupts, &mut |event| log.emit(&event))
        .await?;
    ensure_going(interrupts, log)
}

/// # Errors
/// Fails if the journal has missed an event, or the operator has interrupted the run.
fn ensure_going<J>(interrupts: &Interrupts, log: &EventLog<'_, J>) -> Result<(), Abort> {
    check_interrupts(interrupts)?;
    if *log.journal_failed {
        return Err(Abort::unjournaled());
    }
    Ok(())
}
