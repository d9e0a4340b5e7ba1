//! The second verb: everything that can be known before a target is replaced.

use std::{cell::LazyCell, collections::BTreeMap, path::PathBuf};

use crate::{
    event::{Abort, Event, Interrupts, Outcome, Phase, check_interrupts},
    fleet::url_of,
    host::{
        local::{
            host::LocalHost,
            refusals::{install_abort, none_refused, refused},
        },
        proc::guard,
        target::{
            as_started::is_as_it_started,
            install::{Sync, Target, sync_all},
        },
        validate::{
            case::Candidate,
            overridden, readable, restart,
            verdicts::{StepCandidates, validate_all},
        },
    },
    refusal::Refusal,
    runs::{ProofCache, ProvenTarget},
    step::{Content, PlannedInstance, Step, TargetChange},
};

/// Why a target without rollback content has none.
const UNKNOWN_CONTENT: &str =
    "the served config is not known of every instance, or no copy is kept";

/// The staged path of each target, by the path of the target.
type StagedPaths = BTreeMap<PathBuf, PathBuf>;

impl LocalHost {
    pub(crate) async fn prepare(
        &mut self,
        steps: &mut [&mut Step],
        strict: bool,
        interrupts: &mut Interrupts,
        emit: &mut impl FnMut(Event),
    ) -> Result<(), Abort> {
        self.targets
            .values_mut()
            .for_each(|target| target.record_in(&self.staging));
        if self.locked {
            self.report_unknown_files(emit);
        }
        let staged = self.stage_all(steps, interrupts, emit)?;
        self.forget_rollback(steps, emit);
        check_readable(steps, &staged)?;
        self.check_logs(steps)?;
        let mut first_interrupts = interrupts.clone();
        let mut second_interrupts = interrupts.clone();
        let validation = self.validate(steps, &staged, strict, &mut first_interrupts, emit);
        let steady = self.check_steady(steps, &mut second_interrupts);
        let (passed, steady) = tokio::join!(validation, steady);
        // The result of a validator is reported before anything else.
        let passed = passed?;
        steady?;
        for (step, passed) in steps.iter_mut().zip(passed) {
            for (planned, passed) in step.instances.iter_mut().zip(passed) {
                planned.instance.validated = passed;
            }
        }
        Ok(())
    }

    /// Refuses instances whose log is named by the config, if the new config names none that can be
    /// read. A refusal of it would not be seen.
    fn check_logs(&self, steps: &[&mut Step]) -> Result<(), Abort> {
        let mut unread = Vec::new();
        for step in steps {
            let signalled = |m: &&PlannedInstance| m.instance.outcome != Outcome::Unchanged;
            for planned in step.instances.iter().filter(signalled) {
                if let Err(why) = self.limits.logs.learn(planned, &step.changes) {
                    let hint = why.hint();
                    let why = Refusal { why, hint }.to_string();
                    unread.push(refused(planned.instance.clone(), why));
                }
            }
        }
        none_refused(unread)
    }

    /// Reports files beside the targets that are named like a run's, and that no run of this state
    /// directory has recorded.
    fn report_unknown_files(&mut self, emit: &mut impl FnMut(Event)) {
        // Each directory is read once for all targets in it.
        let mut names = BTreeMap::new();
        for (path, target) in &self.targets {
            let names = names
                .entry(path.parent())
                .or_insert_with(|| target.hidden_names());
            for name in target.leftovers(names) {
                let path = path.with_file_name(name);
                // The remains of a recorded run were reported before.
                let is_reported = self.notes.iter().any(
                    |note| matches!(note, Event::LeftBeside { path:known, ..} if *known == path),
                );
                if is_reported {
                    continue;
                }
                let why = "no run of this state directory has recorded it; remove it by hand if \
                           nothing needs it"
                    .into();
                let event = Event::LeftBeside { path, why };
                emit(event.clone());
                self.notes.push(event);
            }
        }
    }

    /// Stages the new content of every target once, and reserves the rollback content.
    fn stage_all(
        &mut self,
        steps: &[&mut Step],
        interrupts: &Interrupts,
        emit: &mut impl FnMut(Event),
    ) -> Result<StagedPaths, Abort> {
        let mut staged = StagedPaths::new();
        let sync = Sync::of(self.targets.len());
        let all: usize = steps.iter().map(|step| step.changes.len()).sum();
        for step in steps {
            for change in &step.changes {
                check_interrupts(interrupts)?;
                emit(Event::Phase {
                    phase: Phase::Staging,
                    done: staged.len(),
                    all,
                    limit: None,
                });
                self.check_directory_not_held(step, change)?;
                if !staged.contains_key(&change.path) {
                    let path = self.stage(change, sync, interrupts, emit)?;
                    staged.insert(change.path.clone(), path);
                }
            }
        }
        if sync == Sync::Together {
            check_interrupts(interrupts)?;
            sync_all(self.targets.values()).map_err(install_abort)?;
        }
        Ok(staged)
    }

