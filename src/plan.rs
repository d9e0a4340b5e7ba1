//! The plan of a run: which file becomes what, who reads it, and who is signalled when. Pure: no
//! process and no file is touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use self::{
    becomes::Becomes,
    readers::{Readers, apart},
};
use crate::{
    change::{Change, Changes},
    config,
    event::{Event, Form, Instance, State, Stop, Trouble, Verdict},
    fact::Fact,
    fleet::{Count, Fleet, Group, Speaks, Unproven},
    runs::{Proven, Stand},
    screen,
    step::{Blob, Member, Ran, Seen, SeenTarget, Shift, Step, short},
};

mod again;
mod becomes;
mod holds;
mod readers;
mod sick;
#[cfg(test)]
mod tests;
mod waves;

pub use self::{
    again::{Aim, Way, absent, unreplaced},
    waves::Wave,
};

/// Waves of steps, in the order in which they are committed.
#[derive(Debug)]
pub struct Plan {
    /// The next wave starts only when this one is proven.
    pub waves: Vec<Wave>,
    /// Who was not there at the survey, reads a target of the run, and must prove it like everybody
    /// else.
    pub newcomers: Vec<Member>,
    /// Who is left out on purpose, each with its trouble.
    pub left_out: Vec<Member>,
    /// Why it may only be prepared: valid or not is said first.
    pub restart: Option<Stop>,
}

/// What decides a plan besides what was seen.
#[derive(Debug)]
pub struct Wish<'a> {
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
    pub proven: &'a Proven,
}

