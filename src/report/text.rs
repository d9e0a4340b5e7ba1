//! Words that several reports share.

use std::{collections::BTreeSet, time::Duration};

use serde::Serialize;

use super::Summary;
use crate::{
    event::{Instance, Outcome, Proof, has_hosts, process},
    inventory::HostName,
    names::json_word,
    screen,
};

/// Above this number of instances, successes are counted and failures are grouped.
pub(super) const LISTED: usize = 20;

pub(super) fn instances(n: usize) -> String {
    screen::counted(n, "instance")
}

/// Returns an outcome or a verdict as people read it.
pub(super) fn name(value: impl Serialize) -> String {
    json_word(value).replace('_', " ")
}

/// Names the proof, where it is weaker than the instance's own digest, and the draining workers.
pub(super) fn proof_text(proof: Option<Proof>, draining: &[i32]) -> String {
    let by = match proof {
        None | Some(Proof::Exact | Proof::None) => String::new(),
        Some(proof) => format!(" by {}", name(proof)),
    };
    if draining.is_empty() {
        return by;
    }
    let pids: Vec<String> = draining.iter().map(|pid| format!("pid {pid}")).collect();
    format!("{by}; draining: {}", pids.join(", "))
}

/// Says why an instance that lives, and of which no fault was seen, is not proven.
pub(super) fn unconfirmed_text(failure: Option<&str>) -> String {
    let why = failure.unwrap_or("nothing that can be seen of it proves it");
    format!(": it lives, and its config is not proven: {why}")
}

/// Names all waves from the first.
pub(super) fn waves_text(wave: usize) -> String {
    if wave == 1 {
        "1".into()
    } else {
        format!("1 to {wave}")
    }
}

pub(super) fn seconds(elapsed: Duration) -> String {
    format!("{:8.3}s", elapsed.as_secs_f64())
}

/// Returns a text for each refused instance, with the reason.
pub(super) fn refused_text(instances: &[Instance]) -> Vec<String> {
    let refused = instances.iter().filter(|i| i.outcome == Outcome::Refused);
    let text = |instance: &Instance| {
        let why = instance.failure.as_ref().map_or("", |f| &f.text);
        let process = process(&instance.host, instance.pid);
        format!("{} {process} {why}", instance.group)
    };
    refused.map(text).collect()
}

/// Says how many instances are rolled back alone, and why.
pub(super) fn rolled_back_text(pids: &[i32], why: &str) -> String {
    match pids.len() {
        0 => format!("only files, since no instance was signalled: {why}"),
        count => format!("{}: {why}", instances(count)),
    }
}

/// Returns ` on 2 hosts`; empty where all instances are of this machine.
pub(super) fn on_hosts(instances: &[Instance]) -> String {
    if !has_hosts(instances) {
        return String::new();
    }
    let hosts: BTreeSet<&HostName> = instances.iter().map(|i| &i.host).collect();
    format!(" on {}", screen::counted(hosts.len(), "host"))
}

/// Returns the end of a run in one line: its verdict, and how many instances ended how.
pub(super) fn end_text(summary: &Summary) -> String {
    let counts: Vec<String> = summary
        .counts
        .iter()
        .map(|(outcome, n)| format!("{n} {}", name(outcome)))
        .collect();
    let counts = if counts.is_empty() {
        String::new()
    } else {
        format!(" ({})", counts.join(", "))
    };
    let verdict = if summary.is_preview {
        "dry run".into()
    } else {
        name(summary.verdict)
    };
    // A run that ended before it touched anything may have no instance to count.
    match summary.instances.len() {
        0 => format!("{verdict}{counts}"),
        n if summary.refusal.is_some() => {
            format!(
                "{verdict}: {}{}",
                instances(n),
                on_hosts(&summary.instances)
            )
        }
        n => format!(
            "{}{}: {verdict}{counts}",
            instances(n),
            on_hosts(&summary.instances)
        ),
    }
}
