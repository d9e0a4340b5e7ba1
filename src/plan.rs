//! The plan of a run: which file becomes what, who reads it, and who is signalled when. Pure: no
//! process and no file is touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use self::{
    desired::DesiredContent,
    readers::{Readers, group_by_targets},
};
use crate::{
    assertion::Assertion,
    change::{Change, Changes},
    config,
    event::{Abort, Event, Failure, Instance, Outcome, TargetKind, Verdict},
    fleet::{Count, Fleet, Group, Speaks, Unproven},
    runs::{ProofCache, ProvenTarget},
    screen,
    step::{
        Content, PlannedInstance, RanBefore, Step, Survey, SurveyedTarget, TargetChange, short,
    },
};

mod desired;
mod holds;
mod readers;
mod recovery;
#[cfg(test)]
mod tests;
mod unresponsive;
mod waves;

pub use self::{
    recovery::{Direction, RecoveryRequest, absent, unreplaced},
    waves::Wave,
};

/// Waves of steps, in the order in which they are committed.
#[derive(Debug)]
pub struct Plan {
    /// The next wave starts only when this one is proven.
    pub waves: Vec<Wave>,
    /// Who was not there at the survey, reads a target of the run, and must prove it like everybody
    /// else.
    pub newcomers: Vec<PlannedInstance>,
    /// Who is left out on purpose, each with its trouble.
    pub skipped: Vec<PlannedInstance>,
    /// Why it may only be prepared: valid or not is said first.
    pub restart: Option<Abort>,
}

/// What decides a plan besides what was seen.
#[derive(Debug)]
pub struct PlanRequest<'a> {
    /// The groups.
    pub fleet: &'a Fleet,
    /// What becomes of their configs.
    pub changes: &'a Changes,
    /// Instead of each group's own count.
    pub count: Option<Count>,
    /// One `--config` is taken for targets that differ now.
    pub overwrite: bool,
    /// Whose endpoint is silent goes along.
    pub include_sick: bool,
    /// What those who cannot tell what they run were last proven to run.
    pub proven: &'a ProofCache,
}

