//! One scan of all processes, and the processes of each group in it.

mod candidates;
mod entries;
mod outcome;
mod query;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

pub(crate) use self::entries::Scan;
pub(super) use self::query::pid_named_by;
use self::{
    candidates::{Candidates, Matched},
    outcome::MatchOutcome,
};
use crate::{
    fleet::Group,
    host::discover::{
        config::place_of,
        found::{Finds, Found},
        inspect::InspectError,
        leaders::LeaderSource,
        pidfile::PidFile,
        reason::MatchReason,
        unit::main_pid,
    },
};

/// How many processes of the same program, but with other arguments, are named if a group has no
/// match.
const MAX_OTHERS: usize = 10;

impl Scan {
    /// Finds the processes of each of `groups`. A process that several groups match belongs to the
    /// first of them.
    pub(crate) async fn find_all(&self, groups: impl Iterator<Item = &Group>) -> Vec<Finds> {
        let mut all = Vec::new();
        let mut known = BTreeSet::new();
        for group in groups {
            let mut finds = self.find(group).await;
            finds.refused.retain(|(found, _)| known.insert(found.pid));
            finds.found.retain(|found| known.insert(found.pid));
            all.push(finds);
        }
        all
    }

    /// Finds the processes of `group`: those of its list, or else all matches.
    pub(crate) async fn find(&self, group: &Group) -> Finds {
        let mut finds = Finds::default();
        let query = match self.query(group) {
            Ok(query) => query,
            Err((pid, why)) => {
                finds.missing.push((pid, why.into()));
                return finds;
            }
        };
        let Candidates {
            matched,
            unread,
            may_listen,
            others,
        } = self.settled_candidates(&query).await;
        finds.blind = unread.values().find_map(InspectError::own);
        let source = LeaderSource {
            main: main_process(&matched, group).await,
            named: named_by_pid_files(&matched, group),
            pattern: group.leader.is_some(),
        };
        let outcomes = query.outcomes(matched, &source);
        if !group.instances.is_empty() {
            add_listed(&mut finds, group, outcomes, &unread);
            return finds;
        }
        if let (Some(Some(pid)), Some(path)) = (query.matching.pid, &group.matching.pid_file)
            && !outcomes.contains_key(&pid)
        {
            let why = no_match(group, &unread, pid);
            let named = MatchReason::Named(path.clone(), Box::new(why));
            finds.missing.push((pid, named.into()));
        }
        for (pid, outcome) in outcomes {
            match outcome {
                MatchOutcome::Found(found) => finds.found.push(found),
                MatchOutcome::Refused(found, why) => finds.refused.push((found, why)),
                MatchOutcome::Worker(_, leader) => finds.workers.push((pid, leader)),
                MatchOutcome::Skipped(why) => finds.skipped.push((pid, why)),
            }
        }
        let failed = unread
            .into_iter()
            .filter(|(_, e)| matches!(e, InspectError::Failed(_)));
        finds
            .skipped
            .extend(failed.map(|(pid, e)| (pid, MatchReason::from(e).into())));
        if finds.found.is_empty() && finds.refused.is_empty() {
            let others = others.into_iter().take(MAX_OTHERS);
            finds
                .skipped
                .extend(others.map(|(pid, lacking)| (pid, MatchReason::Lacking(lacking).into())));
            if may_listen {
                let why = MatchReason::MayListen(group.name.clone());
                finds.missing.push((0, why.into()));
            }
        }
        finds
    }
}

/// Sorts the outcomes of a group with a list of instances.
fn add_listed(
    finds: &mut Finds,
    group: &Group,
    mut outcomes: BTreeMap<i32, MatchOutcome>,
    unread: &BTreeMap<i32, InspectError>,
) {
    for listed in &group.instances {
        match outcomes.remove(&listed.pid) {
            Some(MatchOutcome::Found(found)) => finds.found.push(Found {
                endpoint: listed.endpoint.clone(),
                ..found
            }),
            Some(MatchOutcome::Refused(found, why)) => finds.refused.push((found, why)),
            Some(MatchOutcome::Skipped(why)) => finds.missing.push((listed.pid, why)),
            Some(MatchOutcome::Worker(found, leader)) => {
                let why = MatchReason::ListedWorker(leader);
                finds.refused.push((found, why.into()));
            }
            None => {
                let why = no_match(group, unread, listed.pid);
                finds.missing.push((listed.pid, why.into()));
            }
        }
    }
}

/// Why a pid that was asked for is no match.
fn no_match(group: &Group, unread: &BTreeMap<i32, InspectError>, pid: i32) -> MatchReason {
    unread.get(&pid).map_or_else(
        || MatchReason::NotInGroup(group.name.clone()),
        |e| MatchReason::Inspect(e.clone()),
    )
}

/// The main process of the group's unit, if it has one.
async fn main_process(matched: &BTreeMap<i32, Matched>, group: &Group) -> Option<i32> {
    match &group.matching.unit {
        Some(unit) if !matched.is_empty() => main_pid(unit).await,
        _ => None,
    }
}

/// The matches that the group's pid files name, as the command line of each match locates the file.
/// A file that other users can write is not trusted.
fn named_by_pid_files(matched: &BTreeMap<i32, Matched>, group: &Group) -> BTreeSet<i32> {
    let mut read: BTreeMap<PathBuf, Option<PidFile>> = BTreeMap::new();
    let mut named = BTreeSet::new();
    for process in matched.values().map(|matched| &matched.process) {
        let paths = group
            .pid_file
            .iter()
            .filter_map(|base| place_of(process.pid, &process.line.args, base).ok()?);
        for path in paths {
            let Some(file) = read
                .entry(path)
                .or_insert_with_key(|path| PidFile::read(path).ok())
            else {
                continue;
            };
            if matched
                .get(&file.pid)
                .is_some_and(|matched| file.is_trusted(matched.process.uid).is_ok())
            {
                named.insert(file.pid);
            }
            break;
        }
    }
    named
}

#[cfg(test)]
mod tests;
