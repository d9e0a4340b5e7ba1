//! What the validators of a whole run say: distinct ones side by side, and none of them where it
//! refuses what its instance runs already.

use std::{collections::HashMap, thread};

use futures_util::{StreamExt, stream};

use crate::{
    event::{Abort, Event, Interrupts, Phase, Verdict},
    fleet::{OnBadConfig, Validation},
    host::{
        parallel::par_map::par_map,
        proc::guard,
        validate::{
            case::{Candidate, Key, ValidationCase},
            complaints::Complaints,
            run::ValidationError,
        },
    },
    step::PlannedInstance,
};

/// The keys of so many cases are there at once.
const KEYS: usize = 1024;

/// Instances that are about to read the same.
pub(crate) struct Readers<'a> {
    pub(crate) members: &'a [PlannedInstance],
    /// What they are about to read.
    pub(crate) candidates: Vec<Candidate>,
    /// Whether an instance is known to run what is live now, and not the candidate.
    pub(crate) runs_live: Box<dyn Fn(&PlannedInstance) -> bool + 'a>,
}

/// What a validator said of a candidate, and who it was.
struct ValidatorVerdict {
    of_candidate: Result<(), ValidationError>,
    by: String,
    /// The reason for which it refuses what its instance runs as well.
    of_reference: Option<String>,
}

/// How many validators run at once.
pub(crate) fn side_by_side() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Said of a validator that refuses what its instance runs.
pub(crate) fn cannot_judge(why: &str) -> String {
    format!(
        "its validator cannot judge here, since it refuses what the instance runs already: {why}"
    )
}