impl Plan {
    /// Decides everything that can be decided without touching anything. `old` finds the bytes of
    /// an earlier config by digest.
    ///
    /// # Errors
    /// The first end in the order of the exit codes: no match, busy, refused, invalid, restart
    /// required.
    pub fn new(
        mut seen: Survey,
        wish: &PlanRequest<'_>,
        old: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<Self, Abort> {
        check_counts(&seen, wish)?;
        if let Some(stop) = seen.abort {
            return Err(stop);
        }
        let (skipped, too_many) =
            unresponsive::judge(&mut seen, &wish.fleet.groups, wish.include_sick, |_| false);
        for member in &mut seen.instances {
            member.signal_may_be_pending = is_under_way(member, wish.proven);
        }
        let mut refused = seen.refused;
        let readers: Readers = group_by_targets(seen.instances, |m| m.instance.targets.clone());
        let differing = if wish.overwrite {
            None
        } else {
            differing(&readers, &seen.targets, wish.changes)
        };
        let (becomes, invalid) = desired::desired_contents(&seen.targets, &readers, wish.changes)?;
        let mut steps = Vec::new();
        for (paths, mut members) in readers {
            let all: Vec<(&Path, &SurveyedTarget, &DesiredContent)> = paths
                .iter()
                .filter_map(|path| {
                    let (path, target) = seen.targets.get_key_value(path)?;
                    Some((path.as_path(), target, becomes.get(path.as_path())?))
                })
                .collect();
            let adopted = all
                .iter()
                .all(|(_, target, becomes)| target.content.sha256 == becomes.to.sha256);
            let all_disk: Vec<(&Path, &SurveyedTarget)> = all
                .iter()
                .map(|(path, target, _)| (*path, *target))
                .collect();
            for member in members
                .iter_mut()
                .filter(|m| already_current(m, &all_disk, wish.proven))
            {
                member.ran_before = RanBefore::Disk;
            }
            if adopted {
                members
                    .iter_mut()
                    .filter(|m| m.ran_before == RanBefore::Disk)
                    .for_each(|m| m.instance.outcome = Outcome::Unchanged);
            }
            let mut shifts = Vec::new();
            for (place, (path, target, becomes)) in all.iter().enumerate() {
                let from = match (adopted, place) {
                    (false, 0) => {
                        drifted(
                            path,
                            &target.content,
                            &becomes.to,
                            &mut members,
                            &mut refused,
                        );
                        Some(target.content.clone())
                    }
                    (false, _) => Some(target.content.clone()),
                    (true, _) => previous_content(
                        path,
                        target,
                        all.len() == 1,
                        &mut members,
                        wish.proven,
                        &old,
                    ),
                };
                shifts.push(TargetChange {
                    path: (*path).into(),
                    from,
                    to: becomes.to.clone(),
                    secret: becomes.secret,
                });
            }
            if !wish.include_sick {
                holds::refuse(&mut members, &shifts, &mut refused);
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
        if let Some(stop) = differing.or(invalid) {
            return Err(stop);
        }
        let restart = order_by_config(&steps, &becomes)?;
        let order: Vec<&Group> = wish.fleet.groups.iter().collect();
        Ok(Self {
            waves: waves::in_waves(steps, &order, &wish.fleet.order),
            newcomers: Vec::new(),
            skipped,
            restart,
        })
    }

    /// Every step, in order.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.waves.iter().flat_map(|w| &w.steps)
    }

    /// Every instance.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.steps()
            .flat_map(|s| &s.instances)
            .chain(&self.newcomers)
            .chain(&self.skipped)
            .map(|m| &m.instance)
    }

    /// How every instance ended, for [`Verdict::of`].
    pub fn ends(&self) -> impl Iterator<Item = (Outcome, Unproven)> {
        let members = self
            .steps()
            .flat_map(|s| &s.instances)
            .chain(&self.newcomers)
            .chain(&self.skipped);
        members.map(|m| (m.instance.outcome, m.group.unproven))
    }

    /// Each target once.
    #[must_use]
    pub fn targets(&self) -> Vec<&TargetChange> {
        let mut known = BTreeSet::new();
        self.steps()
            .flat_map(|s| &s.changes)
            .filter(|s| known.insert(s.path.as_path()))
            .collect()
    }

    /// What assertions demand without asking the config, and what did not hold before the run: it
    /// may be what the new config shows, or a mistake.
    #[must_use]
    pub fn unheld(&self) -> Vec<Event> {
        holds::literals(self.steps())
    }

    /// Where the targets are.
    #[must_use]
    pub fn paths(&self) -> Vec<PathBuf> {
        self.targets().into_iter().map(|s| s.path.clone()).collect()
    }

    /// Takes over what became of the instances of `steps`.
    pub fn apply_outcomes(&mut self, steps: &[Step]) {
        let ends: BTreeMap<(i32, u64), &PlannedInstance> = steps
            .iter()
            .flat_map(|s| &s.instances)
            .map(|m| (m.id, m))
            .collect();
        for member in self
            .waves
            .iter_mut()
            .flat_map(|w| &mut w.steps)
            .flat_map(|s| &mut s.instances)
        {
            if let Some(end) = ends.get(&member.id) {
                *member = (*end).clone();
            }
        }
    }
}

/// Holds the number of instances of each group against what is expected of it.
fn check_counts(seen: &Survey, wish: &PlanRequest<'_>) -> Result<(), Abort> {
    if let Some((pid, why)) = seen.missing.first() {
        let who = if *pid == 0 {
            String::new()
        } else {
            format!("pid {pid} ")
        };
        return Err(Abort::new(Verdict::NoMatch, format!("{who}{why}")));
    }
    let mut surely: BTreeMap<&str, usize> = BTreeMap::new();
    seen.instances
        .iter()
        .chain(&seen.unresponsive)
        .for_each(|m| *surely.entry(&m.instance.group).or_default() += 1);
    let mut refused: BTreeMap<&str, usize> = BTreeMap::new();
    seen.refused
        .iter()
        .for_each(|i| *refused.entry(&i.group).or_default() += 1);
    for group in &wish.fleet.groups {
        // Who was refused may be one too many (two masters of one service), which the refusal says
        // better than a number.
        let sure = surely.get(group.name.as_str()).copied().unwrap_or(0);
        let found = sure + refused.get(group.name.as_str()).copied().unwrap_or(0);
        let count = wish.count.unwrap_or(group.count);
        if !count.holds(found, sure) {
            let left: Vec<String> = seen
                .skipped
                .iter()
                .take(10)
                .map(|(pid, why)| format!("; left out: pid {pid} {why}"))
                .collect();
            return Err(Abort::new(
                Verdict::NoMatch,
                format!(
                    "group `{}` has {}, not {count}{}",
                    group.name,
                    screen::counted(found, "instance"),
                    left.concat()
                ),
            ));
        }
    }
    Ok(())
}

/// One file for several targets is taken only where they are equal now.
fn differing(
    readers: &Readers,
    targets: &BTreeMap<PathBuf, SurveyedTarget>,
    changes: &Changes,
) -> Option<Abort> {
    let mut first: BTreeMap<(&Path, usize), (&Path, &str)> = BTreeMap::new();
    for (paths, members) in readers {
        let Some(group) = members.first().map(|m| &m.instance.group) else {
            continue;
        };
        let Change::Put { named, content, .. } = changes.of(group) else {
            continue;
        };
        let all = content
            .as_ref()
            .ok()
            .and_then(|blob| blob.tree.as_ref())
            .filter(|_| paths.len() > 1);
        for (place, path) in paths.iter().enumerate() {
            // Of several targets, one that has no entry stays as it is.
            let stays = all.is_some_and(|all| {
                !path
                    .file_name()
                    .is_some_and(|name| all.entries.contains_key(name))
            });
            let Some(target) = targets.get(path).filter(|_| !stays) else {
                continue;
            };
            let (other, sha256) = first
                .entry((named, place))
                .or_insert((path, &target.content.sha256));
            if *sha256 != target.content.sha256 {
                let why = format!(
                    "`{}` would become the config of several files, but `{}` and `{}` differ now; \
                     if they may become equal, say --overwrite",
                    named.display(),
                    other.display(),
                    path.display()
                );
                return Some(Abort::new(Verdict::Refused, why));
            }
        }
    }
    None
}

/// Who runs neither the file on disk nor the candidate is refused (drift). What a process tells is
/// the digest of its first target.
fn drifted(
    path: &Path,
    disk: &Content,
    to: &Content,
    members: &mut [PlannedInstance],
    refused: &mut Vec<Instance>,
) {
    for member in members {
        let Some(runs) = member
            .instance
            .before
            .clone()
            .filter(|runs| *runs != to.sha256 && *runs != disk.sha256)
        else {
            continue;
        };
        let text = format!(
            "runs {}, but `{}` on disk is {}: neither the old nor the new config; put that file \
             back, or adopt it with `hello broadcast {}`, before this change",
            short(&runs),
            path.display(),
            short(&disk.sha256),
            member.instance.group
        );
        member.fail(
            Outcome::Refused,
            Failure {
                kind: Outcome::Refused.into(),
                text,
            },
        );
        refused.push(member.instance.clone());
    }
}

/// Tells whether an earlier run may have left a reload under way of an instance that cannot tell
/// itself what it runs.
fn is_under_way(member: &PlannedInstance, proven: &ProofCache) -> bool {
    let (pid, started) = member.id;
    member.group.speaks == Speaks::None && proven.is_open(pid, started)
}

/// Whether one that cannot tell what it runs needs no signal: it was proven on what stands there,
/// nobody has touched that since, and what it says now is not another config's; or it reads that
/// only at its start, and started later.
fn already_current(
    member: &PlannedInstance,
    targets: &[(&Path, &SurveyedTarget)],
    proven: &ProofCache,
) -> bool {
    let i = &member.instance;
    let stands = |(path, target): &(&Path, &SurveyedTarget)| {
        let proven = proven.of(i.pid, i.started, path);
        let fixed =
            member.restart_only_paths.iter().any(|f| f == path) && target.ctime < member.started_ns;
        fixed
            || proven.is_some_and(|p| {
                p.sha256 == target.content.sha256
                    && p.ctime == target.ctime
                    && is_same_behind(p, target)
            })
    };
    // What a silent one says now is not known.
    !member.unresponsive
        && i.before.is_none()
        && !targets.is_empty()
        && targets.iter().all(stands)
        && baseline_matches(member, targets, Literals::Count)
}

/// Whether what is read through a target is known, and the same as when an instance was proven to
/// run it.
fn is_same_behind(stand: &ProvenTarget, target: &SurveyedTarget) -> bool {
    target.behind.is_some() && stand.behind == target.behind
}

/// What becomes of assertions that take nothing from the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Literals {
    /// They must hold.
    Count,
    /// They speak of the config that is taken back.
    Skipped,
}

