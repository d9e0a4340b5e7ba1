//! Instances of the earlier run that have ended since.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use super::request::{RecoveryRequest, concerns};
use crate::{
    event::{Abort, Event, Failure, Instance, Outcome},
    fleet::Group,
    names,
    plan::counts::wrong_count,
    runs::{InterruptedRun, RunInstance},
    step::{PlannedInstance, Survey},
};

/// Instances of the earlier run that have ended, of one group and with the same targets.
#[derive(Debug)]
struct GoneInstances<'a> {
    group: &'a str,
    pids: Vec<(i32, u64)>,
    /// The number of instances that started since.
    started_since: usize,
}

impl GoneInstances<'_> {
    fn not_replaced(&self) -> usize {
        self.pids.len().saturating_sub(self.started_since)
    }

    fn named(&self) -> String {
        names::list(self.pids.iter().map(|(pid, _)| pid), ", ", names::MOST)
    }

    fn event(&self, left: &InterruptedRun) -> Event {
        let since = if left.same_boot {
            format!("ended since run {}", left.id)
        } else {
            format!("of run {}, which was before the reboot", left.id)
        };
        let replaced = match self.not_replaced() {
            0 => "replaced by other processes".to_owned(),
            n if n == self.pids.len() => "not replaced".to_owned(),
            n => format!("{n} not replaced"),
        };
        Event::Gone {
            group: self.group.into(),
            pids: self.pids.iter().map(|(pid, _)| *pid).collect(),
            why: format!("{since}; {replaced}"),
        }
    }
}

/// Returns the instances of the earlier run that have ended, by group and targets.
fn gone<'a>(survey: &Survey, left: &'a InterruptedRun) -> Vec<GoneInstances<'a>> {
    let present = || {
        survey
            .instances
            .iter()
            .chain(&survey.unresponsive)
            .map(|m| &m.instance)
            .chain(&survey.refused)
    };
    let alive: BTreeSet<(i32, u64)> = present()
        .filter(|_| left.same_boot)
        .map(|i| (i.pid, i.started))
        .collect();
    let known: BTreeSet<(i32, u64)> = left
        .instances
        .iter()
        .filter(|_| left.same_boot)
        .map(|i| (i.pid, i.started))
        .collect();
    let is_new = |i: &Instance, group: &str, targets: &[PathBuf]| {
        i.group == group && i.targets == targets && !known.contains(&(i.pid, i.started))
    };
    let mut gone: BTreeMap<(&str, &[PathBuf]), GoneInstances<'a>> = BTreeMap::new();
    for RunInstance {
        group,
        pid,
        started,
        targets,
    } in left
        .instances
        .iter()
        .filter(|i| !alive.contains(&(i.pid, i.started)))
    {
        let entry = gone
            .entry((group, targets))
            .or_insert_with(|| GoneInstances {
                group,
                pids: Vec::new(),
                started_since: present().filter(|i| is_new(i, group, targets)).count(),
            });
        entry.pids.push((*pid, *started));
    }
    gone.into_values().collect()
}

/// Returns a sentence about the instances of the earlier run that have ended and were not replaced;
/// none if there are none.
#[must_use]
pub(crate) fn unreplaced(survey: &Survey, left: &InterruptedRun) -> Option<String> {
    let lost: Vec<String> = gone(survey, left)
        .iter()
        .filter(|gone| gone.not_replaced() > 0)
        .map(|gone| format!("{} pid {}", gone.group, gone.named()))
        .collect();
    (!lost.is_empty()).then(|| {
        format!(
            "ended since run {}, and not all replaced: {}",
            left.id,
            lost.join(", ")
        )
    })
}

/// Returns an event for the instances of the earlier run that have ended, and for each instance of
/// its groups that reads none of the targets that it changes.
#[must_use]
pub(crate) fn absent(survey: &Survey, left: &InterruptedRun) -> Vec<Event> {
    let unconcerned = survey
        .instances
        .iter()
        .chain(&survey.unresponsive)
        .map(|m| &m.instance)
        .filter(|i| !concerns(left, &i.targets))
        .map(|i| Event::Skipped {
            pid: i.pid,
            why: format!("reads nothing of what run {} changes", left.id),
        });
    gone(survey, left)
        .iter()
        .map(|gone| gone.event(left))
        .chain(unconcerned)
        .collect()
}

/// Checks the number of instances of each group. If an old config is restored, missing instances do
/// not prevent it: they are returned with their failure.
pub(super) fn check_missing(
    survey: &Survey,
    request: RecoveryRequest<'_>,
) -> Result<Vec<PlannedInstance>, Abort> {
    let left = request.left;
    let gone = gone(survey, left);
    let mut lost = Vec::new();
    for group in &left.groups {
        let passed = survey
            .instances
            .iter()
            .chain(&survey.unresponsive)
            .filter(|m| m.instance.group == group.name)
            .count();
        let refused = survey
            .refused
            .iter()
            .filter(|i| i.group == group.name)
            .count();
        let found = passed + refused;
        if group.count.holds(found, passed) {
            continue;
        }
        let gone = || gone.iter().filter(|gone| gone.group == group.name);
        if !request.at_once {
            let named: Vec<String> = gone()
                .flat_map(|gone| &gone.pids)
                .take(names::MOST)
                .map(|(pid, _)| format!("; ended since run {}: pid {pid}", left.id))
                .collect();
            return Err(wrong_count(
                &group.name,
                found,
                group.count,
                &named.concat(),
            ));
        }
        for gone in gone() {
            // It is not known which instances were replaced, only how many are missing.
            let missing = gone.pids.iter().rev().take(gone.not_replaced());
            lost.extend(missing.map(|id| lost_instance(group, *id, left)));
        }
    }
    Ok(lost)
}

fn lost_instance(
    group: &Group,
    (pid, started): (i32, u64),
    left: &InterruptedRun,
) -> PlannedInstance {
    let known = left
        .instances
        .iter()
        .find(|i| (i.pid, i.started) == (pid, started));
    let instance = Instance {
        targets: known.map(|i| i.targets.clone()).unwrap_or_default(),
        wave: 0,
        ..Instance::new(&group.name, pid, started)
    };
    let mut lost = PlannedInstance::new(instance, group.clone().into(), Vec::new());
    lost.fail(
        Outcome::Died,
        Failure {
            kind: Outcome::Died.into(),
            text: format!(
                "ended since run {}, and no other process replaced it",
                left.id
            ),
        },
    );
    lost
}
