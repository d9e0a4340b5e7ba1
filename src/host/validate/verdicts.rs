//! The validation of a whole run. Distinct validators run in parallel. A validator that refuses
//! even the present config of its instance cannot judge a candidate.

use std::collections::HashMap;

use futures_util::{StreamExt, stream};

use crate::{
    event::{Abort, Event, Instance, Interrupts, Phase, Verdict},
    fleet::{OnBadConfig, Validation},
    host::{
        parallel::{cores::cores, par_map::par_map},
        proc::guard,
        validate::{
            case::{Candidate, ValidationCase},
            complaints::Complaints,
            run::{Objection, ValidationError},
        },
    },
    step::PlannedInstance,
};

/// The most cache keys that are in memory at once. A run has up to ten thousand instances, and a
/// key holds its whole command line.
const KEYS_AT_ONCE: usize = 1024;

/// The instances of one step, and the content that they are about to read.
pub(crate) struct StepCandidates<'a> {
    pub(crate) instances: &'a [PlannedInstance],
    pub(crate) candidates: Vec<Candidate>,
    /// Tells whether an instance is known to run the present content, and not the candidates.
    pub(crate) runs_existing: Box<dyn Fn(&PlannedInstance) -> bool + 'a>,
}

/// The result of one validator.
struct ValidatorVerdict {
    candidate: Result<(), ValidationError>,
    /// The command of the validator.
    command: String,
    /// Why it refuses the present config of its instance too. None if it does not, or that is not
    /// known.
    existing_refused: Option<Objection>,
}

/// The distinct validations of a run.
struct Cases<'a> {
    /// Each with whether it has a validator at all.
    distinct: Vec<(ValidationCase<'a>, bool)>,
    /// For each step, the index in `distinct` of each instance.
    by_step: Vec<Vec<usize>>,
}

/// Returns the number of validators that run at once: one per processor.
pub(crate) fn max_parallel() -> usize {
    cores()
}

/// Returns the text for a validator that refuses the present config of its instance.
pub(crate) fn cannot_judge(why: &Objection) -> String {
    format!(
        "its validator cannot judge here, since it refuses what the instance runs already: {why}"
    )
}

/// Runs the validator of every instance. Returns whether it passed, by step and in the order of the
/// instances. A validator that cannot be run, or cannot judge, has refused nothing. The run ends in
/// these cases only if it is `strict`, or if a bad config ends the program.
///
/// # Errors
/// Fails as `Invalid` if a validator refuses, as `Refused` if a required one cannot judge, and as
/// `Failed` if the operator interrupts.
pub(crate) async fn validate_all(
    steps: &[StepCandidates<'_>],
    strict: bool,
    interrupts: &mut Interrupts,
    emit: &mut impl FnMut(Event),
) -> Result<Vec<Vec<bool>>, Abort> {
    let Cases { distinct, by_step } = Cases::of(steps);
    let runs_existing = |case: usize| {
        steps.iter().zip(&by_step).any(|(step, cases)| {
            step.instances
                .iter()
                .zip(cases)
                .any(|(planned, of)| *of == case && (step.runs_existing)(planned))
        })
    };
    let runs_existing = &runs_existing;
    let validations =
        distinct
            .iter()
            .enumerate()
            .map(|(index, (case, has_validator))| async move {
                if *has_validator {
                    Some(validate(case, || runs_existing(index)).await)
                } else {
                    None
                }
            });
    let mut results = stream::iter(validations).buffered(max_parallel());
    let mut passed = Vec::with_capacity(distinct.len());
    loop {
        emit(Event::Phase {
            phase: Phase::Validating,
            done: passed.len(),
            all: distinct.len(),
            limit: None,
        });
        let result = tokio::select! {
            result = results.next() => result,
            Ok(_) = interrupts.wait_for(|count| *count > 0) => return Err(Abort::interrupted()),
        };
        let Some(result) = result else { break };
        let Some((case, _)) = distinct.get(passed.len()) else {
            break;
        };
        passed.push(decide(case, result, strict, emit)?);
    }
    let of_step = |cases: &Vec<usize>| {
        cases
            .iter()
            .map(|case| passed.get(*case).copied().unwrap_or(false))
            .collect()
    };
    Ok(by_step.iter().map(of_step).collect())
}

impl<'a> Cases<'a> {
    /// Finds the distinct validations of all instances.
    fn of(steps: &'a [StepCandidates<'_>]) -> Self {
        let mut distinct = Vec::new();
        let mut known = HashMap::new();
        let mut by_step = Vec::with_capacity(steps.len());
        for step in steps {
            let candidates = step.candidates.as_slice();
            let key_of = |planned: &PlannedInstance| {
                let has_validator = !planned.group.validate.is_empty();
                has_validator.then(|| ValidationCase::of(planned, candidates).key())
            };
            let mut cases = Vec::with_capacity(step.instances.len());
            for instances in step.instances.chunks(KEYS_AT_ONCE) {
                for (planned, key) in instances.iter().zip(par_map(instances, key_of)) {
                    // A whole group has no validator: its name is the key.
                    let has_validator = key.is_some();
                    let group = (!has_validator).then(|| planned.instance.group.clone());
                    cases.push(*known.entry((key, group)).or_insert_with(|| {
                        let case = ValidationCase::of(planned, candidates);
                        distinct.push((case, has_validator));
                        distinct.len() - 1
                    }));
                }
            }
            by_step.push(cases);
        }
        Self { distinct, by_step }
    }
}