    /// Validates every candidate, then checks that the signal makes each instance read what
    /// changes. Returns whether the validator of each instance passed, by step, in their order.
    async fn validate(
        &self,
        steps: &[&mut Step],
        staged: &StagedPaths,
        strict: bool,
        interrupts: &mut Interrupts,
        emit: &mut impl FnMut(Event),
    ) -> Result<Vec<Vec<bool>>, Abort> {
        let proofs: &LazyCell<ProofCache, _> = &LazyCell::new(|| {
            self.staging
                .state()
                .map(ProofCache::load)
                .unwrap_or_default()
        });
        let step_candidates = steps.iter().map(|step| {
            let existing: LazyCell<Vec<ExistingTarget>, _> = LazyCell::new(|| {
                step.changes
                    .iter()
                    .map(|change| self.existing_target(change))
                    .collect()
            });
            let runs_existing = move |planned: &PlannedInstance| {
                !existing.is_empty()
                    && existing
                        .iter()
                        .enumerate()
                        .all(|(index, target)| target.is_run_by(planned, index == 0, proofs))
            };
            StepCandidates {
                instances: &step.instances,
                candidates: step
                    .changes
                    .iter()
                    .map(|change| self.candidate(change, staged))
                    .collect(),
                runs_existing: Box::new(runs_existing),
            }
        });
        let step_candidates: Vec<StepCandidates<'_>> = step_candidates.collect();
        let passed = validate_all(&step_candidates, strict, interrupts, emit).await?;
        for step in steps {
            check_keys(step, staged, interrupts).await?;
        }
        Ok(passed)
    }

    /// Returns the new content of a target as its validator gets it.
    fn candidate(&self, change: &TargetChange, staged: &StagedPaths) -> Candidate {
        let target = self.targets.get(&change.path);
        let live = target.and_then(Target::live_file);
        Candidate {
            target: change.path.clone(),
            live: live.unwrap_or(&change.path).to_owned(),
            staged: staged.get(&change.path).unwrap_or(&change.path).clone(),
            inodes: target.and_then(Target::inodes).unwrap_or_default(),
            sha256: change.to.sha256.clone(),
            source: change.source.as_ref().map(ToString::to_string),
            secret: change.secret,
        }
    }

    /// Stages the new content of a target, and reserves the disk space for its rollback content.
    fn stage(
        &mut self,
        change: &TargetChange,
        sync: Sync,
        interrupts: &Interrupts,
        emit: &mut impl FnMut(Event),
    ) -> Result<PathBuf, Abort> {
        let Some(target) = self.targets.get_mut(&change.path) else {
            return Ok(change.path.clone());
        };
        let is_adopted = target.holds(&change.to);
        let staged = if is_adopted {
            target
                .copy(&change.to, change.secret, &self.run)
                .map_err(install_abort)?;
            target.live_file().unwrap_or(&change.path).to_owned()
        } else {
            let now = change.from.as_ref().unwrap_or(&change.to);
            target
                .stage((now, &change.to), change.secret, &self.run, sync)
                .map_err(install_abort)?
        };
        check_interrupts(interrupts)?;
        match &change.from {
            // A rollback changes nothing where the run changes nothing.
            Some(from) if from.sha256 == change.to.sha256 => {}
            Some(_) if is_adopted && target.replaceable().is_err() => {}
            Some(from) => target.reserve(from, sync).map_err(install_abort)?,
            None => emit(Event::NoRollbackContent {
                path: change.path.clone(),
                why: UNKNOWN_CONTENT.into(),
            }),
        }
        Ok(staged)
    }

