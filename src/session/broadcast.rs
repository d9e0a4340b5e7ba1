//! The survey and the plan of a run that installs a new config on this host.

use std::{collections::BTreeSet, path::PathBuf, sync::Arc};

use super::{
    context::{RunContext, SessionOptions},
    emit::emit_survey,
    explain::Explain,
    prepared::Prepared,
    survey::{open_host, survey},
};
use crate::{
    change::Changes,
    event::{Abort, Event, Interrupts},
    fleet::{Count, Fleet},
    host::{Intent, SurveyRequest},
    plan::{Plan, PlanRequest},
    protocol::Validate,
    runs::{self, ProofCache, Verb},
};

/// A run that installs a new config.
#[derive(Debug, Clone)]
pub(crate) struct BroadcastOrder {
    /// The fleet, read and selected.
    pub(crate) fleet: Fleet,
    /// The change of its targets.
    pub(crate) changes: Changes,
    /// Install one `--config` over targets that differ now.
    pub(crate) overwrite: bool,
    /// Replaces each group's own count.
    pub(crate) count: Option<Count>,
    /// No bake, no gate, and no rollback.
    pub(crate) now: bool,
    /// [`Verb::Broadcast`], or [`Verb::Watch`] for a run that no operator has begun.
    pub(crate) verb: Verb,
    /// Open runs that this one takes the place of if it proves every instance.
    pub(crate) replaces: Vec<String>,
    /// The options of every run.
    pub(crate) options: SessionOptions,
}

/// Surveys this host, plans the run, and prepares it. Nothing is touched.
///
/// # Errors
/// Fails with the first reason why the run cannot begin.
pub(crate) async fn survey_broadcast(
    mut order: BroadcastOrder,
    interrupts: &mut Interrupts,
    emit: &mut dyn FnMut(&Event),
) -> Result<Prepared, Abort> {
    if order.options.validate == Validate::Off {
        let groups = &mut order.fleet.groups;
        groups.iter_mut().for_each(|g| g.validate.clear());
    }
    let BroadcastOrder {
        fleet,
        changes,
        options,
        ..
    } = &order;
    let mut host = open_host(options, emit);
    let groups: Vec<_> = fleet.groups.iter().cloned().map(Arc::new).collect();
    let sources: BTreeSet<&str> = fleet
        .groups
        .iter()
        .filter(|group| group.source.is_some() && changes.adopts(&group.name))
        .map(|group| group.name.as_str())
        .collect();
    let adopts = changes.adopt() && sources.is_empty();
    let request = SurveyRequest {
        lock: (!options.dry_run).then_some(options.lock_timeout),
        timeout: options.timeout,
        intent: if adopts {
            Intent::Adopt
        } else {
            Intent::Install
        },
        also: &[],
        sources: &sources,
    };
    let found = survey(&mut host, &groups, request, interrupts, emit).await?;
    emit_survey(&found, &fleet.groups, fleet.path.as_deref(), emit);
    let surveyed: Vec<PathBuf> = found.targets.keys().cloned().collect();
    let explain = Explain::OpenRuns {
        surveyed,
        groups: fleet.groups.iter().map(|g| g.name.clone()).collect(),
        doctor: format!("hello doctor {}", fleet.arguments()),
    };
    let proven = ProofCache::load(&options.state);
    let request = PlanRequest {
        fleet,
        changes,
        count: order.count,
        overwrite: order.overwrite,
        include_unresponsive: options.include_unresponsive,
        proven: &proven,
    };
    let plan = Plan::new(found, &request, |sha256| {
        runs::stored(&options.state, sha256)
    });
    let plan = plan.map_err(|abort| explain.add_to(abort, options))?;
    if !order.now && !options.include_unresponsive {
        for event in plan.unheld() {
            emit(&event);
            host.note(event);
        }
    }
    let context = RunContext {
        verb: order.verb,
        of: None,
        replaces: order.replaces,
        groups: order.fleet.groups,
        order: order.fleet.order,
        now: order.now,
        back: false,
        unreplaced: None,
        reverted: BTreeSet::new(),
        part_of: None,
        alone_in: None,
        options: order.options,
    };
    Prepared::new((context, explain), plan, host, interrupts, emit).await
}