/// Runs one validator. If it refuses the candidate, it also runs for the present config, where that
/// is known to be what the instance runs.
async fn validate(case: &ValidationCase<'_>, runs_existing: impl Fn() -> bool) -> ValidatorVerdict {
    let (candidate, command) = case.validate_case().await;
    let live = case.live();
    let existing = ValidationCase::of(case.planned(), &live);
    let mut existing_refused = None;
    let candidate = match candidate {
        Ok(complaints) if complaints.is_empty() => Ok(()),
        Ok(complaints) => {
            // Errors that it names in the present config too are not new. If it does not pass
            // that, its errors cannot be compared.
            match existing.validate_case().await.0 {
                Ok(known) => refuse_new(case, &complaints.beyond(&known), &command),
                Err(ValidationError::Refused(_)) => Ok(()),
                Err(not_run) => Err(not_run),
            }
        }
        Err(ValidationError::Refused(why)) => {
            if runs_existing()
                && let Err(ValidationError::Refused(why)) = existing.validate_case().await.0
            {
                existing_refused = Some(why);
            }
            Err(ValidationError::Refused(why))
        }
        Err(not_run) => Err(not_run),
    };
    ValidatorVerdict {
        candidate,
        command,
        existing_refused,
    }
}

/// Refuses a candidate in which the validator names new errors, though it ends with 0: the program
/// would not use the lines that it names.
fn refuse_new(
    case: &ValidationCase<'_>,
    new: &Complaints,
    command: &str,
) -> Result<(), ValidationError> {
    if new.is_empty() {
        return Ok(());
    }
    let is_secret = case.candidates().iter().any(|candidate| candidate.secret);
    Err(Objection::Errors {
        command: command.into(),
        errors: (!is_secret).then(|| new.text()),
    }
    .into())
}

/// Returns why an instance must have a validation that passes; none if it need not.
fn requirement(planned: &PlannedInstance, strict: bool) -> Option<&'static str> {
    let group = &planned.group;
    // A config that cannot be loaded would end the process, so that a guess is not enough.
    if group.on_bad_config == OnBadConfig::Dies && group.validation == Validation::Wanted {
        return Some("a bad config ends it");
    }
    strict.then_some("--validate requires one for every instance")
}

/// Decides whether a case passed. Without a `result` it has no validator.
fn decide(
    case: &ValidationCase<'_>,
    result: Option<ValidatorVerdict>,
    strict: bool,
    emit: &mut impl FnMut(Event),
) -> Result<bool, Abort> {
    let instance = &case.planned().instance;
    let pid = instance.pid;
    let requirement = requirement(case.planned(), strict);
    let Some(result) = result else {
        return unvalidated(case.planned(), requirement, emit).map(|()| false);
    };
    // The validator was the executable of the instance only if the pid is still the instance.
    if result.candidate.is_err() && guard::is_over(pid, instance.started, &instance.exe) {
        return Err(Abort::new(
            Verdict::Refused,
            format!("pid {pid} ended while its config was validated"),
        ));
    }
    let why = match (result.candidate, result.existing_refused) {
        (Ok(()), _) => {
            for candidate in case.candidates() {
                emit(Event::Valid {
                    path: candidate.target.clone(),
                    sha256: candidate.sha256.clone(),
                    by: result.command.clone(),
                });
            }
            return Ok(true);
        }
        (Err(ValidationError::Refused(why)), None) => return Err(invalid(case, &why)),
        (Err(ValidationError::Refused(_)), Some(why)) => cannot_judge(&why),
        (Err(ValidationError::NotRun(why)), _) => why.to_string(),
    };
    match requirement {
        Some(requirement) => Err(Abort::by_validation(
            Verdict::Refused,
            format!("pid {pid} is not validated, and {requirement}: {why}"),
        )),
        None => {
            emit(Event::Unvalidated { pid, why });
            Ok(false)
        }
    }
}

/// Reports a group without a validator, if it declares that its program has none.
///
/// # Errors
/// Fails if there must be one.
fn unvalidated(
    planned: &PlannedInstance,
    requirement: Option<&'static str>,
    emit: &mut impl FnMut(Event),
) -> Result<(), Abort> {
    let Instance { group, pid, .. } = &planned.instance;
    if let Some(requirement) = requirement {
        let text = format!("group `{group}` (pid {pid}) has no validator, and {requirement}");
        return Err(Abort::by_validation(Verdict::Refused, text));
    }
    if planned.group.validation == Validation::Waived {
        let pid = *pid;
        let why = format!("group `{group}` declares that its program has no validator");
        emit(Event::Unvalidated { pid, why });
    }
    Ok(())
}

/// Returns the abort for a candidate that its validator refuses.
fn invalid(case: &ValidationCase<'_>, why: &Objection) -> Abort {
    let paths = case
        .candidates()
        .iter()
        .map(|candidate| match &candidate.source {
            // The file on the disk is the old one.
            Some(key) => format!("`{key}` for `{}`", candidate.target.display()),
            None => format!("`{}`", candidate.target.display()),
        })
        .collect::<Vec<_>>()
        .join(", ");
    Abort::by_validation(
        Verdict::Invalid,
        format!("the new config is not valid: {paths}\n{why}"),
    )
}
