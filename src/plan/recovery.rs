//! The plan of a run that goes on with an earlier one: what each target becomes and who may be
//! touched is known, what is there now is seen.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use super::{
    Literals, Plan, already_current, baseline_matches, is_under_way, order_by_config,
    readers::{Readers, group_by_targets},
    unresponsive, waves,
};
use crate::{
    event::{Abort, Event, Failure, Instance, Outcome, Verdict},
    fleet::Group,
    names,
    runs::{InterruptedRun, ProofCache, RunInstance, RunTarget, SignalRecord},
    screen::counted,
    step::{
        Content, PlannedInstance, PriorReadings, Step, Survey, SurveyedTarget, TargetChange, short,
    },
};

#[cfg(test)]
mod tests;

/// Which way a run is gone on with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To what it was bringing.
    Forward,
    /// To what was there before it.
    Back,
}

/// What decides such a plan besides what is seen.
#[derive(Debug, Clone, Copy)]
pub struct RecoveryRequest<'a> {
    /// The earlier run.
    pub left: &'a InterruptedRun,
    /// Which way.
    pub way: Direction,
    /// All in one wave, and who is gone keeps nobody from it: an old config is brought back.
    pub at_once: bool,
    /// Whose endpoint is silent goes along.
    pub include_sick: bool,
    /// What those who cannot tell what they run were last proven to run.
    pub proven: &'a ProofCache,
}

/// Instances of an earlier run that are gone, of one group and with the same targets.
#[derive(Debug)]
struct GoneReason<'a> {
    group: &'a str,
    pids: Vec<(i32, u64)>,
    /// How many have come since.
    new: usize,
}

impl GoneReason<'_> {
    fn named(&self) -> String {
        names::list(self.pids.iter().map(|(pid, _)| pid), ", ", names::MOST)
    }

    fn event(&self, left: &InterruptedRun) -> Event {
        let unreplaced = self.pids.len().saturating_sub(self.new);
        let since = if left.same_boot {
            "not there any more since"
        } else {
            "of another boot than this:"
        };
        let place = match unreplaced {
            0 => "others have taken their place".to_owned(),
            n if n == self.pids.len() => "nobody has taken their place".to_owned(),
            n => format!("nobody has taken the place of {n}"),
        };
        Event::Gone {
            group: self.group.into(),
            pids: self.pids.iter().map(|(pid, _)| *pid).collect(),
            why: format!("{since} run {}; {place}", left.id),
        }
    }
}

/// Whom the earlier run knew and who is not there any more, by group and targets.
fn gone<'a>(seen: &Survey, left: &'a InterruptedRun) -> Vec<GoneReason<'a>> {
    let instances = || {
        seen.instances
            .iter()
            .chain(&seen.unresponsive)
            .map(|m| &m.instance)
            .chain(&seen.refused)
    };
    let there: BTreeSet<(i32, u64)> = instances()
        .filter(|_| left.same_boot)
        .map(|i| (i.pid, i.started))
        .collect();
    let known: BTreeSet<(i32, u64)> = left
        .instances
        .iter()
        .filter(|_| left.same_boot)
        .map(|i| (i.pid, i.started))
        .collect();
    let new = |i: &Instance, group: &str, targets: &[PathBuf]| {
        i.group == group && i.targets == targets && !known.contains(&(i.pid, i.started))
    };
    let mut all: BTreeMap<(&str, &[PathBuf]), GoneReason<'a>> = BTreeMap::new();
    for RunInstance {
        group,
        pid,
        started,
        targets,
    } in left
        .instances
        .iter()
        .filter(|i| !there.contains(&(i.pid, i.started)))
    {
        let gone = all.entry((group, targets)).or_insert_with(|| GoneReason {
            group,
            pids: Vec::new(),
            new: instances().filter(|i| new(i, group, targets)).count(),
        });
        gone.pids.push((*pid, *started));
    }
    all.into_values().collect()
}

