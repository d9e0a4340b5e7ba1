//! The plan of a run: which file becomes what, who reads it, and who is signalled when. Pure: no process and no file is touched.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::{
    change::{Change, Changes, edit},
    config,
    event::{Instance, State, Stop, Trouble, Verdict},
    fleet::{Count, Fleet, Speaks},
    step::{Blob, Member, Seen, SeenTarget, Shift, Step, short},
};

/// Waves of steps, in the order in which they are committed.
#[derive(Debug)]
pub struct Plan {
    /// The next wave starts only when this one is proven.
    pub waves: Vec<Vec<Step>>,
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
}

impl Plan {
    /// Decides everything that can be decided without touching anything. `old` finds the bytes of an earlier config by digest.
    ///
    /// # Errors
    /// The first end in the order of the exit codes: no match, busy, refused, invalid, restart required.
    pub fn new(seen: Seen, wish: &Wish<'_>, old: impl Fn(&str) -> Option<Vec<u8>>) -> Result<Self, Stop> {
        counted(&seen, wish)?;
        if let Some(stop) = seen.stopped {
            return Err(stop);
        }
        let mut refused = seen.refused;
        let mut readers: BTreeMap<Vec<PathBuf>, Vec<Member>> = BTreeMap::new();
        for member in seen.members {
            readers.entry(member.instance.targets.clone()).or_default().push(member);
        }
        let differing = if wish.overwrite { None } else { differing(&readers, &seen.targets, wish.changes) };
        let mut invalid = None;
        let mut becomes: BTreeMap<&Path, Blob> = BTreeMap::new();
        for (path, target) in &seen.targets {
            // What is drifted is refused, whatever the change is.
            let to = match to_bytes(path, target, &readers, wish.changes) {
                Ok(to) => to,
                Err(stop) if stop.verdict == Verdict::Refused => return Err(stop),
                Err(stop) => {
                    invalid.get_or_insert(stop);
                    target.disk.clone()
                }
            };
            becomes.insert(path, to);
        }
        let mut steps = Vec::new();
        for (paths, mut members) in readers {
            let all: Vec<(&Path, &SeenTarget, &Blob)> = paths
                .iter()
                .filter_map(|path| {
                    let (path, target) = seen.targets.get_key_value(path)?;
                    Some((path.as_path(), target, becomes.get(path.as_path())?))
                })
                .collect();
            let adopted = all.iter().all(|(_, target, to)| target.disk.sha256 == to.sha256);
            let mut shifts = Vec::new();
            for (path, target, to) in all {
                let from = way_back(path, target, to, adopted, &mut members, &mut refused, &old);
                shifts.push(Shift { path: path.into(), from, to: to.clone(), secret: target.secret });
            }
            steps.push(Step { shifts, members, undo: false });
        }
        if !refused.is_empty() {
            return Err(Stop::refused(refused));
        }
        if let Some(stop) = differing.or(invalid) {
            return Err(stop);
        }
        judge(&steps, wish.changes)?;
        Ok(Self { waves: in_waves(steps) })
    }

    /// Every step, in order.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.waves.iter().flatten()
    }

    /// Every instance.
    pub fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.steps().flat_map(|s| &s.members).map(|m| &m.instance)
    }

    /// Each target once.
    #[must_use]
    pub fn targets(&self) -> Vec<&Shift> {
        let mut known = BTreeSet::new();
        self.steps().flat_map(|s| &s.shifts).filter(|s| known.insert(s.path.as_path())).collect()
    }

    /// Takes over what became of the instances of `steps`.
    pub fn settle(&mut self, steps: &[Step]) {
        let ends: BTreeMap<(i32, u64), &Member> = steps.iter().flat_map(|s| &s.members).map(|m| ((m.instance.pid, m.instance.started), m)).collect();
        for member in self.waves.iter_mut().flatten().flat_map(|s| &mut s.members) {
            if let Some(end) = ends.get(&(member.instance.pid, member.instance.started)) {
                *member = (*end).clone();
            }
        }
    }
}