/// Whether each of its facts that compares with nothing holds now.
fn baseline_matches(
    member: &PlannedInstance,
    targets: &[(&Path, &SurveyedTarget)],
    literals: Literals,
) -> bool {
    let disk = targets
        .first()
        .and_then(|(_, target)| target.content.file());
    let holds = |(fact, now): (&Assertion, &Option<String>)| {
        let holds = |filled: &Assertion| now.as_deref().is_some_and(|now| filled.holds_alone(now));
        let is_skipped = |filled: &Assertion| {
            literals == Literals::Skipped && filled.expectation == fact.expectation
        };
        fact.needs_baseline()
            || fact
                .resolved(disk)
                .is_ok_and(|filled| is_skipped(&filled) || holds(&filled))
    };
    member.group.confirm.iter().zip(&member.baseline).all(holds)
}

/// What is served now, and who needs no signal, where the disk is the candidate already. Who cannot
/// tell what it runs is taken to run what it was last proven to run; of several targets nobody
/// tells more than the first. A silent one is always signalled, and what it runs is what the others
/// do.
fn previous_content(
    path: &Path,
    target: &SurveyedTarget,
    alone: bool,
    members: &mut [PlannedInstance],
    proven: &ProofCache,
    old: impl Fn(&str) -> Option<Vec<u8>>,
) -> Option<Content> {
    let disk = &target.content;
    let mut others: Vec<Option<String>> = Vec::new();
    let all_silent = members.iter().all(|m| m.unresponsive);
    for member in members
        .iter_mut()
        .filter(|m| m.instance.outcome != Outcome::Unchanged)
    {
        match member.instance.before.clone().filter(|_| alone) {
            Some(runs) if runs == disk.sha256 => {
                if !member.unresponsive {
                    member.instance.outcome = Outcome::Unchanged;
                }
            }
            Some(runs) => others.push(Some(runs)),
            None => match proven.of(member.instance.pid, member.instance.started, path) {
                // The old content behind it was kept nowhere.
                Some(stand) if stand.behind.is_some() && !is_same_behind(stand, target) => {
                    others.push(None)
                }
                // The same bytes, written again.
                Some(stand) if stand.sha256 == disk.sha256 => {}
                None if member.unresponsive && !all_silent => {}
                stand => others.push(stand.map(|s| s.sha256.clone())),
            },
        }
    }
    others.sort();
    others.dedup();
    match others.as_slice() {
        [] => Some(disk.clone()),
        [Some(one)] => old(one)
            .and_then(|bytes| Content::from_stored(bytes, disk.kind()))
            .filter(|b| b.sha256 == *one),
        _ => None,
    }
}