/// Whom the earlier run knew, who is not there any more, and in whose place nobody has come: a
/// sentence.
#[must_use]
pub fn unreplaced(seen: &Survey, left: &InterruptedRun) -> Option<String> {
    let gone = gone(seen, left);
    let lost: Vec<String> = gone
        .iter()
        .filter(|g| g.pids.len() > g.new)
        .map(|g| format!("{} pid {}", g.group, g.named()))
        .collect();
    (!lost.is_empty()).then(|| {
        format!(
            "not there any more since run {}, and not all replaced: {}",
            left.id,
            lost.join(", ")
        )
    })
}

/// Whom the earlier run knew and who is not there any more; and of its groups, who reads nothing of
/// what it changes.
#[must_use]
pub fn absent(seen: &Survey, left: &InterruptedRun) -> Vec<Event> {
    let apart = seen
        .instances
        .iter()
        .chain(&seen.unresponsive)
        .map(|m| &m.instance)
        .filter(|i| !concerns(left, &i.targets));
    let why = || format!("reads nothing of what run {} changes", left.id);
    gone(seen, left)
        .iter()
        .map(|gone| gone.event(left))
        .chain(apart.map(|i| Event::Skipped {
            pid: i.pid,
            why: why(),
        }))
        .collect()
}

/// Whether one that reads `targets` is any business of the run. One that reads none is only
/// signalled.
fn concerns(left: &InterruptedRun, targets: &[PathBuf]) -> bool {
    targets.is_empty()
        || targets
            .iter()
            .any(|path| left.targets.iter().any(|t| t.path == *path))
}

impl Plan {
    /// The plan that goes on with `aim.left`. `old` finds the bytes of an earlier config by digest;
    /// `who` the later run that made a target what it is.
    ///
    /// # Errors
    /// The first end in the order of the exit codes: no match, busy, refused, invalid, restart
    /// required.
    pub fn recover(
        mut seen: Survey,
        aim: RecoveryRequest<'_>,
        old: impl Fn(&str) -> Option<Vec<u8>>,
        who: impl Fn(&Path, &str) -> Option<String>,
    ) -> Result<Self, Abort> {
        let left = aim.left;
        let mut skipped = check_missing(&seen, aim)?;
        if let Some(stop) = seen.abort {
            return Err(stop);
        }
        seen.unresponsive
            .retain(|m| concerns(left, &m.instance.targets));
        let moved = endpoint_moved(&seen, left);
        if !moved.is_empty() {
            return Err(Abort::refused(moved));
        }
        let touched = |m: &PlannedInstance| left.same_boot && left.touched.contains_key(&m.id);
        let (sick, too_many) =
            unresponsive::judge(&mut seen, &left.groups, aim.include_sick, touched);
        skipped.extend(sick);
        let mut shifts_of: BTreeMap<&Path, TargetChange> = BTreeMap::new();
        for target in &left.targets {
            shifts_of.insert(&target.path, target_change(target, &seen, aim, &old, &who)?);
        }
        let mut refused: Vec<_> = seen
            .refused
            .into_iter()
            .filter(|i| concerns(left, &i.targets))
            .collect();
        // What was only signalled has no way back.
        seen.instances.retain(|m| {
            concerns(left, &m.instance.targets)
                && (aim.way == Direction::Forward || !m.instance.targets.is_empty())
        });
        let readers: Readers = group_by_targets(seen.instances, |m| m.instance.targets.clone());
        let mut steps = Vec::new();
        for (paths, mut members) in readers {
            let (mut shifts, mut disk) = (Vec::new(), Vec::new());
            for path in &paths {
                let Some((path, target)) = seen.targets.get_key_value(path) else {
                    continue;
                };
                // What the earlier run did not know stays as it is.
                let stays = || TargetChange {
                    path: path.clone(),
                    from: Some(target.content.clone()),
                    to: target.content.clone(),
                    secret: target.secret,
                };
                shifts.push(shifts_of.get(path.as_path()).cloned().unwrap_or_else(stays));
                disk.push((path.as_path(), target));
            }
            for member in &mut members {
                if let Err(why) = classify(member, &shifts, &disk, aim) {
                    member.fail(
                        Outcome::Refused,
                        Failure {
                            kind: Outcome::Refused.into(),
                            text: why,
                        },
                    );
                    refused.push(member.instance.clone());
                }
            }
            steps.push(Step {
                changes: shifts,
                instances: members,
                undo: false,
            });
        }
        if !refused.is_empty() {
            let stop = Abort::refused(refused);
            return Err(Abort {
                reason: stop.reason + &too_many,
                ..stop
            });
        }
        // What nobody reads any more becomes what it was to become all the same: the next start of
        // one would read it.
        let read: BTreeSet<PathBuf> = steps
            .iter()
            .flat_map(|s| &s.changes)
            .map(|s| s.path.clone())
            .collect();
        let unread = shifts_of
            .into_values()
            .filter(|shift| !read.contains(&shift.path));
        let unread: Vec<Step> = unread
            .map(|shift| Step {
                changes: vec![shift],
                instances: Vec::new(),
                undo: false,
            })
            .collect();
        let restart = order_by_config(&steps, &BTreeMap::new())?;
        let order: Vec<&Group> = left.groups.iter().collect();
        let mut waves = if aim.at_once {
            waves::instances_at_once(steps)
        } else {
            waves::in_waves(steps, &order, &aim.left.order)
        };
        match waves.first_mut() {
            Some(first) => first.steps.extend(unread),
            None if unread.is_empty() => {}
            None => waves = waves::instances_at_once(unread),
        }
        Ok(Self {
            waves,
            newcomers: Vec::new(),
            skipped,
            restart,
        })
    }
}

