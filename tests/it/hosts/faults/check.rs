//! The invariants of a run over hosts, checked against what is seen from outside. Each function
//! returns one line for each violation.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::evidence::{Evidence, Journal, Server, processes};

/// The old message of every server, before any run.
pub(super) const OLD: &str = "one";
/// The new message of a run.
pub(super) const NEW: &str = "two";
/// The message of a run after the case.
pub(super) const LAST: &str = "three";

/// Outcomes of an instance that was signalled, or may have been.
const AFTER_AN_INTENT: [&str; 6] = [
    "confirmed",
    "unconfirmed",
    "timed_out",
    "rejected",
    "reverted",
    "revert_failed",
];
/// Outcomes that say that nothing was done to an instance.
const NOT_TOUCHED: [&str; 3] = ["untouched", "unchanged", "refused"];
/// Exit codes of runs that have touched nothing.
const NOTHING_TOUCHED: [i64; 8] = [1, 2, 3, 4, 5, 9, 10, 11];

fn rows(report: &Value) -> Vec<Value> {
    report["instances"].as_array().cloned().unwrap_or_default()
}

fn is_named(report: &Value, host: &str) -> bool {
    let hosts = report["hosts"].as_array().cloned().unwrap_or_default();
    let has_fault = |row: &&Value| row["host"] == host && !row["failure"].is_null();
    hosts.iter().any(|row| row["name"] == host) || rows(report).iter().any(|row| has_fault(&row))
}

/// Invariant 1: no outcome of the report is false. `before` is what was seen before the run.
pub(super) fn claims(report: &Value, before: &[Evidence], now: &[Evidence]) -> Vec<String> {
    let mut faults = Vec::new();
    for row in rows(report) {
        let (host, pid) = (row["host"].as_str(), row["pid"].as_i64());
        let find = |all: &[Evidence]| -> Option<Server> {
            let host = all.iter().find(|one| Some(one.name.as_str()) == host)?;
            let mut servers = host.servers.iter();
            servers
                .find(|server| Some(i64::from(server.pid)) == pid)
                .cloned()
        };
        let (Some(was), Some(is)) = (find(before), find(now)) else {
            continue;
        };
        let outcome = row["outcome"].as_str().unwrap_or_default();
        let wanted = match outcome {
            "confirmed" | "unchanged" => Some(NEW),
            "reverted" | "untouched" | "refused" | "rejected" => Some(OLD),
            _ => None,
        };
        if wanted.is_some() && is.message.as_deref() != wanted {
            faults.push(format!("false claim: {row}\n  but {is:?}"));
        }
        if matches!(outcome, "untouched" | "refused") && is.signals != was.signals {
            faults.push(format!(
                "false claim: {row}\n  but it was signalled: {is:?}"
            ));
        }
    }
    faults
}

/// Invariant 2: no signal without an intent, and no outcome without one. A host whose journal takes
/// nothing more is rolled back nevertheless, which is one signal to an instance.
pub(super) fn intents(now: &[Evidence], full: Option<usize>) -> Vec<String> {
    let mut faults = Vec::new();
    for (number, host) in now.iter().enumerate() {
        let intended = host.intended();
        for server in &host.servers {
            let key = (i64::from(server.pid), server.started.unwrap_or_default());
            let more = u64::from(full == Some(number));
            let known = intended.get(&key).copied().unwrap_or_default() + more;
            if server.signals.is_some_and(|signals| signals > known) {
                let name = &host.name;
                faults.push(format!("{name}: {known} intents for {server:?}"));
            }
        }
        for journal in &host.journals {
            faults.extend(unintended(journal, &host.name));
        }
    }
    faults
}

/// Returns the outcomes of a journal that no intent precedes.
fn unintended(journal: &Journal, host: &str) -> Vec<String> {
    let mut named = BTreeSet::new();
    let mut faults = Vec::new();
    for event in &journal.events {
        if event["event"] == "intent" {
            named.extend(processes(event));
        }
        let outcome = event["outcome"].as_str().unwrap_or_default();
        if event["event"] != "instance" || !AFTER_AN_INTENT.contains(&outcome) {
            continue;
        }
        let process = (event["pid"].as_i64(), event["started"].as_u64());
        let (Some(pid), Some(started)) = process else {
            continue;
        };
        if !named.contains(&(pid, started)) {
            let run = &journal.run;
            faults.push(format!("{host}: no intent in {run} before {event}"));
        }
    }
    faults
}