/// Whether the candidates can be proven at all; for `hello serve`, whether each is a config that
/// needs no restart.
fn order_by_config(
    steps: &[Step],
    becomes: &BTreeMap<&Path, DesiredContent>,
) -> Result<Option<Abort>, Abort> {
    let mut restart: Option<Abort> = None;
    for step in steps {
        let empty = Content::new(Vec::new());
        let (to, secret, path) = step
            .changes
            .first()
            .map_or((&empty, false, Path::new("")), |s| {
                (&s.to, s.secret, s.path.as_path())
            });
        let named = becomes.get(path).map_or(path, |b| b.named.as_path());
        let invalid = |why: String| {
            Abort::new(
                Verdict::Invalid,
                format!("the new config is not valid: `{}`\n{why}", named.display()),
            )
        };
        let mut judged: Vec<&str> = Vec::new();
        for member in &step.instances {
            let group = &member.group;
            if group.speaks == Speaks::Hello && !step.changes.is_empty() {
                if to.kind() == TargetKind::Directory {
                    return Err(invalid(
                        "it is a directory, and this kind of process reads one file".into(),
                    ));
                }
                if to.bytes.len() as u64 > config::MAX_CONFIG {
                    return Err(invalid(format!(
                        "it is larger than {} bytes",
                        config::MAX_CONFIG
                    )));
                }
                let parsed = config::parse(&to.bytes).map_err(|e| {
                    invalid(if secret {
                        format!(
                            "{} (its lines are not shown: the config is a secret)",
                            e.place()
                        )
                    } else {
                        e.render(named, &to.bytes)
                    })
                })?;
                let listen = parsed.listen();
                if let Some(now) = member
                    .restart_only
                    .get("listen")
                    .filter(|now| *now != listen)
                {
                    let why = format!(
                        "pid {}: `listen` is {now} and becomes {listen}, which needs a restart",
                        member.instance.pid
                    );
                    restart.get_or_insert(Abort::new(Verdict::RestartRequired, why));
                }
            }
            let i = &member.instance;
            let fixed = step
                .changes
                .iter()
                .find(|s| {
                    member
                        .restart_only_paths
                        .iter()
                        .any(|f| f.starts_with(&s.path))
                })
                .filter(|_| i.outcome != Outcome::Unchanged);
            if let Some(shift) = fixed {
                let why = format!(
                    "pid {} ({}) does not read `{}` on {}, only at its start",
                    i.pid,
                    i.group,
                    shift.path.display(),
                    group.signal.name()
                );
                restart.get_or_insert(Abort::new(Verdict::RestartRequired, why));
            }
            if !judged.contains(&group.name.as_str()) {
                judged.push(&group.name);
                for fact in group.confirm.iter().chain(&group.reject) {
                    fact.resolved(to.file()).map_err(|why| {
                        invalid(format!(
                            "group `{}` confirms by {}: {why}",
                            group.name,
                            fact.source.describe("{listen}")
                        ))
                    })?;
                }
            }
        }
    }
    Ok(restart)
}