/// The instances of the earlier run that live and read other targets by now: what becomes of those
/// of the run would be loaded by none of them.
fn endpoint_moved(seen: &Survey, left: &InterruptedRun) -> Vec<Instance> {
    let known = |m: &PlannedInstance| {
        left.instances
            .iter()
            .find(|i| left.same_boot && (i.pid, i.started) == m.id)
    };
    let one = |m: &PlannedInstance| {
        let was = &known(m)?.targets;
        let gone = was.iter().find(|path| !m.instance.targets.contains(path))?;
        let now = m.instance.targets.iter().find(|path| !was.contains(path));
        let now = now.map_or("no such file".to_owned(), |path| {
            format!("`{}`", path.display())
        });
        let text = format!(
            "it read `{}` in run {}, and names {now} today; lead that back to the former path, or \
             restart it",
            gone.display(),
            left.id
        );
        let mut member = m.clone();
        member.fail(
            Outcome::Refused,
            Failure {
                kind: Outcome::Refused.into(),
                text,
            },
        );
        Some(member.instance)
    };
    seen.instances
        .iter()
        .chain(&seen.unresponsive)
        .filter_map(one)
        .collect()
}

/// Holds who is there against the number that each group must have. An old config is brought back
/// all the same: who is missing is in the report then.
fn check_missing(seen: &Survey, aim: RecoveryRequest<'_>) -> Result<Vec<PlannedInstance>, Abort> {
    let (left, gone) = (aim.left, gone(seen, aim.left));
    let mut lost = Vec::new();
    for group in &left.groups {
        let sure = seen
            .instances
            .iter()
            .chain(&seen.unresponsive)
            .filter(|m| m.instance.group == group.name)
            .count();
        let found = sure
            + seen
                .refused
                .iter()
                .filter(|i| i.group == group.name)
                .count();
        if group.count.holds(found, sure) {
            continue;
        }
        if !aim.at_once {
            let gone: Vec<String> = gone
                .iter()
                .filter(|g| g.group == group.name)
                .flat_map(|g| &g.pids)
                .take(10)
                .map(|(pid, _)| format!("; gone since run {}: pid {pid}", left.id))
                .collect();
            return Err(Abort::new(
                Verdict::NoMatch,
                format!(
                    "group `{}` has {}, not {}{}",
                    group.name,
                    counted(found, "instance"),
                    group.count,
                    gone.concat()
                ),
            ));
        }
        for gone in gone.iter().filter(|g| g.group == group.name) {
            // Which of them was replaced nobody knows; so many are missing.
            for (pid, started) in gone
                .pids
                .iter()
                .rev()
                .take(gone.pids.len().saturating_sub(gone.new))
            {
                let known = left
                    .instances
                    .iter()
                    .find(|i| (i.pid, i.started) == (*pid, *started));
                let instance = Instance {
                    targets: known.map(|i| i.targets.clone()).unwrap_or_default(),
                    wave: 0,
                    ..Instance::new(gone.group, *pid, *started)
                };
                let mut member = PlannedInstance::new(instance, group.clone().into(), Vec::new());
                let text = format!(
                    "is not there any more since run {}, and nobody has taken its place",
                    left.id
                );
                member.fail(
                    Outcome::Died,
                    Failure {
                        kind: Outcome::Died.into(),
                        text,
                    },
                );
                lost.push(member);
            }
        }
    }
    Ok(lost)
}

