//! Open indexes of runs that have come to their end on each of their hosts: another coordinator may
//! have brought them there, or this one was killed before it recorded the end.

use std::path::Path;

use serde::Deserialize;

use super::query::gather_answers;
use crate::{
    fleet::Hosts,
    inventory::{HostEntry, HostName},
    protocol::{NEVER_BEGAN, Request, RunQuery},
    runs::{self, HostEnd, RunEnded},
    screen,
};

/// An index that was closed.
#[derive(Debug)]
pub(crate) struct ClosedIndex {
    /// The id of its run.
    pub(crate) run: String,
    /// The ends that its hosts have recorded, in words.
    pub(crate) why: String,
}

impl ClosedIndex {
    /// Returns the line about it.
    pub(crate) fn line(&self) -> String {
        let Self { run, why } = self;
        screen::worded("Closed", &format!("run {run}, which was left open: {why}"))
    }
}

/// The part of a row of `hello history` that tells whether the run is over.
#[derive(Debug, Deserialize)]
struct Row {
    run: String,
    open: bool,
    running: bool,
    end: Option<RunEnded>,
}

/// Closes each open index under `state` whose run is `meant` and over on all of its hosts. A run
/// one host of which is not among `entries` is not asked for. A host that knows nothing of the run
/// leaves it open, unless it has surveyed the run and never begun it, and the run continues no
/// other: what became of its part cannot be told.
pub(crate) async fn close_indexes(
    state: &Path,
    hosts: &Hosts,
    entries: &[HostEntry],
    meant: impl Fn(&str) -> bool,
) -> Vec<ClosedIndex> {
    let mut closed = Vec::new();
    for info in runs::open_runs(state) {
        let over = runs::over_hosts(state, Some(&info.id)).filter(|_| meant(&info.id));
        let Some(over) = over else { continue };
        let Some(of_run) = all_of(&over.hosts, entries) else {
            continue;
        };
        let Some(ends) = ends_of(hosts, &of_run, (&info.id, over.is_first)).await else {
            continue;
        };
        let why = runs::close_index(state, &info.id, &ends, std::future::pending()).await;
        closed.extend(why.map(|why| ClosedIndex { run: info.id, why }));
    }
    closed
}

/// Returns the entries of these hosts; none if one has no entry, or if there is no host.
fn all_of(hosts: &[HostName], entries: &[HostEntry]) -> Option<Vec<HostEntry>> {
    let entry = |host: &HostName| entries.iter().find(|entry| entry.name == *host).cloned();
    let found: Option<Vec<HostEntry>> = hosts.iter().map(entry).collect();
    found.filter(|found| !found.is_empty())
}

/// Asks each host how a run ended there; none if one has not seen its end.
async fn ends_of(
    hosts: &Hosts,
    entries: &[HostEntry],
    (run, is_first): (&str, bool),
) -> Option<Vec<(HostName, HostEnd)>> {
    let query = RunQuery {
        last: 1,
        run: Some(run.to_owned()),
        ..RunQuery::default()
    };
    let gathered = gather_answers(hosts, entries, &Request::History(query), &[]).await;
    let ended = gathered.answers.into_iter().map(|(host, answered)| {
        let Some(row) = answered.rows.into_iter().next() else {
            let never_began = answered.result.get(NEVER_BEGAN)?.as_bool()?;
            return (never_began && is_first).then_some((host, HostEnd::NeverBegan));
        };
        let row: Row = serde_json::from_value(row).ok()?;
        let is_over = row.run == run && !row.open && !row.running;
        Some((host, HostEnd::Recorded(row.end.filter(|_| is_over)?)))
    });
    let ended: Option<Vec<_>> = ended.collect();
    ended.filter(|ended| ended.len() == entries.len())
}
