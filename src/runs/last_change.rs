//! The last run whose change is still in force, for `hello revert` without a name.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
};

use super::{
    Verb,
    format::{RunBegan, RunEnded},
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
        let chain = chain_of(state, run);
        let (Some(run), Some(first)) = (chain.first(), chain.last()) else {
            continue;
        };
        if reverted.contains(&first.id) {
            continue;
        }
        // A resume that was rolled back has restored what was there before the first run.
        if run.verdict() == "reverted" {
            if !first.open {
                reverted.insert(first.id.clone());
            }
            continue;
        }
        if let Some(of) = reverts(first) {
            if ["converged", "unproven"].contains(&run.verdict()) {
                let earlier = chain_of(state, RunInfo::of(state, of));
                reverted.extend(earlier.last().map(|first| first.id.clone()));
            }
            continue;
        }
        let hosts = over_hosts(state, Some(&id)).map(|over| over.hosts.len());
        let targets = match hosts {
            Some(_) => installed(state, &chain),
            None => plan_targets(state, &id),
        };
        let is_change = |target: &TargetReport| target.from.as_ref() != Some(&target.to);
        let may_have_an_effect =
            ["converged", "unproven", "partial", "superseded"].contains(&run.verdict());
        if may_have_an_effect && targets.iter().any(is_change) {
            return Ok(Some(LastChange {
                run: run.clone(),
                targets,
                hosts,
            }));
        }
    }
    Ok(None)
}

/// Returns the targets that runs over hosts have replaced, as far as their indexes have seen it.
fn installed(state: &Path, chain: &[RunInfo]) -> Vec<TargetReport> {
    let mut targets = BTreeMap::new();
    let oldest_first = chain.iter().rev();
    let events = oldest_first.filter_map(|run| info::events(state, &run.id).ok());
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

/// Returns `run`, and behind it the runs that it resumes, each behind the one that resumed it.
fn chain_of(state: &Path, run: RunInfo) -> Vec<RunInfo> {
    let mut chain = vec![run];
    while let Some(RunBegan {
        verb: Verb::Resume,
        of: Some(of),
        ..
    }) = chain.last().and_then(|run| run.began.as_ref())
        && chain.len() < MAX_CHAIN
    {
        let earlier = RunInfo::of(state, of);
        chain.push(earlier);
    }
    chain
}

/// Returns the run that `first`, the first of a chain, reverts; none if it installs a new config.
fn reverts(first: &RunInfo) -> Option<&String> {
    let began = first.began.as_ref();
    began
        .filter(|began| began.verb == Verb::Revert)?
        .of
        .as_ref()
}

#[cfg(test)]
mod tests;
