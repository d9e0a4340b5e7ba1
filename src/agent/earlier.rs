//! The earlier run that a resume or a revert continues on this host.

use std::path::Path;

use crate::{
    protocol::{ContinuedRun, Refused, RefusedKind},
    runs::{self, RunEnded, RunInfo, Verb},
    session::SessionOptions,
};

/// The most runs that are followed, each of which resumes the one before.
const MOST_RESUMES: usize = 100;

/// The outcomes of instances that are on the config of their run.
const GOALS: [&str; 3] = ["confirmed", "unconfirmed", "unchanged"];

/// Checks that an earlier run can be continued here.
///
/// # Errors
/// Fails if this host knows nothing of the run, or if there is nothing to resume.
pub(super) fn check_known(options: &SessionOptions, of: &ContinuedRun) -> Result<(), Refused> {
    let refuse = |kind, text| Err(Refused { kind, text });
    let unknown = if of.revert {
        // There is nothing to restore.
        RefusedKind::Done
    } else {
        RefusedKind::NoRun
    };
    let Ok(id) = runs::find(&options.state, &of.run) else {
        return refuse(unknown, format!("nothing is known of run {}", of.run));
    };
    let info = RunInfo::of(&options.state, &id);
    if of.revert || info.open || info.running {
        return Ok(());
    }
    let end = format!("run {} came to its end: {}", of.run, info.verdict());
    if has_reached_goal(&options.state, info) {
        return refuse(RefusedKind::Done, end);
    }
    let next = format!("{end}; revert it everywhere, or leave this host out with --except");
    refuse(RefusedKind::OtherEnd, next)
}

/// Tells whether a run resumes the run `id`, or a run that resumes it.
fn resumes(state: &Path, later: &RunInfo, id: &str) -> bool {
    let mut began = later.began.clone();
    for _ in 0..MOST_RESUMES {
        let of = began
            .filter(|began| began.verb == Verb::Resume)
            .and_then(|began| began.of);
        match of {
            Some(of) if of == id => return true,
            Some(of) => began = RunInfo::of(state, &of).began,
            None => return false,
        }
    }
    false
}

/// Tells whether every instance of an ended run is on the config that the run installs, also where
/// a later run resumed it.
fn has_reached_goal(state: &Path, mut info: RunInfo) -> bool {
    for _ in 0..MOST_RESUMES {
        match info.end {
            Some(RunEnded::Finished { counts, .. }) => {
                return counts
                    .iter()
                    .all(|(outcome, count)| *count == 0 || GOALS.contains(&outcome.as_str()));
            }
            Some(RunEnded::SupersededBy { run, .. }) => {
                let later = RunInfo::of(state, &run);
                if later.open || !resumes(state, &later, &info.id) {
                    return false;
                }
                info = later;
            }
            None => return false,
        }
    }
    false
}
