//! The first steps of every run: open the host, and survey it.

use std::sync::Arc;

use super::{context::SessionOptions, emit::leftovers};
use crate::{
    event::{Abort, Event, Interrupts, Phase},
    fleet::Group,
    host::{Host, SurveyRequest},
    runs::{self, Staging},
    step::Survey,
};

/// Opens the host for a run. Unless this is a dry run, which touches nothing, it first
/// removes files that killed runs have staged, and emits an event for each that stays.
pub(super) fn open_host(options: &SessionOptions, on_event: &mut dyn FnMut(&Event)) -> Host {
    let SessionOptions {
        state, id, dry_run, ..
    } = options;
    let mut host = Host::local(id);
    if let Some(claimed) = &options.claimed {
        host.note_in_locks(format!("run {id}, claimed operator {claimed}"));
    }
    host.record_in(if *dry_run {
        Staging::where_possible(state, id)
    } else {
        Staging::of(state, id)
    });
    if !*dry_run {
        for event in leftovers(runs::sweep(state)) {
            on_event(&event);
            host.note(event);
        }
    }
    host
}

/// Surveys the host.
///
/// # Errors
/// Fails if the operator interrupts the survey.
pub(super) async fn survey(
    host: &mut Host,
    groups: &[Arc<Group>],
    request: SurveyRequest<'_>,
    interrupts: &mut Interrupts,
    on_event: &mut dyn FnMut(&Event),
) -> Result<Survey, Abort> {
    on_event(&Event::Phase {
        phase: Phase::Surveying,
        done: 0,
        all: 0,
        limit: None,
    });
    tokio::select! {
        survey = host.survey(groups, request) => Ok(survey),
        Ok(_) = interrupts.wait_for(|n| *n > 0) => Err(Abort::interrupted()),
    }
}
