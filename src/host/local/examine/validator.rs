//! Checks of the validator, and of the config on the disk by it.

use super::finding::{Finding, Topic};
use crate::{
    fleet::{OnBadConfig, Validation},
    host::{
        target::as_started::is_as_it_started,
        validate::{
            complaints::Complaints,
            current::{CurrentTarget, ValidationCache},
            run::ValidationError,
            verdicts::cannot_judge,
        },
    },
    step::PlannedInstance,
};

/// The finding about a config that no validator has read.
const NOT_KNOWN: &str = "it is not known whether it is valid";

/// Tells whether the result of a validator decides: it does where a bad config ends the process.
fn decides(planned: &PlannedInstance) -> bool {
    planned.group.on_bad_config == OnBadConfig::Dies
}

fn decided(finding: Finding, planned: &PlannedInstance) -> Finding {
    if decides(planned) {
        finding
    } else {
        finding.undecided()
    }
}

/// Checks whether the validator can be run, for a new config too, and its result for the config on
/// the disk.
pub(super) async fn validator(
    cache: &ValidationCache,
    planned: &PlannedInstance,
    targets: &[CurrentTarget],
) -> [Finding; 2] {
    if planned.group.validate.is_empty() {
        let disk = Finding::note(Topic::Disk, NOT_KNOWN);
        return [without_validator(planned), disk];
    }
    let (result, command) = cache.of(planned, targets).await;
    let can_bind = if matches!(result, Err(ValidationError::NotRun(_))) {
        Ok(())
    } else {
        cache.can_bind(planned, targets).await
    };
    let runnable = match (&result, can_bind) {
        (Err(ValidationError::NotRun(why)), _) => not_runnable(planned, why.to_string()),
        (_, Err(why)) => not_runnable(planned, why.to_string()),
        (_, Ok(())) => Finding::good(Topic::Validator, command),
    };
    [runnable, disk(planned, targets, result)]
}

/// Returns the finding for a group without a validator.
fn without_validator(planned: &PlannedInstance) -> Finding {
    let name = &planned.group.name;
    match planned.group.validation {
        Validation::Waived => {
            let text = format!("group `{name}` declares that the program has none");
            Finding::note(Topic::Validator, text)
        }
        Validation::Wanted => {
            let effect = if decides(planned) {
                ", and a bad config ends the process"
            } else {
                ""
            };
            let text = format!("group `{name}` has no validator{effect}");
            let finding = Finding::bad(Topic::Validator, text).then("set `validate = [argv]`");
            decided(finding, planned)
        }
    }
}

/// Returns the finding for a validator that cannot be run.
fn not_runnable(planned: &PlannedInstance, why: String) -> Finding {
    let next = if decides(planned) {
        "without it no instance is signalled: fix it, or set another `validate`"
    } else {
        "without it a config goes unvalidated: fix it, or set another `validate`"
    };
    decided(Finding::bad(Topic::Validator, why).then(next), planned)
}

/// Returns the validator's result for the config on the disk.
fn disk(
    planned: &PlannedInstance,
    targets: &[CurrentTarget],
    result: Result<Complaints, ValidationError>,
) -> Finding {
    let paths = targets
        .iter()
        .map(|target| format!("`{}`", target.path.display()))
        .collect::<Vec<_>>()
        .join(", ");
    let is_as_started = || {
        !targets.is_empty()
            && targets
                .iter()
                .all(|target| is_as_it_started(planned, &target.path))
    };
    match result {
        Ok(complaints) if !complaints.is_empty() => {
            let errors = if targets.iter().any(|target| target.secret) {
                "which are not shown: it is a secret".into()
            } else {
                complaints.text()
            };
            let text =
                format!("{paths} is valid as it stands, and its validator names errors: {errors}");
            Finding::note(Topic::Disk, text)
        }
        Ok(_) => Finding::good(Topic::Disk, format!("{paths} is valid as it stands")),
        Err(ValidationError::Refused(why)) if is_as_started() => {
            let finding = Finding::bad(Topic::Disk, cannot_judge(&why));
            decided(
                finding.then("set another validator with `validate`"),
                planned,
            )
        }
        Err(ValidationError::Refused(why)) => Finding::bad(Topic::Disk, format!("{paths}: {why}"))
            .then("fix it: the process will reject it on reload and on restart"),
        Err(ValidationError::NotRun(_)) => Finding::note(Topic::Disk, NOT_KNOWN),
    }
}
