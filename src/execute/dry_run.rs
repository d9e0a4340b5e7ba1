//! Shows what a run would do, without doing it.

use std::time::Duration;

use super::summarize::run_report;
use crate::{
    event::{EntryChange, EntryReport, TargetReport, Verdict},
    host::Host,
    plan::{Plan, Wave},
    report::{RunReport, WaveReport},
    step::TargetChange,
    tree::{Difference, Node, shown},
};

/// Longest time to look for the smallest difference of two texts; after that a coarser one is
/// shown.
const DIFF_LIMIT: Duration = Duration::from_secs(2);

/// Returns what would be done, with the difference of every config that is not secret. With `now`
/// there is neither bake nor gate.
pub(super) fn report(plan: &Plan, host: &Host, now: bool, reason: String) -> RunReport {
    let mut report = run_report(Verdict::Converged, reason, plan, host);
    for (target, change) in report.targets.iter_mut().zip(plan.targets()) {
        show_difference(target, change);
    }
    let waves = plan.waves.iter().map(|wave| wave_report(wave, now));
    RunReport {
        waves: waves.collect(),
        dry_run: true,
        ..report
    }
}

fn show_difference(target: &mut TargetReport, change: &TargetChange) {
    let Some(from) = &change.from else { return };
    let diff = match (&from.tree, &change.to.tree) {
        (Some(old), Some(new)) => {
            let differences = old.differences(new);
            target.entries = differences.iter().map(entry).collect();
            let text: String = differences
                .iter()
                .filter_map(|d| unified(bytes(d.old)?, bytes(d.new)?, &shown(&d.path)))
                .collect();
            Some(text).filter(|text| !text.is_empty())
        }
        _ => unified(&from.bytes, &change.to.bytes, ""),
    };
    target.diff = diff.filter(|_| !change.secret);
}

fn wave_report(wave: &Wave, now: bool) -> WaveReport {
    let (bake, gates) = if now {
        (Duration::ZERO, Vec::new())
    } else {
        (wave.bake, wave.gates.clone())
    };
    WaveReport {
        wave: wave.number,
        instances: wave.instances(),
        bake_seconds: bake.as_secs_f64(),
        gates,
    }
}

fn entry(difference: &Difference<'_>) -> EntryReport {
    let change = match (difference.old, difference.new) {
        (None, _) => EntryChange::Added,
        (Some(_), None) => EntryChange::Removed,
        (Some(_), Some(_)) => EntryChange::Changed,
    };
    let is_directory = matches!(difference.new.or(difference.old), Some(Node::Tree(_)));
    let end = if is_directory { "/" } else { "" };
    EntryReport {
        path: shown(&difference.path) + end,
        change,
    }
}

/// Returns the bytes of a file, and no bytes of an absent entry; none for a link or a directory.
fn bytes(node: Option<&Node>) -> Option<&[u8]> {
    match node {
        None => Some(b""),
        Some(Node::File(_, bytes)) => Some(bytes),
        Some(Node::Link(_) | Node::Tree(_)) => None,
    }
}

/// Returns the changed lines of two texts; none where one is not UTF-8. `path` is their path below
/// a directory.
fn unified(old: &[u8], new: &[u8], path: &str) -> Option<String> {
    let old = std::str::from_utf8(old).ok()?;
    let new = std::str::from_utf8(new).ok()?;
    let name = |which: &str| {
        if path.is_empty() {
            which.to_owned()
        } else {
            format!("{which}/{path}")
        }
    };
    let diff = similar::TextDiff::configure()
        .timeout(DIFF_LIMIT)
        .diff_lines(old, new);
    Some(
        diff.unified_diff()
            .header(&name("now"), &name("new"))
            .to_string(),
    )
}
