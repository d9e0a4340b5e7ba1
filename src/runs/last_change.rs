//! The last run whose change is still in force, for `hello revert` without a name.

use std::{collections::BTreeSet, io, path::Path};

use super::{
    Verb,
    format::RunEnded,
    info::{RunInfo, run_ids},
    interrupted::plan_targets,
};
use crate::event::TargetReport;

/// Most runs of a chain of runs that continue each other; earlier ones are not read.
const MAX_CHAIN: usize = 100;

/// A run that changed a config.
#[derive(Debug)]
pub(crate) struct LastChange {
    /// Its beginning and its end.
    pub run: RunInfo,
    /// Its targets, one of which at least it changed.
    pub targets: Vec<TargetReport>,
}

/// The first run of a chain of runs that finish each other.
struct Origin {
    id: String,
    /// The run that the chain reverts; none if it installs a new config.
    reverts: Option<String>,
}

/// Returns the newest run that changed a config, and that no later run reverted; none if there is
/// none.
///
/// A revert itself is no such run: with each call the answer is one run further back. A run that
/// a later one resumed counts as that later run.
///
/// # Errors
/// Fails if the state directory cannot be read.
pub(crate) fn last_change(state: &Path) -> io::Result<Option<LastChange>> {
    let mut reverted = BTreeSet::new();
    for id in run_ids(state)?.into_iter().rev() {
        let run = RunInfo::of(state, &id);
        if run.began.is_none() || is_continued(state, &run) {
            continue;
        }
        let origin = origin_of(state, &run);
        if reverted.contains(&origin.id) {
            continue;
        }
        if let Some(of) = origin.reverts {
            if ["converged", "unproven"].contains(&run.verdict()) {
                reverted.insert(origin_of(state, &RunInfo::of(state, &of)).id);
            }
            continue;
        }
        let targets = plan_targets(state, &id);
        let is_change = |target: &TargetReport| target.from.as_ref() != Some(&target.to);
        let may_have_an_effect =
            ["converged", "unproven", "partial", "superseded"].contains(&run.verdict());
        if may_have_an_effect && targets.iter().any(is_change) {
            return Ok(Some(LastChange { run, targets }));
        }
    }
    Ok(None)
}

/// Returns true if a later run resumed the run, and came to an end in its place.
fn is_continued(state: &Path, run: &RunInfo) -> bool {
    let Some(RunEnded::SupersededBy { run: later, .. }) = &run.end else {
        return false;
    };
    let began = RunInfo::of(state, later).began;
    began.is_some_and(|began| began.verb == Verb::Resume && began.of.as_ref() == Some(&run.id))
}

/// Returns the first run of the chain that ends with `run`.
fn origin_of(state: &Path, run: &RunInfo) -> Origin {
    let mut origin = run.clone();
    for _ in 0..MAX_CHAIN {
        let of = match &origin.began {
            Some(began) if began.verb == Verb::Resume => began.of.clone(),
            _ => None,
        };
        let Some(of) = of else { break };
        origin = RunInfo::of(state, &of);
    }
    let began = origin.began.filter(|began| began.verb == Verb::Revert);
    Origin {
        id: origin.id,
        reverts: began.and_then(|began| began.of),
    }
}

#[cfg(test)]
mod tests;
