//! The earlier run that a run over hosts continues, as the journal of this host knows it.

use std::path::Path;

use crate::{
    protocol::{ContinuedRun, PartOf, Refused, RefusedKind},
    runs::{self, RunEnded, RunInfo, Verb},
};

/// The most runs that are followed, each of which resumes the one before.
const MOST_RESUMES: usize = 100;

/// The outcomes of instances that are on the config of their run.
const GOALS: [&str; 3] = ["confirmed", "unconfirmed", "unchanged"];

/// An earlier run on this host.
#[derive(Debug)]
pub(super) struct Earlier {
    /// Its id, or that of the run that has resumed it to its goal.
    pub(super) run: String,
    /// True if it has reached its goal here.
    pub(super) is_over: bool,
    /// The run over hosts that it is a part of.
    pub(super) part_of: Option<PartOf>,
    /// The seconds of its commit-confirmed timer, if it is armed.
    pub(super) armed_s: Option<u64>,
}

impl Earlier {
    /// Finds the run that a coordinator continues.
    ///
    /// # Errors
    /// Fails if this host knows nothing of it, or if a resume comes after another end.
    pub(super) fn find(state: &Path, of: &ContinuedRun) -> Result<Self, Refused> {
        let refuse = |kind, text| Err(Refused { kind, text });
        let Ok(id) = runs::find(state, &of.run) else {
            let why = format!("nothing is known of run {}", of.run);
            return refuse(RefusedKind::NoRun, why);
        };
        let armed_s = || runs::armed(state, &id).map(|armed| armed.seconds);
        // A new agent has gone on with the run under another id, or an operator has resumed it.
        let latest = latest(state, &id);
        let info = RunInfo::of(state, latest.as_deref().unwrap_or(&id));
        let began = info.began.as_ref();
        let part_of = began.and_then(|began| began.part_of.clone());
        if of.revert || info.open || info.running {
            return Ok(Self {
                armed_s: runs::armed(state, &info.id)
                    .map(|armed| armed.seconds)
                    .or_else(armed_s),
                run: info.id,
                is_over: false,
                part_of,
            });
        }
        let end = info.verdict().to_owned();
        let later = superseded_by(state, &info);
        match at_goal(state, info) {
            Some(run) => Ok(Self {
                run,
                is_over: true,
                part_of,
                armed_s: None,
            }),
            None => {
                let why = format!("run {} came to another end: {end}{later}", of.run);
                refuse(RefusedKind::OtherEnd, why)
            }
        }
    }
}

/// Returns which run has taken the place of a run, and why; empty if none has.
fn superseded_by(state: &Path, info: &RunInfo) -> String {
    let Some(RunEnded::SupersededBy { run, .. }) = &info.end else {
        return String::new();
    };
    let reason = RunInfo::of(state, run).began.and_then(|began| began.reason);
    let reason = reason.map_or_else(String::new, |reason| format!(", since {reason}"));
    format!(" by run {run}{reason}")
}

/// Returns the last open run that resumes the run `id`.
fn latest(state: &Path, id: &str) -> Option<String> {
    let open = runs::open_runs(state).into_iter();
    let later = open.filter(|run| run.id != id && resumes(state, run, id));
    later.last().map(|run| run.id)
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

/// Returns the run that has brought every instance to the config of an ended run: itself, or a
/// later one that resumed it. None if there is no such run.
fn at_goal(state: &Path, mut info: RunInfo) -> Option<String> {
    for _ in 0..MOST_RESUMES {
        match info.end {
            Some(RunEnded::Finished { counts, .. }) => {
                let is_goal = |(outcome, count): (&String, &usize)| {
                    *count == 0 || GOALS.contains(&outcome.as_str())
                };
                return counts.iter().all(is_goal).then_some(info.id);
            }
            Some(RunEnded::SupersededBy { run, .. }) => {
                let later = RunInfo::of(state, &run);
                if later.open || !resumes(state, &later, &info.id) {
                    return None;
                }
                info = later;
            }
            None => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests;
