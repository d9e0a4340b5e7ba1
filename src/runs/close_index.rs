//! Closes the index of a run over hosts that has come to its end on each of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    format::RunEnded,
    info::RunInfo,
    journal, layout,
    state_dir::{self, Lock},
};
use crate::{
    event::{Event, Outcome, Verdict},
    inventory::HostName,
    names,
};

/// Longest wait for another run that closes runs.
const LOCK_WAIT: Duration = Duration::from_secs(5);

/// The end of a run on one host.
#[derive(Debug, Clone)]
pub(crate) enum HostEnd {
    /// As its journal has it.
    Recorded(RunEnded),
    /// The host was surveyed, and the run never began there.
    NeverBegan,
}

/// Closes the index of the run `id`, which is open and not under way, by its ends on its hosts:
/// `ends` has each of them. Returns these ends in words; none if the index stays
/// open. Without `interrupted` the wait for other runs is limited.
pub(crate) async fn close_index(
    state: &Path,
    id: &str,
    ends: &[(HostName, HostEnd)],
    interrupted: impl Future<Output = ()>,
) -> Option<String> {
    let recorded = ends.iter().filter_map(|(host, end)| match end {
        HostEnd::Recorded(end) => Some((host, end)),
        HostEnd::NeverBegan => None,
    });
    let events: Vec<(HostName, Event)> = recorded
        .map(|(host, end)| Some((host.clone(), event_of(end)?)))
        .collect::<Option<_>>()?;
    let why = text(ends);
    let last = joined(&events, (ends.len(), &why))?;
    let lock = state.join("open.lock");
    let lock = state_dir::lock(&lock, Lock::Alone, LOCK_WAIT, interrupted).await;
    let _lock = lock.ok().flatten()?;
    let run = RunInfo::of(state, id);
    if !run.open || run.running {
        return None;
    }
    let of_hosts = events.iter().map(|(host, event)| (host, event));
    let lines: Vec<_> = of_hosts.chain([(&run.host, &last)]).collect();
    journal::add_ends(state, id, &lines).ok()?;
    let _ = std::fs::remove_file(layout::mark_of(state, id));
    Some(why)
}

/// Returns the end of a host as the event of its journal; none if it is no end, or one of another
/// version.
fn event_of(end: &RunEnded) -> Option<Event> {
    match end {
        RunEnded::Finished {
            verdict,
            reason,
            counts,
            ..
        } => {
            let verdict: Verdict = word(verdict)?;
            let counts = counts.iter().map(|(outcome, n)| Some((word(outcome)?, *n)));
            let counts: BTreeMap<Outcome, usize> = counts.collect::<Option<_>>()?;
            // A host that ended mixed has it open.
            (verdict != Verdict::Mixed).then(|| Event::Finished {
                verdict,
                reason: reason.clone(),
                counts,
            })
        }
        RunEnded::SupersededBy { run, .. } => Some(Event::SupersededBy { run: run.clone() }),
    }
}

fn word<T: DeserializeOwned>(word: &str) -> Option<T> {
    serde_json::from_value(Value::String(word.into())).ok()
}

/// Returns the end of the run as a whole: the run that took its place, the one of most hosts where
/// there are several; else the worst end that a host has recorded. Where the run never began on
/// some of its `hosts`, a good end of the others is partial.
fn joined(events: &[(HostName, Event)], (hosts, why): (usize, &str)) -> Option<Event> {
    let mut later: BTreeMap<&String, usize> = BTreeMap::new();
    let mut worst: Option<Verdict> = None;
    let mut all: BTreeMap<Outcome, usize> = BTreeMap::new();
    for (_, event) in events {
        match event {
            Event::SupersededBy { run } => *later.entry(run).or_default() += 1,
            Event::Finished {
                verdict, counts, ..
            } => {
                let is_worse = worst.is_none_or(|worst| worst.exit() < verdict.exit());
                worst = if is_worse { Some(*verdict) } else { worst };
                for (outcome, n) in counts {
                    *all.entry(*outcome).or_default() += n;
                }
            }
            _ => {}
        }
    }
    if let Some((run, _)) = later.into_iter().max_by_key(|(_, hosts)| *hosts) {
        return Some(Event::SupersededBy { run: run.clone() });
    }
    let verdict = match worst? {
        Verdict::Converged | Verdict::Unproven if events.len() < hosts => Verdict::Partial,
        verdict => verdict,
    };
    Some(Event::Finished {
        verdict,
        reason: why.to_owned(),
        counts: all,
    })
}

/// Returns the ends of the hosts in words: "superseded by run 0198..: h0, h1; converged: h2".
fn text(ends: &[(HostName, HostEnd)]) -> String {
    let mut texts: BTreeMap<String, BTreeSet<&HostName>> = BTreeMap::new();
    for (host, end) in ends {
        let text = match end {
            HostEnd::NeverBegan => "never began".to_owned(),
            HostEnd::Recorded(RunEnded::Finished { verdict, .. }) => verdict.replace('_', " "),
            HostEnd::Recorded(RunEnded::SupersededBy { run, .. }) => {
                format!("superseded by run {run}")
            }
        };
        texts.entry(text).or_default().insert(host);
    }
    let texts = texts.into_iter().map(|(text, hosts)| {
        let hosts = names::list(hosts, ", ", names::MOST);
        format!("{text}: {hosts}")
    });
    names::list(texts, "; ", names::MOST)
}

#[cfg(test)]
mod tests;
