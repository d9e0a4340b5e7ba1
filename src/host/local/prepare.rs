//! The second verb: everything that can be known before anything live is touched.

use std::{cell::LazyCell, collections::BTreeMap, path::PathBuf};

use crate::{
    event::{Abort, Event, Instance, Interrupts, Outcome, Phase},
    host::{
        local::{
            host::LocalHost,
            survey::{install_abort, refused},
        },
        proc::guard,
        target::{
            as_started::is_as_it_started,
            install::{Sync, Target, sync_all},
        },
        validate::{
            case::Candidate,
            overridden, readable, restart,
            verdicts::{Readers, passed},
        },
    },
    runs::{ProofCache, ProvenTarget},
    step::{PlannedInstance, Step, TargetChange},
};

impl LocalHost {
    pub(crate) async fn prepare(
        &mut self,
        steps: &mut [&mut Step],
        strict: bool,
        halts: &mut Interrupts,
        tell: &mut impl FnMut(Event),
    ) -> Result<(), Abort> {
        self.targets
            .values_mut()
            .for_each(|target| target.record_in(&self.staging));
        if self.locked {
            // What stands in a directory is read once for all targets in it.
            let mut beside = BTreeMap::new();
            for (path, target) in &self.targets {
                for name in target.strange(
                    beside
                        .entry(path.parent())
                        .or_insert_with(|| target.names()),
                ) {
                    let path = path.with_file_name(name);
                    // What is left of a run of this state was told already.
                    let is_it = |note: &Event| match note {
                        Event::LeftBeside { path: known, .. } => *known == path,
                        _ => false,
                    };
                    if self.notes.iter().any(is_it) {
                        continue;
                    }
                    let why = "no run of this state has written down that it made it; remove it \
                               by hand if it may go"
                        .into();
                    let event = Event::LeftBeside { path, why };
                    tell(event.clone());
                    self.notes.push(event);
                }
            }
        }
        let mut staged: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
        let sync = Sync::of(self.targets.len());
        let all: usize = steps.iter().map(|step| step.changes.len()).sum();
        for step in steps.iter() {
            for shift in &step.changes {
                if *halts.borrow() > 0 {
                    return Err(Abort::interrupted());
                }
                tell(Event::Phase {
                    phase: Phase::Staging,
                    done: staged.len(),
                    all,
                });
                self.directory_held_open(step, shift)?;
                if !staged.contains_key(&shift.path) {
                    staged.insert(shift.path.clone(), self.stage(shift, sync, tell)?);
                }
            }
        }
        if sync == Sync::Together {
            sync_all(self.targets.values()).map_err(install_abort)?;
        }
        readable_by_all(steps, &staged)?;
        let (mut first, mut second) = (halts.clone(), halts.clone());
        let valid = self.valid(steps, &staged, strict, &mut first, tell);
        // A validator that says no is told before anything else.
        let (valid, steady) = tokio::join!(valid, self.steady(steps, &mut second));
        let passed = valid?;
        steady?;
        for (step, passed) in steps.iter_mut().zip(passed) {
            for (member, passed) in step.instances.iter_mut().zip(passed) {
                member.instance.validated = passed;
            }
        }
        Ok(())
    }

    /// Whether the validator of each member of each step passed, in their order; then whether what
    /// changes is read on the signal.
    async fn valid(
        &self,
        steps: &[&mut Step],
        staged: &BTreeMap<PathBuf, PathBuf>,
        strict: bool,
        halts: &mut Interrupts,
        tell: &mut impl FnMut(Event),
    ) -> Result<Vec<Vec<bool>>, Abort> {
        let proven: &LazyCell<ProofCache, _> = &LazyCell::new(|| {
            self.staging
                .state()
                .map(ProofCache::load)
                .unwrap_or_default()
        });
        let readers = steps.iter().map(|step| {
            let of = |s: &TargetChange| {
                let staged = staged.get(&s.path).unwrap_or(&s.path).clone();
                let inodes = self
                    .targets
                    .get(&s.path)
                    .and_then(Target::inodes)
                    .unwrap_or_default();
                Candidate {
                    live: s.path.clone(),
                    staged,
                    inodes,
                    sha256: s.to.sha256.clone(),
                    secret: s.secret,
                }
            };
            let stood: LazyCell<Vec<ExistingTarget>, _> = LazyCell::new(|| {
                step.changes
                    .iter()
                    .map(|shift| self.existing_target(shift))
                    .collect()
            });
            let runs_live = move |member: &PlannedInstance| {
                !stood.is_empty()
                    && stood
                        .iter()
                        .enumerate()
                        .all(|(at, stood)| stood.is_run_by(member, at == 0, proven))
            };
            Readers {
                members: &step.instances,
                candidates: step.changes.iter().map(of).collect(),
                runs_live: Box::new(runs_live),
            }
        });
        let readers: Vec<Readers<'_>> = readers.collect();
        let all = passed(&readers, strict, halts, tell).await?;
        for step in steps.iter() {
            let Some(first) = step.changes.first() else {
                continue;
            };
            let staged = staged.get(&first.path).unwrap_or(&first.path);
            for member in step
                .instances
                .iter()
                .filter(|m| m.instance.outcome != Outcome::Unchanged)
            {
                tokio::select! {
                    said = overridden::keys(member, &step.changes) => said?,
                    Ok(_) = halts.wait_for(|n| *n > 0) => return Err(Abort::interrupted()),
                }
                tokio::select! {
                    said = restart::keys(member, &step.changes, staged) => said?,
                    Ok(_) = halts.wait_for(|n| *n > 0) => return Err(Abort::interrupted()),
                }
            }
        }
        Ok(all)
    }

