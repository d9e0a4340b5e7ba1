//! Reads the files of a run, and of the runs that it continues.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::Deserialize;

use super::record::{InterruptedRun, RunError, RunInstance, RunTarget, SignalRecord};
use crate::{
    config,
    event::{Event, Instance, Outcome, TargetReport, VERSION},
    protocol::PartOf,
    runs::{
        Verb, boot_id,
        format::{JournalLine, OldPlan, OldTarget, PlanFile},
        info::{self, Line, RunInfo},
        layout,
    },
};

/// Largest `plan.json` that is read, in bytes: 100,000 instances need about 60 MB.
const MAX_PLAN: u64 = 256 << 20;
/// Most runs of a chain of runs that continue each other; earlier ones are not read.
const MAX_CHAIN: usize = 100;

/// Processes by pid and start time.
type ByProcess<T> = BTreeMap<(i32, u64), T>;

/// The signals of a run, and of the runs that it continues.
#[derive(Debug, Clone, Default)]
struct Signals {
    touched: ByProcess<SignalRecord>,
    signalled: ByProcess<Timestamp>,
}

/// Reads the run `id` with its events, and with those of the runs that it continues.
pub(super) fn load(state: &Path, id: &str) -> Result<InterruptedRun, RunError> {
    let (run, mut of) = read(state, id)?;
    // The earlier runs, the newest first.
    let mut chain = vec![run];
    while let Some(id) = of.take_if(|of| chain.len() <= MAX_CHAIN && *of != chain[0].id) {
        let Ok((run, next)) = read(state, &id) else {
            of = Some(id);
            break;
        };
        chain.push(run);
        of = next;
    }
    let mut signals = Signals::default();
    // It is not known what a run touched that cannot be read.
    if of.is_some()
        && let Some(oldest) = chain.last()
    {
        signals.touched = every_instance(oldest);
    }
    let mut back = false;
    for run in chain.iter_mut().rev() {
        if run.verb == Verb::Revert {
            back = !back;
            for record in signals.touched.values_mut() {
                std::mem::swap(&mut record.forward, &mut record.back);
            }
        }
        run.back = back;
        signals = add_events(state, run, signals)?;
    }
    let part_of = chain.iter().find_map(part_of).cloned();
    let mut run = chain.swap_remove(0);
    run.part_of = part_of;
    Ok(run)
}

/// Returns the run over hosts that a run itself is a part of.
fn part_of(run: &InterruptedRun) -> Option<&PartOf> {
    run.info.began.as_ref()?.part_of.as_ref()
}

/// Returns a record for every instance of the run: it may have got every signal.
fn every_instance(run: &InterruptedRun) -> ByProcess<SignalRecord> {
    let record = SignalRecord {
        forward: true,
        back: true,
        outcome: None,
    };
    let ids = run.instances.iter().map(|i| (i.pid, i.started));
    ids.map(|id| (id, record)).collect()
}

/// Adds the signals of earlier runs and of its own events to a run. Returns the signals for the run
/// that continues it. The pids of another boot mean nothing.
fn add_events(
    state: &Path,
    run: &mut InterruptedRun,
    earlier: Signals,
) -> Result<Signals, RunError> {
    if run.same_boot {
        run.touched.clone_from(&earlier.touched);
        run.signalled.clone_from(&earlier.signalled);
    }
    // The coordinator may have died before it wrote the first line.
    if run.info.began.is_some() {
        let id = run.id.clone();
        let unreadable = |e: io::Error| RunError::Unreadable(id.clone(), e.to_string());
        let lines = info::lines(state, &id).map_err(unreadable)?;
        let mut is_whole = true;
        for line in lines {
            match line.map_err(unreadable)? {
                Line::Whole(line) => {
                    if let Ok(line) = serde_json::from_value(line) {
                        run.take(line, &earlier);
                    }
                }
                Line::Torn => {}
                Line::Unreadable => is_whole = false,
            }
        }
        if !is_whole && run.same_boot {
            // The line that cannot be read may have named any of them.
            for (id, record) in every_instance(run) {
                run.touched.entry(id).or_insert(record);
                run.signalled.entry(id).or_insert(Timestamp::MAX);
            }
        }
    }
    if !run.same_boot {
        return Ok(Signals::default());
    }
    Ok(Signals {
        touched: run.touched.clone(),
        signalled: run.signalled.clone(),
    })
}

