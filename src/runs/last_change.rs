//! The last run whose change is still in force, for `hello revert` without a name.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

use super::{
    Verb,
    format::RunEnded,
    info::{self, RunInfo, run_ids},
    interrupted::plan_targets,
    over_hosts::over_hosts,
};
use crate::event::{At, Event, TargetKind, TargetReport};

/// Most runs of a chain of runs that continue each other; earlier ones are not read.
const MAX_CHAIN: usize = 100;

/// A run that changed a config.
#[derive(Debug)]
pub(crate) struct LastChange {
    /// Its beginning and its end.
    pub run: RunInfo,
    /// Its targets, one of which at least it changed.
    pub targets: Vec<TargetReport>,
    /// How many hosts it is over; none of a run on this machine. Only these know the old contents.
    pub hosts: Option<usize>,
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
        // A resume that was rolled back has restored what was there before the first run.
        if run.verdict() == "reverted" {
            if !RunInfo::of(state, &origin.id).open {
                reverted.insert(origin.id);
            }
            continue;
        }
        if let Some(of) = origin.reverts {
            if ["converged", "unproven"].contains(&run.verdict()) {
                reverted.insert(origin_of(state, &RunInfo::of(state, &of)).id);
            }
            continue;
        }
        let hosts = over_hosts(state, Some(&id)).map(|over| over.hosts.len());
        let targets = match hosts {
            Some(_) => installed(state, &chain_of(state, &run)),
            None => plan_targets(state, &id),
        };
        let is_change = |target: &TargetReport| target.from.as_ref() != Some(&target.to);
        let may_have_an_effect =
            ["converged", "unproven", "partial", "superseded"].contains(&run.verdict());
        if may_have_an_effect && targets.iter().any(is_change) {
            return Ok(Some(LastChange {
                run,
                targets,
                hosts,
            }));
        }
    }
    Ok(None)
}

/// Returns the targets that runs over hosts have replaced, as far as their indexes have seen it.
fn installed(state: &Path, ids: &[String]) -> Vec<TargetReport> {
    let mut targets = BTreeMap::new();
    let events = ids.iter().filter_map(|id| info::events(state, id).ok());
    for line in events.flatten() {
        let Ok(At { event, host }) = serde_json::from_value::<At<Event>>(line) else {
            continue;
        };
        let Event::Installed { path, sha256, .. } = event else {
            continue;
        };
        let target = TargetReport {
            key: None,
            host: host.clone(),
            path: path.clone(),
            kind: TargetKind::File,
            from: None,
            to: sha256,
            disk: None,
            secret: None,
            source: None,
            entries: Vec::new(),
            diff: None,
        };
        targets.insert((host, path), target);
    }
    targets.into_values().collect()
}

/// Returns true if a later run resumed the run, and came to an end in its place.
fn is_continued(state: &Path, run: &RunInfo) -> bool {
    let Some(RunEnded::SupersededBy { run: later, .. }) = &run.end else {
        return false;
    };
    let began = RunInfo::of(state, later).began;
    began.is_some_and(|began| began.verb == Verb::Resume && began.of.as_ref() == Some(&run.id))
}

/// Returns the runs that `run` resumes, the first before all others, and its own id.
fn chain_of(state: &Path, run: &RunInfo) -> Vec<String> {
    let mut ids = vec![run.id.clone()];
    let mut began = run.began.clone();
    while let Some(of) = began
        .filter(|began| began.verb == Verb::Resume)
        .and_then(|b| b.of)
        && ids.len() < MAX_CHAIN
    {
        began = RunInfo::of(state, &of).began;
        ids.push(of);
    }
    ids.reverse();
    ids
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