    /// Removes the rollback content of adopted targets that a run could not replace, such as one on
    /// a read-only mount.
    fn forget_rollback(&self, steps: &mut [&mut Step], emit: &mut impl FnMut(Event)) {
        let mut blocked: BTreeMap<PathBuf, Option<String>> = BTreeMap::new();
        for change in steps.iter_mut().flat_map(|step| &mut step.changes) {
            let Some(target) = self.targets.get(&change.path) else {
                continue;
            };
            let changes = |from: &Content| from.sha256 != change.to.sha256;
            if !change.from.as_ref().is_some_and(changes) || !target.holds(&change.to) {
                continue;
            }
            let is_new = !blocked.contains_key(&change.path);
            let why = blocked
                .entry(change.path.clone())
                .or_insert_with(|| target.replaceable().err().map(|e| e.to_string()));
            let Some(why) = why else { continue };
            change.from = None;
            if is_new {
                emit(Event::NoRollbackContent {
                    path: change.path.clone(),
                    why: why.clone(),
                });
            }
        }
    }

    /// Refuses the instances that would still see the old directory after its exchange.
    fn check_directory_not_held(&self, step: &Step, change: &TargetChange) -> Result<(), Abort> {
        let is_replaced = self
            .targets
            .get(&change.path)
            .is_some_and(|target| target.is_directory() && !target.holds(&change.to));
        if !is_replaced {
            return Ok(());
        }
        let refuse = |planned: &PlannedInstance| {
            guard::keeps_directory_open(planned.instance.pid, &change.path)
                .map(|why| refused(planned.instance.clone(), why))
        };
        none_refused(step.instances.iter().filter_map(refuse).collect())
    }

    /// Returns the present content of a target, before it is replaced.
    fn existing_target(&self, change: &TargetChange) -> ExistingTarget {
        let target = self.targets.get(&change.path);
        let sha256 = target
            .and_then(Target::digest)
            .filter(|now| *now != change.to.sha256);
        ExistingTarget {
            path: change.path.clone(),
            sha256,
            behind: self
                .follows
                .get(&change.path)
                .and_then(|follow| follow.behind.clone()),
        }
    }
}

/// The present content of a target.
struct ExistingTarget {
    path: PathBuf,
    /// None if it is the candidate, or cannot be read.
    sha256: Option<String>,
    /// The digest of everything that is read through the target.
    behind: Option<String>,
}

impl ExistingTarget {
    /// Tells whether an instance is known to run this content, in one of three ways: it reports so,
    /// which is about the first target alone; a run has recorded its proof; or no part of the
    /// target has changed since the instance started.
    fn is_run_by(&self, planned: &PlannedInstance, is_first: bool, proofs: &ProofCache) -> bool {
        let Some(sha256) = &self.sha256 else {
            return false;
        };
        let instance = &planned.instance;
        let is_reported = is_first && instance.before.as_ref() == Some(sha256);
        let is_same = |proven: &ProvenTarget| {
            proven.sha256 == *sha256 && self.behind.is_some() && proven.behind == self.behind
        };
        let is_proven = || {
            proofs
                .of(instance.pid, instance.started, &self.path)
                .is_some_and(is_same)
        };
        is_reported || is_proven() || is_as_it_started(planned, &self.path)
    }
}

/// The instances of a step that the run signals.
fn signalled(step: &Step) -> impl Iterator<Item = &PlannedInstance> {
    step.instances
        .iter()
        .filter(|planned| planned.instance.outcome != Outcome::Unchanged)
}

/// Refuses keys that another place overrides, or that need a restart, in the targets of a step.
async fn check_keys(
    step: &Step,
    staged: &StagedPaths,
    interrupts: &mut Interrupts,
) -> Result<(), Abort> {
    let Some(first) = step.changes.first() else {
        return Ok(());
    };
    let staged = staged.get(&first.path).unwrap_or(&first.path);
    for planned in signalled(step) {
        let checks = async {
            overridden::check_keys(planned, &step.changes).await?;
            restart::check_keys(planned, &step.changes, staged).await
        };
        tokio::select! {
            result = checks => result?,
            Ok(_) = interrupts.wait_for(|count| *count > 0) => return Err(Abort::interrupted()),
        }
    }
    Ok(())
}

/// Refuses the instances that may not read the new content of their targets. Of a key, that is the
/// copy for validators.
fn check_readable(steps: &[&mut Step], staged: &StagedPaths) -> Result<(), Abort> {
    let mut readers = readable::Readers::default();
    let mut unreadable = Vec::new();
    for step in steps {
        for planned in signalled(step) {
            let why = step.changes.iter().find_map(|change| {
                let staged = staged.get(&change.path).unwrap_or(&change.path);
                let named = match url_of(&change.path) {
                    Some(_) => staged,
                    None => &change.path,
                };
                readers.refuse(&planned.identity, named, staged)
            });
            unreadable.extend(why.map(|why| refused(planned.instance.clone(), why)));
        }
    }
    none_refused(unreadable)
}