    /// Stages what becomes of a target, and takes the place on the disk for its way back.
    fn stage(
        &mut self,
        shift: &TargetChange,
        sync: Sync,
        tell: &mut impl FnMut(Event),
    ) -> Result<PathBuf, Abort> {
        let run = self.run.clone();
        let Some(target) = self.targets.get_mut(&shift.path) else {
            return Ok(shift.path.clone());
        };
        let adopted = target.holds(&shift.to);
        let staged = if adopted {
            Ok(shift.path.clone())
        } else {
            target.stage(&shift.to, &run, sync)
        };
        let staged = staged.map_err(install_abort)?;
        match &shift.from {
            // Nothing is to be put back where nothing changes.
            Some(from) if from.sha256 == shift.to.sha256 => {}
            Some(from) => target.reserve(from, sync).map_err(install_abort)?,
            None => tell(Event::NoRollbackContent {
                path: shift.path.clone(),
            }),
        }
        Ok(staged)
    }

    /// Refuses the instances that would go on seeing the old directory after it was exchanged.
    fn directory_held_open(&self, step: &Step, shift: &TargetChange) -> Result<(), Abort> {
        let changes = self
            .targets
            .get(&shift.path)
            .is_some_and(|t| t.is_directory() && !t.holds(&shift.to));
        let why = |m: &PlannedInstance| {
            guard::keeps_directory_open(m.instance.pid, &shift.path)
                .map(|why| refused(m.instance.clone(), why))
        };
        let all: Vec<Instance> = if changes {
            step.instances.iter().filter_map(why).collect()
        } else {
            Vec::new()
        };
        if all.is_empty() {
            Ok(())
        } else {
            Err(Abort::refused(all))
        }
    }

    /// What stands at a target now, before it is replaced.
    fn existing_target(&self, shift: &TargetChange) -> ExistingTarget {
        let target = self.targets.get(&shift.path);
        let sha256 = target
            .and_then(Target::digest)
            .filter(|now| *now != shift.to.sha256);
        ExistingTarget {
            path: shift.path.clone(),
            sha256,
            behind: self
                .follows
                .get(&shift.path)
                .and_then(|follow| follow.behind.clone()),
        }
    }
}

/// What stands at a target.
struct ExistingTarget {
    path: PathBuf,
    /// None where it is the candidate, or cannot be read.
    sha256: Option<String>,
    /// The digest of everything that is read through it.
    behind: Option<String>,
}

impl ExistingTarget {
    /// Whether an instance is known to run it: by its own word, which is about the first target; by
    /// the record of the run that proved it; or since nothing of it was changed after the instance
    /// started.
    fn is_run_by(&self, member: &PlannedInstance, is_first: bool, proven: &ProofCache) -> bool {
        let Some(sha256) = &self.sha256 else {
            return false;
        };
        let i = &member.instance;
        let says = is_first && i.before.as_ref() == Some(sha256);
        let is_same = |stand: &ProvenTarget| {
            stand.sha256 == *sha256 && self.behind.is_some() && stand.behind == self.behind
        };
        let is_proven = || proven.of(i.pid, i.started, &self.path).is_some_and(is_same);
        says || is_proven() || is_as_it_started(member, &self.path)
    }
}

/// Refuses the instances that may not read what becomes of their targets.
fn readable_by_all(steps: &[&mut Step], staged: &BTreeMap<PathBuf, PathBuf>) -> Result<(), Abort> {
    let (mut readers, mut all) = (readable::Readers::default(), Vec::new());
    for step in steps {
        for member in step
            .instances
            .iter()
            .filter(|m| m.instance.outcome != Outcome::Unchanged)
        {
            let of = |shift: &TargetChange| {
                readers.refuse(
                    &member.identity,
                    &shift.path,
                    staged.get(&shift.path).unwrap_or(&shift.path),
                )
            };
            all.extend(
                step.changes
                    .iter()
                    .find_map(of)
                    .map(|why| refused(member.instance.clone(), why.to_string())),
            );
        }
    }
    if all.is_empty() {
        Ok(())
    } else {
        Err(Abort::refused(all))
    }
}