/// What becomes of one target: it must be what it was before the earlier run, or what that was
/// bringing.
fn target_change(
    target: &RunTarget,
    seen: &Survey,
    aim: RecoveryRequest<'_>,
    old: impl Fn(&str) -> Option<Vec<u8>>,
    who: impl Fn(&Path, &str) -> Option<String>,
) -> Result<TargetChange, Abort> {
    let (path, id) = (target.path.display(), &aim.left.id);
    let refused = |why: String| Abort::new(Verdict::Refused, why);
    let now = seen
        .targets
        .get(&target.path)
        .ok_or_else(|| refused(format!("`{path}` is not there any more")))?;
    let (from, to) = match aim.way {
        Direction::Forward => (target.from.as_deref(), target.to.as_str()),
        Direction::Back => {
            let no_way = || {
                refused(format!(
                    "there is no way back from run {id}: nobody had the bytes that were served of \
                     `{path}` before it"
                ))
            };
            (
                Some(target.to.as_str()),
                target.from.as_deref().ok_or_else(no_way)?,
            )
        }
    };
    let disk = &now.content;
    if disk.kind() != target.kind || ![from, Some(to)].contains(&Some(disk.sha256.as_str())) {
        let since =
            who(&target.path, &disk.sha256).or_else(|| aim.left.superseded_by().map(str::to_owned));
        let by = since.map_or(
            "another program has changed it since; put it back, or adopt it \
                               with `hello broadcast` and its group"
                .to_owned(),
            |run| format!("run {run} came after it (`hello history {run}`)"),
        );
        let (old, new) = (target.from.as_deref().map_or("?", short), short(&target.to));
        return Err(refused(format!(
            "`{path}` on disk is {}, which is neither what it was before run {id} ({old}) nor \
             what that made it ({new}): {by}",
            short(&disk.sha256)
        )));
    }
    let kept = |sha256: &str| match disk.sha256 == sha256 {
        true => Some(disk.clone()),
        false => old(sha256)
            .and_then(|bytes| Content::from_stored(bytes, target.kind))
            .filter(|blob| blob.sha256 == sha256),
    };
    let to = kept(to).ok_or_else(|| {
        refused(format!(
            "the bytes that `{path}` would become ({}) are not kept any more",
            short(to)
        ))
    })?;
    let from = from.and_then(kept);
    let said = seen
        .instances
        .iter()
        .any(|m| m.group.secret.is_some() && m.instance.targets.contains(&target.path));
    let secret = now.secret || (!said && to.tree.as_ref().is_some_and(|tree| !tree.is_public()));
    Ok(TargetChange {
        path: target.path.clone(),
        from,
        to,
        secret,
    })
}