/// Whether the validator of each member passed, in the order of `all`. One that could not be run,
/// or that cannot judge, has refused nothing: only `strict`, or a program that a bad config ends,
/// refuses then.
///
/// # Errors
/// `Invalid` when one says no; `Refused` when one must be asked and cannot; `Failed` when the
/// operator interrupts.
pub(crate) async fn passed(
    all: &[Readers<'_>],
    strict: bool,
    halts: &mut Interrupts,
    tell: &mut impl FnMut(Event),
) -> Result<Vec<Vec<bool>>, Abort> {
    let (mut cases, mut known, mut places) =
        (Vec::new(), HashMap::new(), Vec::with_capacity(all.len()));
    for readers in all {
        let (mut of_step, candidates) = (
            Vec::with_capacity(readers.members.len()),
            readers.candidates.as_slice(),
        );
        for some in readers.members.chunks(KEYS) {
            let key = |member: &PlannedInstance| {
                (!member.group.validate.is_empty())
                    .then(|| ValidationCase::of(member, candidates).key())
            };
            for (member, key) in some.iter().zip(par_map(some, key)) {
                // Without a key it has no validator, which is so for its whole group.
                let key = key.map_or_else(|| Err(member.instance.group.clone()), Ok::<Key, String>);
                let has_validator = key.is_ok();
                of_step.push(*known.entry(key).or_insert_with(|| {
                    cases.push((ValidationCase::of(member, candidates), has_validator));
                    cases.len() - 1
                }));
            }
        }
        places.push(of_step);
    }
    let runs_live = |case: usize| {
        let of = |(readers, places): (&Readers<'_>, &Vec<usize>)| {
            readers
                .members
                .iter()
                .zip(places)
                .any(|(member, place)| *place == case && (readers.runs_live)(member))
        };
        all.iter().zip(&places).any(of)
    };
    let mut verdicts = Vec::with_capacity(cases.len());
    {
        let runs_live = &runs_live;
        let asked = cases
            .iter()
            .enumerate()
            .map(|(at, (case, has_validator))| async move {
                if *has_validator {
                    Some(ask(case, || runs_live(at)).await)
                } else {
                    None
                }
            });
        let mut said = stream::iter(asked).buffered(side_by_side());
        loop {
            tell(Event::Phase {
                phase: Phase::Validating,
                done: verdicts.len(),
                all: cases.len(),
            });
            let next = tokio::select! {
                next = said.next() => next,
                Ok(_) = halts.wait_for(|n| *n > 0) => return Err(Abort::interrupted()),
            };
            let Some(said) = next else { break };
            let Some((case, _)) = cases.get(verdicts.len()) else {
                break;
            };
            verdicts.push(decide(case, said, strict, tell)?);
        }
    }
    let of = |places: Vec<usize>| {
        places
            .into_iter()
            .map(|at| verdicts.get(at).copied().unwrap_or(false))
            .collect()
    };
    Ok(places.into_iter().map(of).collect())
}

/// Asks one validator. Where it says no, it is asked of what its instance runs as well, if that is
/// known.
async fn ask(case: &ValidationCase<'_>, runs_live: impl Fn() -> bool) -> ValidatorVerdict {
    let (of_candidate, by) = case.validate_case().await;
    let live = case.live();
    let reference = ValidationCase::of(case.member(), &live);
    let (of_candidate, of_reference) = match of_candidate {
        Ok(named) if named.is_empty() => (Ok(()), None),
        Ok(named) => {
            // Errors that it names in what stands there now as well are no news. Without that,
            // nothing is known of its words.
            let new = reference
                .validate_case()
                .await
                .0
                .map(|known| named.beyond(&known))
                .unwrap_or_default();
            (unless_new(case, &new, &by), None)
        }
        Err(ValidationError::Refused(why)) if runs_live() => {
            let of_reference = match reference.validate_case().await.0 {
                Err(ValidationError::Refused(why)) => Some(why),
                _ => None,
            };
            (Err(ValidationError::Refused(why)), of_reference)
        }
        Err(not_passed) => (Err(not_passed), None),
    };
    ValidatorVerdict {
        of_candidate,
        by,
        of_reference,
    }
}

/// Refuses a candidate in which its validator names new errors, though it ends well: what it does
/// not take is not in force.
fn unless_new(
    case: &ValidationCase<'_>,
    new: &Complaints,
    by: &str,
) -> Result<(), ValidationError> {
    if new.is_empty() {
        return Ok(());
    }
    let is_secret = case.candidates().iter().any(|candidate| candidate.secret);
    let text = if is_secret {
        "they are not shown, since the config is a secret".into()
    } else {
        new.text()
    };
    Err(ValidationError::Refused(format!(
        "the validator `{by}` ends well, but names errors that it does not name in the config of \
         now: {text}"
    )))
}

/// Whether a case passed; without an answer it has no validator.
fn decide(
    case: &ValidationCase<'_>,
    said: Option<ValidatorVerdict>,
    strict: bool,
    tell: &mut impl FnMut(Event),
) -> Result<bool, Abort> {
    let (
        PlannedInstance {
            instance: i, group, ..
        },
        candidates,
    ) = (case.member(), case.candidates());
    // A config that cannot be loaded would end it: no instance is signalled on a guess.
    let ends_it =
        (group.on_bad_config, group.validation) == (OnBadConfig::Dies, Validation::Wanted);
    let must = if ends_it {
        Some("a bad config ends it")
    } else {
        strict.then_some("--validate wants one for every instance")
    };
    let Some(ValidatorVerdict {
        of_candidate,
        by,
        of_reference,
    }) = said
    else {
        let refused = |why| {
            Abort::by_validation(
                Verdict::Refused,
                format!(
                    "group `{}` (pid {}) has no validator, and {why}",
                    i.group, i.pid
                ),
            )
        };
        return must.map_or(Ok(false), |why| Err(refused(why)));
    };
    // What ran was the executable of the instance only if the pid is still the instance.
    if of_candidate.is_err() && guard::is_over(i.pid, i.started, &i.exe) {
        return Err(Abort::new(
            Verdict::Refused,
            format!("pid {} ended while its config was validated", i.pid),
        ));
    }
    let why = match (of_candidate, of_reference) {
        (Ok(()), _) => {
            candidates.iter().for_each(|c| {
                tell(Event::Valid {
                    path: c.live.clone(),
                    sha256: c.sha256.clone(),
                    by: by.clone(),
                })
            });
            return Ok(true);
        }
        (Err(ValidationError::Refused(why)), None) => {
            let paths = candidates
                .iter()
                .map(|c| format!("`{}`", c.live.display()))
                .collect::<Vec<_>>()
                .join(", ");
            return Err(Abort::by_validation(
                Verdict::Invalid,
                format!("the new config is not valid: {paths}\n{why}"),
            ));
        }
        (Err(ValidationError::Refused(_)), Some(why)) => cannot_judge(&why),
        (Err(ValidationError::NotRun(why)), _) => why,
    };
    match must {
        Some(reason) => Err(Abort::by_validation(
            Verdict::Refused,
            format!("pid {} is not validated, and {reason}: {why}", i.pid),
        )),
        None => {
            tell(Event::Unvalidated { pid: i.pid, why });
            Ok(false)
        }
    }
}