/// Holds the number of instances of each group against what is expected of it.
fn counted(seen: &Seen, wish: &Wish<'_>) -> Result<(), Stop> {
    if let Some((pid, why)) = seen.missing.first() {
        return Err(Stop::new(Verdict::NoMatch, format!("pid {pid} {why}")));
    }
    for group in &wish.fleet.groups {
        let mine = |name: &str| name == group.name;
        let found = seen.members.iter().filter(|m| mine(&m.instance.group)).count() + seen.refused.iter().filter(|i| mine(&i.group)).count();
        let count = wish.count.unwrap_or(group.count);
        if found < count.min || found > count.max {
            let left: Vec<String> = seen.left_out.iter().take(10).map(|(pid, why)| format!("; left out: pid {pid} {why}")).collect();
            return Err(Stop::new(Verdict::NoMatch, format!("group `{}` has {found} instances, not {count}{}", group.name, left.concat())));
        }
    }
    Ok(())
}

/// One file for several targets is taken only where they are equal now.
fn differing(readers: &BTreeMap<Vec<PathBuf>, Vec<Member>>, targets: &BTreeMap<PathBuf, SeenTarget>, changes: &Changes) -> Option<Stop> {
    let mut first: BTreeMap<(&Path, usize), (&Path, &str)> = BTreeMap::new();
    for (paths, members) in readers {
        let Some(group) = members.first().map(|m| &m.instance.group) else { continue };
        let Change::File { named, .. } = changes.of(group) else { continue };
        for (place, path) in paths.iter().enumerate() {
            let Some(target) = targets.get(path) else { continue };
            let (other, sha256) = first.entry((named, place)).or_insert((path, &target.disk.sha256));
            if *sha256 != target.disk.sha256 {
                let why = format!(
                    "`{}` would become the config of several files, but `{}` and `{}` differ now; if they may become equal, say --overwrite",
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

/// What one target becomes, for everybody who reads it.
fn to_bytes(path: &Path, target: &SeenTarget, readers: &BTreeMap<Vec<PathBuf>, Vec<Member>>, changes: &Changes) -> Result<Blob, Stop> {
    let mut wanted: Option<(&str, Blob)> = None;
    let members = readers.iter().filter(|(paths, _)| paths.iter().any(|p| p == path)).flat_map(|(_, members)| members);
    for name in members.map(|m| m.instance.group.as_str()) {
        if wanted.as_ref().is_some_and(|(known, _)| *known == name) {
            continue;
        }
        let to = match changes.of(name) {
            Change::Adopt => target.disk.clone(),
            Change::File { named, bytes } => match bytes {
                Ok(blob) => blob.clone(),
                Err(why) => return Err(Stop::new(Verdict::Invalid, format!("the new config is not valid: `{}`: {why}", named.display()))),
            },
            Change::Set(edits) => {
                let edited = edit(&target.disk.bytes, edits);
                Blob::new(edited.map_err(|why| Stop::new(Verdict::Invalid, format!("the new config is not valid: --set on `{}`: {why}", path.display())))?)
            }
        };
        if let Some((other, _)) = wanted.as_ref().filter(|(_, known)| known.sha256 != to.sha256) {
            return Err(Stop::new(Verdict::Refused, format!("groups `{other}` and `{name}` read `{}`, and it cannot become both", path.display())));
        }
        wanted = Some((name, to));
    }
    Ok(wanted.map_or_else(|| target.disk.clone(), |(_, to)| to))
}

/// The bytes to go back to, and who needs no signal; who runs neither the file on disk nor the candidate is refused (drift).
fn way_back(
    path: &Path,
    target: &SeenTarget,
    to: &Blob,
    adopted: bool,
    members: &mut [Member],
    refused: &mut Vec<Instance>,
    old: impl Fn(&str) -> Option<Vec<u8>>,
) -> Option<Blob> {
    let disk = &target.disk;
    let mut others: Vec<Option<String>> = Vec::new();
    for member in members {
        let runs = member.instance.before.clone();
        match &runs {
            Some(runs) if *runs == to.sha256 && adopted => member.instance.state = State::Unchanged,
            Some(runs) if *runs == to.sha256 || *runs == disk.sha256 => {}
            Some(runs) if !adopted => {
                let text = format!(
                    "runs {}, but `{}` on disk is {}: neither the old nor the new config; adopt or put back that file first",
                    short(runs),
                    path.display(),
                    short(&disk.sha256)
                );
                member.fail(State::Refused, Trouble { kind: State::Refused, text });
                refused.push(member.instance.clone());
            }
            // Who cannot tell what it runs has no way back where the disk is the candidate already.
            _ => others.push(runs),
        }
    }
    others.sort();
    others.dedup();
    match (adopted, others.as_slice()) {
        (false, _) => Some(disk.clone()),
        (true, [Some(one)]) => old(one).map(Blob::new).filter(|b| b.sha256 == *one),
        (true, _) => None,
    }
}

/// Whether the candidates can be proven at all; for `hello serve`, whether each is a config that needs no restart.
fn judge(steps: &[Step], changes: &Changes) -> Result<(), Stop> {
    let mut restart = Ok(());
    for step in steps {
        let empty = Blob::new(Vec::new());
        let (to, secret, path) = step.shifts.first().map_or((&empty, false, Path::new("")), |s| (&s.to, s.secret, s.path.as_path()));
        let mut judged: Vec<&str> = Vec::new();
        for member in &step.members {
            let group = &member.group;
            let named = match changes.of(&group.name) {
                Change::File { named, .. } => named.as_path(),
                _ => path,
            };
            let invalid = |why: String| Stop::new(Verdict::Invalid, format!("the new config is not valid: `{}`\n{why}", named.display()));
            if group.speaks == Speaks::Hello && !step.shifts.is_empty() {
                if to.bytes.len() as u64 > config::MAX_CONFIG {
                    return Err(invalid(format!("it is larger than {} bytes", config::MAX_CONFIG)));
                }
                let parsed = config::parse(&to.bytes).map_err(|e| {
                    invalid(if secret { format!("{} (its lines are not shown: the config is a secret)", e.place()) } else { e.render(named, &to.bytes) })
                })?;
                let listen = parsed.listen();
                if let Some(now) = member.restart_only.get("listen").filter(|now| *now != listen) {
                    let why = format!("pid {}: `listen` is {now} and becomes {listen}, which needs a restart", member.instance.pid);
                    restart = restart.and(Err(Stop::new(Verdict::RestartRequired, why)));
                }
            }
            if !judged.contains(&group.name.as_str()) {
                judged.push(&group.name);
                for fact in group.confirm.iter().chain(&group.reject) {
                    fact.filled(&to.bytes).map_err(|why| invalid(format!("group `{}` confirms by {}: {why}", group.name, fact.source.describe("{listen}"))))?;
                }
            }
        }
    }
    restart
}

/// Nobody knows what a program without a kind does on the signal: the first of its group goes alone, the others follow when it is proven.
fn in_waves(steps: Vec<Step>) -> Vec<Vec<Step>> {
    let mut began: BTreeSet<String> = BTreeSet::new();
    let mut waves: [Vec<Step>; 2] = [Vec::new(), Vec::new()];
    for step in steps {
        let (mut now, mut later) = (Vec::new(), Vec::new());
        for mut member in step.members {
            let waits = member.group.kind.is_none() && member.instance.state != State::Unchanged && !began.insert(member.instance.group.clone());
            member.instance.wave = if waits { 2 } else { 1 };
            if waits { later.push(member) } else { now.push(member) }
        }
        for (wave, members) in waves.iter_mut().zip([now, later]) {
            if !members.is_empty() {
                wave.push(Step { shifts: step.shifts.clone(), members, undo: false });
            }
        }
    }
    waves.into_iter().filter(|w| !w.is_empty()).collect()
}
