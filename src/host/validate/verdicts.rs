//! What the validators of a whole run say: distinct ones side by side, and none of them where it
//! refuses what its instance runs already.

use std::{collections::HashMap, thread};

use futures_util::{StreamExt, stream};

use crate::{
    event::{Event, Halts, Phase, Stop, Verdict},
    fleet::{OnBad, Validation},
    host::{
        parallel::at_once::at_once,
        proc::guard,
        validate::{
            complaints::Complaints,
            judge::{Candidate, Case, Key},
            run::NotPassed,
        },
    },
    step::Member,
};

/// The keys of so many cases are there at once.
const KEYS: usize = 1024;

/// Instances that are about to read the same.
pub(crate) struct Readers<'a> {
    pub(crate) members: &'a [Member],
    /// What they are about to read.
    pub(crate) candidates: Vec<Candidate>,
    /// Whether an instance is known to run what is live now, and not the candidate.
    pub(crate) runs_live: Box<dyn Fn(&Member) -> bool + 'a>,
}

/// What a validator said of a candidate, and who it was.
struct Said {
    of_candidate: Result<(), NotPassed>,
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
    halts: &mut Halts,
    tell: &mut impl FnMut(Event),
) -> Result<Vec<Vec<bool>>, Stop> {
    let (mut cases, mut known, mut places) =
        (Vec::new(), HashMap::new(), Vec::with_capacity(all.len()));
    for readers in all {
        let (mut of_step, candidates) = (
            Vec::with_capacity(readers.members.len()),
            readers.candidates.as_slice(),
        );
        for some in readers.members.chunks(KEYS) {
            let key = |member: &Member| {
                (!member.group.validate.is_empty()).then(|| Case::of(member, candidates).key())
            };
            for (member, key) in some.iter().zip(at_once(some, key)) {
                // Without a key it has no validator, which is so for its whole group.
                let key = key.map_or_else(|| Err(member.instance.group.clone()), Ok::<Key, String>);
                let has_validator = key.is_ok();
                of_step.push(*known.entry(key).or_insert_with(|| {
                    cases.push((Case::of(member, candidates), has_validator));
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
                Ok(_) = halts.wait_for(|n| *n > 0) => return Err(Stop::halted()),
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
async fn ask(case: &Case<'_>, runs_live: impl Fn() -> bool) -> Said {
    let (of_candidate, by) = case.passes().await;
    let live = case.live();
    let reference = Case::of(case.member(), &live);
    let (of_candidate, of_reference) = match of_candidate {
        Ok(named) if named.is_empty() => (Ok(()), None),
        Ok(named) => {
            // Errors that it names in what stands there now as well are no news. Without that,
            // nothing is known of its words.
            let new = reference
                .passes()
                .await
                .0
                .map(|known| named.beyond(&known))
                .unwrap_or_default();
            (unless_new(case, &new, &by), None)
        }
        Err(NotPassed::Refused(why)) if runs_live() => {
            let of_reference = match reference.passes().await.0 {
                Err(NotPassed::Refused(why)) => Some(why),
                _ => None,
            };
            (Err(NotPassed::Refused(why)), of_reference)
        }
        Err(not_passed) => (Err(not_passed), None),
    };
    Said {
        of_candidate,
        by,
        of_reference,
    }
}

/// Refuses a candidate in which its validator names new errors, though it ends well: what it does
/// not take is not in force.
fn unless_new(case: &Case<'_>, new: &Complaints, by: &str) -> Result<(), NotPassed> {
    if new.is_empty() {
        return Ok(());
    }
    let is_secret = case.candidates().iter().any(|candidate| candidate.secret);
    let text = if is_secret {
        "they are not shown, since the config is a secret".into()
    } else {
        new.text()
    };
    Err(NotPassed::Refused(format!(
        "the validator `{by}` ends well, but names errors that it does not name in the config of \
         now: {text}"
    )))
}

/// Whether a case passed; without an answer it has no validator.
fn decide(
    case: &Case<'_>,
    said: Option<Said>,
    strict: bool,
    tell: &mut impl FnMut(Event),
) -> Result<bool, Stop> {
    let (
        Member {
            instance: i, group, ..
        },
        candidates,
    ) = (case.member(), case.candidates());
    // A config that cannot be loaded would end it: no instance is signalled on a guess.
    let ends_it = (group.on_bad_config, group.validation) == (OnBad::Dies, Validation::Wanted);
    let must = if ends_it {
        Some("a bad config ends it")
    } else {
        strict.then_some("--validate wants one for every instance")
    };
    let Some(Said {
        of_candidate,
        by,
        of_reference,
    }) = said
    else {
        let refused = |why| {
            Stop::by_validation(
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
        return Err(Stop::new(
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
        (Err(NotPassed::Refused(why)), None) => {
            let paths = candidates
                .iter()
                .map(|c| format!("`{}`", c.live.display()))
                .collect::<Vec<_>>()
                .join(", ");
            return Err(Stop::by_validation(
                Verdict::Invalid,
                format!("the new config is not valid: {paths}\n{why}"),
            ));
        }
        (Err(NotPassed::Refused(_)), Some(why)) => cannot_judge(&why),
        (Err(NotPassed::NotRun(why)), _) => why,
    };
    match must {
        Some(reason) => Err(Stop::by_validation(
            Verdict::Refused,
            format!("pid {} is not validated, and {reason}: {why}", i.pid),
        )),
        None => {
            tell(Event::Unvalidated { pid: i.pid, why });
            Ok(false)
        }
    }
}