/// Invariant 3: every host is on one config, or it is named: by the report, by an open run of the
/// coordinator, or by an open run of its own.
pub(super) fn one_config(report: &Value, open_here: &[String], now: &[Evidence]) -> Vec<String> {
    now.iter()
        .filter(|host| !host.is_on(OLD) && !host.is_on(NEW))
        .filter(|host| {
            !is_named(report, &host.name) && open_here.is_empty() && host.open.is_empty()
        })
        .map(|host| format!("between two configs, and not named: {host:?}"))
        .collect()
}

/// Invariant 4: no agent, lock, socket or staged file is left. The socket and the staged files of a
/// killed agent stay until the next one of that host.
pub(super) fn nothing_left(now: &[Evidence], is_agent_killed: bool) -> Vec<String> {
    let held = now.iter().filter(|host| !host.held.is_empty());
    let mut faults: Vec<String> = held
        .map(|host| format!("{} still has {:?}", host.name, host.held))
        .collect();
    let staged = now.iter().filter(|host| !host.files.is_empty());
    if !is_agent_killed {
        faults.extend(staged.map(|host| format!("{} still has {:?}", host.name, host.files)));
    }
    faults
}

/// Invariant 5: the exit code is the one that the outcomes and the lost hosts make.
pub(super) fn exit_code(report: &Value, code: i64) -> Vec<String> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows(report) {
        let outcome = row["outcome"].as_str().unwrap_or_default().to_owned();
        *counts.entry(outcome).or_default() += 1;
    }
    let hosts = report["hosts"].as_array().cloned().unwrap_or_default();
    let is_lost = hosts.iter().any(|row| row["state"] == "lost");
    let is_away = !hosts.is_empty();
    let mut faults = Vec::new();
    if report["exit"].as_i64() != Some(code) {
        faults.push(format!(
            "it exits with {code}, and reports {}",
            report["exit"]
        ));
    }
    let has = |names: &[&str]| names.iter().any(|name| counts.contains_key(*name));
    let is_unproven = has(&[
        "timed_out",
        "revert_failed",
        "died",
        "rejected",
        "unconfirmed",
    ]);
    let is_touched = counts
        .keys()
        .any(|outcome| !NOT_TOUCHED.contains(&outcome.as_str()));
    let fits = match code {
        0 => !is_unproven && !has(&["reverted", "untouched", "refused"]),
        6 => !is_unproven && !has(&["confirmed"]) && has(&["reverted"]),
        7 => is_unproven || is_lost || has(&["confirmed"]) && has(&["reverted"]),
        8 => !has(&["timed_out", "revert_failed"]) && (has(&["untouched", "refused"]) || is_away),
        code if NOTHING_TOUCHED.contains(&code) => !is_touched,
        _ => false,
    };
    if !fits {
        faults.push(format!(
            "exit {code} does not follow from {counts:?} and {hosts:?}"
        ));
    }
    faults
}

/// Invariant 6: every run has ended, and every host is on this config.
pub(super) fn ended(message: &str, open_here: &[String], now: &[Evidence]) -> Vec<String> {
    let mut faults = Vec::new();
    if !open_here.is_empty() {
        faults.push(format!("the coordinator has {open_here:?} open"));
    }
    for host in now {
        if !host.open.is_empty() {
            faults.push(format!("{} has {:?} open", host.name, host.open));
        }
        if !host.is_on(message) {
            faults.push(format!("not on {message:?} after the end: {host:?}"));
        }
    }
    faults
}

/// Checks that each run whose timer was armed on a host has ended there, or was rolled back by the
/// host: as its journal says, unless its agent was killed.
pub(super) fn timers(now: &[Evidence], is_agent_killed: bool) -> Vec<String> {
    let mut faults = Vec::new();
    for host in now {
        for journal in host.journals.iter().filter(|journal| journal.is_armed()) {
            if journal.has("finished") {
                continue;
            }
            let run = &journal.run;
            let ended = journal.named("session_ended").next();
            let is_by_timer = ended.is_some_and(|event| event["by"] == "timer");
            if !is_by_timer && !is_agent_killed {
                faults.push(format!(
                    "{}: no timer has ended {run}: {ended:?}",
                    host.name
                ));
            }
            if !journal.has("superseded_by") || host.open.contains(run) || !host.is_on(OLD) {
                faults.push(format!("{}: {run} is not rolled back: {host:?}", host.name));
            }
        }
    }
    faults
}

/// Checks that each server has acted on this number of signals.
pub(super) fn signals(wanted: &[u64], now: &[Evidence]) -> Vec<String> {
    now.iter()
        .zip(wanted)
        .flat_map(|(host, wanted)| {
            host.servers
                .iter()
                .map(move |server| (host, wanted, server))
        })
        .filter(|(_, wanted, server)| server.signals != Some(**wanted))
        .map(|(host, wanted, server)| {
            format!("{}: {wanted} signals were due: {server:?}", host.name)
        })
        .collect()
}

mod tests;
