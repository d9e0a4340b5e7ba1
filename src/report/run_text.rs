//! An earlier run in words and as JSON: what it did, for which operator, and how it ended.

use std::path::Path;

use jiff::{Timestamp, tz::TimeZone};
use serde_json::{Value, json};

use crate::{
    inventory::{Ended, HostName},
    names::{self, json_word},
    runs::{HostEnds, RunBegan, RunEnded, RunInfo, ShortIds},
    screen,
};

/// Returns a moment in the time zone of the operator, in a format of strftime(3).
#[must_use]
pub(crate) fn local_time(at: Timestamp, format: &str) -> String {
    at.to_zoned(TimeZone::system()).strftime(format).to_string()
}

/// Returns what a run did: "revert of run 0198.. of web, api on 3 hosts".
#[must_use]
pub(crate) fn action(began: &RunBegan, ids: &ShortIds) -> String {
    let of = began
        .of
        .as_ref()
        .map_or_else(String::new, |of| format!(" of run {}", ids.of_run(of)));
    let groups = match began.groups.as_slice() {
        [] => String::new(),
        groups => format!(" of {}", groups.join(", ")),
    };
    let hosts = began.over_hosts.map_or_else(String::new, |hosts| {
        format!(" on {}", screen::counted(hosts, "host"))
    });
    format!("{}{of}{groups}{hosts}", json_word(began.verb))
}

/// Returns the operator of a run: "uid 0 (alice)". On a host of a run over hosts it is the user of
/// the agent, and the operator that the coordinator claims follows.
#[must_use]
pub(crate) fn operator_name(began: &RunBegan) -> String {
    match &began.claimed {
        Some(claimed) => format!("{}, claimed {claimed}", began.operator),
        None => began.operator.to_string(),
    }
}

/// Returns the operator of a run, and the reason if there is one: ", by uid 0 (alice): urgent".
#[must_use]
pub(crate) fn operator(began: &RunBegan) -> String {
    let reason = began.reason.as_ref();
    let reason = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    format!(", by {}{reason}", operator_name(began))
}

/// Returns the end of a run: "converged (3 confirmed)".
#[must_use]
pub(crate) fn ended(end: &RunEnded, ids: &ShortIds) -> String {
    match end {
        RunEnded::Finished {
            verdict, counts, ..
        } => {
            let counts: Vec<String> = counts
                .iter()
                .map(|(state, n)| format!("{n} {state}"))
                .collect();
            let counts = if counts.is_empty() {
                String::new()
            } else {
                format!(" ({})", counts.join(", "))
            };
            format!("{verdict}{counts}").replace('_', " ")
        }
        RunEnded::SupersededBy { run, .. } => format!("superseded by run {}", ids.of_run(run)),
    }
}

/// Returns how a run ended, or that it did not.
#[must_use]
pub(crate) fn result(info: &RunInfo, ids: &ShortIds) -> String {
    match &info.end {
        _ if info.running => "it runs now".into(),
        Some(end) => ended(end, ids) + if info.open { ", open" } else { "" },
        None => info.verdict().replace('_', " "),
    }
}

/// Returns a reminder of the hosts that a closed run over hosts went without; none if it has
/// reached all of them.
#[must_use]
pub(crate) fn unreached(state: &Path, info: &RunInfo, ids: &ShortIds) -> Option<String> {
    let is_meant = info.hosts().is_some() && info.verdict() == "partial";
    let ends = is_meant.then(|| HostEnds::of(state, &info.id).ok())??;
    let hosts: Vec<&HostName> = ends.all(Ended::Unreachable).collect();
    (!hosts.is_empty()).then(|| {
        format!(
            "not reached in this run: {}; `--on @{}:unreachable` selects them",
            names::list(hosts, ", ", names::MOST),
            ids.of_run(&info.id)
        )
    })
}

/// Returns the JSON object of a run. `state_args` is ` --state DIR`, or empty.
#[must_use]
pub(crate) fn run_object(info: &RunInfo, state_args: &str) -> Value {
    json!({
        "run": info.id,
        "host": info.hosts().is_none().then_some(&info.host),
        "at": info.at,
        "verdict": info.verdict(),
        "open": info.open,
        "running": info.running,
        "began": info.began,
        "end": info.end,
        "next": info.next(state_args),
    })
}