/// Reads a run without its events, and the id of the run that it continues.
fn read(state: &Path, id: &str) -> Result<(InterruptedRun, Option<String>), RunError> {
    let unreadable = |why: String| RunError::Unreadable(id.into(), why);
    let bytes = config::read(&layout::plan_of(state, id), MAX_PLAN)
        .map_err(|e| unreadable(e.to_string()))?;
    let plan: serde_json::Result<PlanFile<'_, Instance>> = serde_json::from_slice(&bytes);
    let plan = match plan {
        Ok(plan) if plan.v == VERSION => plan,
        other => {
            let why = other
                .err()
                .map_or("another version".into(), |e| e.to_string());
            return Err(old_version(state, id, &bytes)
                .unwrap_or_else(|| unreadable(format!("plan.json: {why}"))));
        }
    };
    let readings = plan.readings.iter().cloned();
    let run = InterruptedRun {
        id: id.into(),
        verb: plan.verb,
        back: false,
        same_boot: plan.boot_id == boot_id(),
        groups: plan.groups.into_owned(),
        order: plan.order.into_owned(),
        targets: plan.targets.iter().cloned().map(RunTarget::from).collect(),
        instances: plan.instances.into_iter().map(RunInstance::from).collect(),
        readings: readings
            .map(|r| ((r.pid, r.started), r.answers.into_owned()))
            .collect(),
        touched: BTreeMap::new(),
        signalled: BTreeMap::new(),
        part_of: None,
        info: RunInfo::of(state, id),
    };
    Ok((run, plan.of))
}

/// Returns the error for a plan that an earlier version wrote; none for any other plan.
fn old_version(state: &Path, id: &str, plan: &[u8]) -> Option<RunError> {
    let plan: OldPlan = serde_json::from_slice(plan).ok()?;
    if plan.v >= VERSION {
        return None;
    }
    let folder = layout::folder_of(state, id);
    let content = |target: OldTarget| -> Option<(PathBuf, PathBuf)> {
        let file = folder.join(target.from?);
        file.exists().then_some((target.path, file))
    };
    let is_of_this_boot = plan.boot_id == boot_id();
    let instances = plan.instances.iter().filter(|_| is_of_this_boot);
    Some(RunError::OldVersion {
        run: id.into(),
        instances: instances.map(|i| (i.pid, i.started)).collect(),
        contents: plan.targets.into_iter().filter_map(content).collect(),
    })
}

/// Reads only the targets of a run; none where its plan cannot be read.
pub(crate) fn targets(state: &Path, id: &str) -> Vec<TargetReport> {
    /// The part of a `plan.json` that is needed.
    #[derive(Deserialize)]
    struct Targets {
        targets: Vec<TargetReport>,
    }
    config::read(&layout::plan_of(state, id), MAX_PLAN)
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Targets>(&bytes).ok())
        .map_or_else(Vec::new, |plan| plan.targets)
}

impl From<TargetReport> for RunTarget {
    fn from(target: TargetReport) -> Self {
        Self {
            path: target.path,
            kind: target.kind,
            from: target.from,
            to: target.to,
        }
    }
}

impl From<Instance> for RunInstance {
    fn from(instance: Instance) -> Self {
        Self {
            group: instance.group,
            pid: instance.pid,
            started: instance.started,
            targets: instance.targets,
        }
    }
}

impl InterruptedRun {
    /// Adds one event of the journal. `earlier` has the signals of the runs that this one
    /// continues.
    fn take(&mut self, line: JournalLine<Event>, earlier: &Signals) {
        match line.event {
            Event::Intent {
                direction, pids, ..
            } => {
                for id in pids {
                    self.signalled.insert(id, line.at);
                    let record = self.touched.entry(id).or_default();
                    record.outcome = None;
                    record.forward |= !direction.is_back();
                    record.back |= direction.is_back();
                }
            }
            Event::Instance {
                pid,
                started,
                outcome,
                successor_of,
                ..
            } => {
                let id = (pid, started);
                // A successor may have been signalled since.
                let predecessor = successor_of.and_then(|old| {
                    let mut records = self.touched.iter();
                    records.find(|((pid, _), _)| *pid == old)
                });
                if let Some((_, record)) = predecessor {
                    self.touched.insert(id, *record);
                }
                if matches!(outcome, Outcome::Untouched | Outcome::Refused)
                    && let Some(record) = earlier.touched.get(&id)
                {
                    // This run sent it no signal, so that of an earlier run is its last.
                    self.touched.insert(id, *record);
                    if let Some(at) = earlier.signalled.get(&id) {
                        self.signalled.insert(id, *at);
                    }
                    return;
                }
                // A newcomer got no signal, and has no record.
                if let Some(record) = self.touched.get_mut(&id) {
                    record.outcome = Some(outcome);
                }
            }
            _ => {}
        }
    }
}
