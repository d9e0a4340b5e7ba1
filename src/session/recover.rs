//! The survey and the plan of a run that continues an earlier one on this host, forward or back.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use self::direction::{direction, ensure_in_force, no_run};
use super::{
    context::{RunContext, SessionOptions},
    emit::emit_survey,
    explain::Explain,
    prepared::Prepared,
    survey::{open_host, survey},
};
use crate::{
    event::{Abort, Direction, Event, Interrupts, Verdict},
    fleet::{Fleet, Group, OnBadConfig},
    host::{Intent, SurveyRequest},
    plan::{Plan, RecoveryRequest, absent, unreplaced},
    protocol::Validate,
    runs::{self, InterruptedRun, ProofCache, Verb},
    step::Survey,
};

mod direction;
mod order;

pub(crate) use self::order::{Caller, RecoverOrder};

/// Surveys this host, plans the run, and prepares it. Nothing is touched.
///
/// # Errors
/// Fails with the first reason why the run cannot begin.
pub(crate) async fn survey_recovery(
    order: RecoverOrder,
    interrupts: &mut Interrupts,
    emit: &mut dyn FnMut(&Event),
) -> Result<Prepared, Abort> {
    let options = &order.options;
    // Files of killed runs are removed also where no run is left to continue.
    let mut host = open_host(options, emit);
    let left = load(&order)?;
    let direction = direction(&order, &left)?;
    // A revert of a revert installs the new config again.
    let back = left.back ^ (direction == Direction::Back);
    let at_once = back || direction == Direction::Back;
    let groups: Vec<_> = left
        .groups
        .iter()
        .map(|g| Arc::new(with_validation(g, options.validate, at_once)))
        .collect();
    let targets: Vec<PathBuf> = left.targets.iter().map(|t| t.path.clone()).collect();
    let request = SurveyRequest {
        lock: (!options.dry_run).then_some(options.lock_timeout),
        timeout: options.timeout,
        intent: Intent::Install,
        also: &targets,
        // The bytes of the earlier run are in its folder. Its store may have others by now.
        sources: &BTreeSet::new(),
    };
    let found = survey(&mut host, &groups, request, interrupts, emit).await?;
    let folder = options.state.join("runs").join(&left.id);
    emit_survey(&found, &left.groups, Some(&folder), emit);
    absent(&found, &left).iter().for_each(&mut *emit);
    if order.caller == (Caller::Coordinator { is_over: true }) {
        ensure_in_force(&order.options, &left, &found)?;
    }
    let unreplaced = unreplaced(&found, &left);
    let reverted = left.reverted().collect();
    let plan = recovery_plan(options, &left, direction, at_once, found)?;
    let explain = if at_once {
        Explain::Unvalidated {
            of: left.id.clone(),
        }
    } else {
        Explain::Nothing
    };
    let context = RunContext {
        verb: match direction {
            Direction::Back => Verb::Revert,
            Direction::Forward => Verb::Resume,
        },
        of: Some(left.id),
        replaces: Vec::new(),
        // The journal keeps the groups with their validators.
        groups: left.groups,
        order: left.order,
        // If an instance does not prove the old config, it is named. The run never installs the new
        // config again by itself.
        now: at_once,
        back,
        unreplaced,
        reverted,
        part_of: None,
        alone_in: left.part_of.filter(|_| order.caller == Caller::Operator),
        options: order.options,
    };
    Prepared::new((context, explain), plan, host, interrupts, emit).await
}

fn recovery_plan(
    options: &SessionOptions,
    left: &InterruptedRun,
    direction: Direction,
    at_once: bool,
    found: Survey,
) -> Result<Plan, Abort> {
    let proven = ProofCache::load(&options.state);
    let request = RecoveryRequest {
        left,
        direction,
        at_once,
        include_unresponsive: options.include_unresponsive || at_once,
        proven: &proven,
    };
    let stored = |sha256: &str| runs::stored(&options.state, sha256);
    let later = |path: &Path, sha256: &str| runs::later(&options.state, &left.id, path, sha256);
    Plan::recover(found, request, stored, later)
}

/// Reads the earlier run, with the groups of `--fleet`.
fn load(order: &RecoverOrder) -> Result<InterruptedRun, Abort> {
    let run = InterruptedRun::find(&order.options.state, order.run.as_deref());
    let mut left = run.map_err(|e| no_run(&order.options, &e))?;
    if let Some(fleet) = &order.fleet {
        renew(&mut left, fleet)?;
    }
    Ok(left)
}

/// Returns the group as the survey uses it. With `--validate=off` an old config is restored without
/// validation, also where a bad one would end the process.
fn with_validation(group: &Group, validate: Validate, at_once: bool) -> Group {
    let mut group = group.clone();
    if validate == Validate::Off {
        group.validate.clear();
        if at_once {
            group.on_bad_config = OnBadConfig::Keeps;
        }
    }
    group
}

/// Replaces groups of the journal, which may have been wrong, by those of the same name in `fleet`.
/// The readings of the journal mean nothing if the assertions differ.
///
/// # Errors
/// Fails if `fleet` has none of the groups.
fn renew(left: &mut InterruptedRun, fleet: &Fleet) -> Result<(), Abort> {
    let mut renewed = 0;
    for group in &mut left.groups {
        let Some(today) = fleet.groups.iter().find(|today| today.name == group.name) else {
            continue;
        };
        renewed += 1;
        if today.confirm != group.confirm {
            let instances = left.instances.iter().filter(|i| i.group == group.name);
            instances.for_each(|i| drop(left.readings.remove(&(i.pid, i.started))));
        }
        group.clone_from(today);
    }
    if renewed > 0 {
        return Ok(());
    }
    let names: Vec<String> = left
        .groups
        .iter()
        .map(|group| format!("`{}`", group.name))
        .collect();
    Err(Abort::new(
        Verdict::Usage,
        format!(
            "--fleet has no group of run {}: {}",
            left.id,
            names.join(", ")
        ),
    ))
}