impl Plan {
    /// Decides everything that can be decided without touching anything. `old` finds the bytes of
    /// an earlier config by digest.
    ///
    /// # Errors
    /// The first end in the order of the exit codes: no match, busy, refused, invalid, restart
    /// required.
    pub fn new(
        mut seen: Seen,
        wish: &Wish<'_>,
        old: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Result<Self, Stop> {
        counted(&seen, wish)?;
        if let Some(stop) = seen.stopped {
            return Err(stop);
        }
        let (left_out, too_many) =
            sick::judge(&mut seen, &wish.fleet.groups, wish.include_sick, |_| false);
        for member in &mut seen.members {
            member.unsure = is_under_way(member, wish.proven);
        }
        let mut refused = seen.refused;
        let readers: Readers = apart(seen.members, |m| m.instance.targets.clone());
        let differing = if wish.overwrite {
            None
        } else {
            differing(&readers, &seen.targets, wish.changes)
        };
        let (becomes, invalid) = becomes::decide(&seen.targets, &readers, wish.changes)?;
        let mut steps = Vec::new();
        for (paths, mut members) in readers {
            let all: Vec<(&Path, &SeenTarget, &Becomes)> = paths
                .iter()
                .filter_map(|path| {
                    let (path, target) = seen.targets.get_key_value(path)?;
                    Some((path.as_path(), target, becomes.get(path.as_path())?))
                })
                .collect();
            let adopted = all
                .iter()
                .all(|(_, target, becomes)| target.disk.sha256 == becomes.to.sha256);
            let all_disk: Vec<(&Path, &SeenTarget)> = all
                .iter()
                .map(|(path, target, _)| (*path, *target))
                .collect();
            for member in members
                .iter_mut()
                .filter(|m| settled(m, &all_disk, wish.proven))
            {
                member.ran = Ran::Disk;
            }
            if adopted {
                members
                    .iter_mut()
                    .filter(|m| m.ran == Ran::Disk)
                    .for_each(|m| m.instance.state = State::Unchanged);
            }
            let mut shifts = Vec::new();
            for (place, (path, target, becomes)) in all.iter().enumerate() {
                let from = match (adopted, place) {
                    (false, 0) => {
                        drifted(path, &target.disk, &becomes.to, &mut members, &mut refused);
                        Some(target.disk.clone())
                    }
                    (false, _) => Some(target.disk.clone()),
                    (true, _) => served(
                        path,
                        target,
                        all.len() == 1,
                        &mut members,
                        wish.proven,
                        &old,
                    ),
                };
                shifts.push(Shift {
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
                shifts,
                members,
                undo: false,
            });
        }
        if !refused.is_empty() {
            let stop = Stop::refused(refused);
            return Err(Stop {
                reason: stop.reason + &too_many,
                ..stop
            });
        }
        if let Some(stop) = differing.or(invalid) {
            return Err(stop);
        }
        let restart = judge(&steps, &becomes)?;
        let order: Vec<&Group> = wish.fleet.groups.iter().collect();
        Ok(Self {
            waves: waves::in_waves(steps, &order, &wish.fleet.order),
            newcomers: Vec::new(),
            left_out,
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
            .flat_map(|s| &s.members)
            .chain(&self.newcomers)
            .chain(&self.left_out)
            .map(|m| &m.instance)
    }

    /// How every instance ended, for [`Verdict::of`].
    pub fn ends(&self) -> impl Iterator<Item = (State, Unproven)> {
        let members = self
            .steps()
            .flat_map(|s| &s.members)
            .chain(&self.newcomers)
            .chain(&self.left_out);
        members.map(|m| (m.instance.state, m.group.unproven))
    }

    /// Each target once.
    #[must_use]
    pub fn targets(&self) -> Vec<&Shift> {
        let mut known = BTreeSet::new();
        self.steps()
            .flat_map(|s| &s.shifts)
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
    pub fn settle(&mut self, steps: &[Step]) {
        let ends: BTreeMap<(i32, u64), &Member> = steps
            .iter()
            .flat_map(|s| &s.members)
            .map(|m| (m.id, m))
            .collect();
        for member in self
            .waves
            .iter_mut()
            .flat_map(|w| &mut w.steps)
            .flat_map(|s| &mut s.members)
        {
            if let Some(end) = ends.get(&member.id) {
                *member = (*end).clone();
            }
        }
    }
}

/// Holds the number of instances of each group against what is expected of it.
fn counted(seen: &Seen, wish: &Wish<'_>) -> Result<(), Stop> {
    if let Some((pid, why)) = seen.missing.first() {
        let who = if *pid == 0 {
            String::new()
        } else {
            format!("pid {pid} ")
        };
        return Err(Stop::new(Verdict::NoMatch, format!("{who}{why}")));
    }
    let mut surely: BTreeMap<&str, usize> = BTreeMap::new();
    seen.members
        .iter()
        .chain(&seen.sick)
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
                .left_out
                .iter()
                .take(10)
                .map(|(pid, why)| format!("; left out: pid {pid} {why}"))
                .collect();
            return Err(Stop::new(
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
    targets: &BTreeMap<PathBuf, SeenTarget>,
    changes: &Changes,
) -> Option<Stop> {
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
                .or_insert((path, &target.disk.sha256));
            if *sha256 != target.disk.sha256 {
                let why = format!(
                    "`{}` would become the config of several files, but `{}` and `{}` differ now; \
                     if they may become equal, say --overwrite",
                    named.display(),
                    other.display(),
                    path.display()
                );
                return Some(Stop::new(Verdict::Refused, why));
            }
        }
    }
    None
}

/// Who runs neither the file on disk nor the candidate is refused (drift). What a process tells is
/// the digest of its first target.
fn drifted(
    path: &Path,
    disk: &Blob,
    to: &Blob,
    members: &mut [Member],
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
            State::Refused,
            Trouble {
                kind: State::Refused.into(),
                text,
            },
        );
        refused.push(member.instance.clone());
    }
}

/// Tells whether an earlier run may have left a reload under way of an instance that cannot tell
/// itself what it runs.
fn is_under_way(member: &Member, proven: &Proven) -> bool {
    let (pid, started) = member.id;
    member.group.speaks == Speaks::None && proven.is_open(pid, started)
}

/// Whether one that cannot tell what it runs needs no signal: it was proven on what stands there,
/// nobody has touched that since, and what it says now is not another config's; or it reads that
/// only at its start, and started later.
fn settled(member: &Member, targets: &[(&Path, &SeenTarget)], proven: &Proven) -> bool {
    let i = &member.instance;
    let stands = |(path, target): &(&Path, &SeenTarget)| {
        let proven = proven.of(i.pid, i.started, path);
        let fixed = member.fixed.iter().any(|f| f == path) && target.ctime < member.born;
        fixed
            || proven.is_some_and(|p| {
                p.sha256 == target.disk.sha256
                    && p.ctime == target.ctime
                    && is_same_behind(p, target)
            })
    };
    // What a silent one says now is not known.
    !member.sick
        && i.before.is_none()
        && !targets.is_empty()
        && targets.iter().all(stands)
        && agrees(member, targets, Literals::Count)
}

/// Whether what is read through a target is known, and the same as when an instance was proven to
/// run it.
fn is_same_behind(stand: &Stand, target: &SeenTarget) -> bool {
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
fn agrees(member: &Member, targets: &[(&Path, &SeenTarget)], literals: Literals) -> bool {
    let disk = targets.first().and_then(|(_, target)| target.disk.file());
    let holds = |(fact, now): (&Fact, &Option<String>)| {
        let holds = |filled: &Fact| now.as_deref().is_some_and(|now| filled.holds_alone(now));
        let is_skipped =
            |filled: &Fact| literals == Literals::Skipped && filled.wants == fact.wants;
        fact.compares()
            || fact
                .filled(disk)
                .is_ok_and(|filled| is_skipped(&filled) || holds(&filled))
    };
    member.group.confirm.iter().zip(&member.baseline).all(holds)
}

/// What is served now, and who needs no signal, where the disk is the candidate already. Who cannot
/// tell what it runs is taken to run what it was last proven to run; of several targets nobody
/// tells more than the first. A silent one is always signalled, and what it runs is what the others
/// do.
fn served(
    path: &Path,
    target: &SeenTarget,
    alone: bool,
    members: &mut [Member],
    proven: &Proven,
    old: impl Fn(&str) -> Option<Vec<u8>>,
) -> Option<Blob> {
    let disk = &target.disk;
    let mut others: Vec<Option<String>> = Vec::new();
    let all_silent = members.iter().all(|m| m.sick);
    for member in members
        .iter_mut()
        .filter(|m| m.instance.state != State::Unchanged)
    {
        match member.instance.before.clone().filter(|_| alone) {
            Some(runs) if runs == disk.sha256 => {
                if !member.sick {
                    member.instance.state = State::Unchanged;
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
                None if member.sick && !all_silent => {}
                stand => others.push(stand.map(|s| s.sha256.clone())),
            },
        }
    }
    others.sort();
    others.dedup();
    match others.as_slice() {
        [] => Some(disk.clone()),
        [Some(one)] => old(one)
            .and_then(|bytes| Blob::kept(bytes, disk.form()))
            .filter(|b| b.sha256 == *one),
        _ => None,
    }
}

/// Whether the candidates can be proven at all; for `hello serve`, whether each is a config that
/// needs no restart.
fn judge(steps: &[Step], becomes: &BTreeMap<&Path, Becomes>) -> Result<Option<Stop>, Stop> {
    let mut restart: Option<Stop> = None;
    for step in steps {
        let empty = Blob::new(Vec::new());
        let (to, secret, path) = step
            .shifts
            .first()
            .map_or((&empty, false, Path::new("")), |s| {
                (&s.to, s.secret, s.path.as_path())
            });
        let named = becomes.get(path).map_or(path, |b| b.named.as_path());
        let invalid = |why: String| {
            Stop::new(
                Verdict::Invalid,
                format!("the new config is not valid: `{}`\n{why}", named.display()),
            )
        };
        let mut judged: Vec<&str> = Vec::new();
        for member in &step.members {
            let group = &member.group;
            if group.speaks == Speaks::Hello && !step.shifts.is_empty() {
                if to.form() == Form::Directory {
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
                    restart.get_or_insert(Stop::new(Verdict::RestartRequired, why));
                }
            }
            let i = &member.instance;
            let fixed = step
                .shifts
                .iter()
                .find(|s| member.fixed.iter().any(|f| f.starts_with(&s.path)))
                .filter(|_| i.state != State::Unchanged);
            if let Some(shift) = fixed {
                let why = format!(
                    "pid {} ({}) does not read `{}` on {}, only at its start",
                    i.pid,
                    i.group,
                    shift.path.display(),
                    group.signal.name()
                );
                restart.get_or_insert(Stop::new(Verdict::RestartRequired, why));
            }
            if !judged.contains(&group.name.as_str()) {
                judged.push(&group.name);
                for fact in group.confirm.iter().chain(&group.reject) {
                    fact.filled(to.file()).map_err(|why| {
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