/// Where one instance is: who needs no signal is unchanged, and what an earlier run may have done
/// to it stands in it then.
///
/// # Errors
/// A sentence: it runs neither of the two configs.
fn classify(
    member: &mut PlannedInstance,
    shifts: &[TargetChange],
    disk: &[(&Path, &SurveyedTarget)],
    aim: RecoveryRequest<'_>,
) -> Result<(), String> {
    let left = aim.left;
    let same = left.same_boot
        && left
            .instances
            .iter()
            .any(|i| (i.pid, i.started) == member.id);
    let touch = left.touched.get(&member.id).filter(|_| left.same_boot);
    // What a process tells is the digest of its first target.
    let first = shifts.first();
    let says = member
        .instance
        .before
        .as_deref()
        .filter(|_| first.is_some());
    let to = first.map(|s| s.to.sha256.as_str());
    let from = first
        .and_then(|s| s.from.as_ref())
        .map(|from| from.sha256.as_str());
    if let (Some(says), Some(from), Some(first)) = (says, from, first)
        && says != from
        && Some(says) != to
    {
        return Err(format!(
            "runs {}, but run {} is about `{}` of {} and {}: neither of them",
            short(says),
            left.id,
            first.path.display(),
            short(from),
            short(&first.to.sha256)
        ));
    }
    let back = left.back ^ (aim.way == Direction::Back);
    member.prior_readings = match left.readings.get(&member.id).filter(|_| same) {
        Some(kept) if back => PriorReadings::After(kept.clone()),
        Some(kept) => PriorReadings::Before(kept.clone()),
        None => PriorReadings::None,
    };
    let otherwise = |touch: &SignalRecord| {
        if aim.way == Direction::Forward {
            touch.back
        } else {
            touch.forth
        }
    };
    // A signal that is under way yet makes it load what is there when it takes it; what it was
    // loading already may be the other config.
    member.signal_may_be_pending = touch.map_or_else(
        || is_under_way(member, aim.proven),
        |touch| otherwise(touch) && !touch.is_over(),
    );
    let on_disk = disk
        .iter()
        .zip(shifts)
        .all(|((_, target), shift)| target.content.sha256 == shift.to.sha256);
    let told = shifts.len() == 1 && says.is_some() && says == to && (on_disk || aim.at_once);
    let shown = on_disk
        && (already_current(member, disk, aim.proven)
            || (shifts.is_empty()
                && !member.unresponsive
                && touch.is_some_and(|touch| touch.state == Some(Outcome::Confirmed))));
    let started_on_it = on_disk && !same && touch.is_none() && has_read_it(member, disk, back);
    if !member.signal_may_be_pending && (told || shown || started_on_it) {
        member.instance.outcome = Outcome::Unchanged;
    }
    let idle = touch.is_none_or(|touch| {
        matches!(
            touch.state,
            Some(Outcome::Reverted | Outcome::Untouched | Outcome::Refused)
        )
    });
    // Unless it surely runs what was before.
    member.may_run_new = !match says {
        Some(says) => idle && Some(says) == from,
        None => idle && same,
    };
    member.runs_it = back && idle && same;
    Ok(())
}

/// Whether an instance that cannot tell what it runs started when every target was what it is now:
/// it has read that, and a signal could change nothing that it shows.
fn has_read_it(member: &PlannedInstance, disk: &[(&Path, &SurveyedTarget)], back: bool) -> bool {
    let later = disk
        .iter()
        .all(|(_, target)| target.ctime < member.started_ns);
    !member.unresponsive
        && member.instance.before.is_none()
        && !disk.is_empty()
        && later
        && baseline_matches(
            member,
            disk,
            if back {
                Literals::Skipped
            } else {
                Literals::Count
            },
        )
}
