//! What a run would do, shown without doing it.

use std::time::Duration;

use super::summarize::summary;
use crate::{
    event::{EntryChange, EntryReport, Verdict},
    host::Host,
    plan::{Plan, Wave},
    report::{Summary, WaveReport},
    tree::{Difference, Node, shown},
};

/// A difference that is not found within this is shown less finely.
const DIFF_LIMIT: Duration = Duration::from_secs(2);

/// What would be done, with the difference of every config that is no secret; with `now` there is
/// neither bake nor gate.
pub(super) fn dry_run_summary(plan: &Plan, host: &Host, now: bool) -> Summary {
    let mut summary = summary(
        String::new(),
        Verdict::Converged,
        "dry run: nothing was touched".into(),
        plan,
        host,
    );
    for (report, shift) in summary.targets.iter_mut().zip(plan.targets()) {
        let Some(from) = &shift.from else { continue };
        let diff = match (&from.tree, &shift.to.tree) {
            (Some(old), Some(new)) => {
                let all = old.differences(new);
                report.entries = all.iter().map(entry).collect();
                Some(
                    all.iter()
                        .filter_map(|d| unified(bytes(d.old)?, bytes(d.new)?, &shown(&d.path)))
                        .collect(),
                )
                .filter(|text: &String| !text.is_empty())
            }
            _ => unified(&from.bytes, &shift.to.bytes, ""),
        };
        report.diff = diff.filter(|_| !shift.secret);
    }
    summary.waves = plan
        .waves
        .iter()
        .map(|wave| target_report(wave, now))
        .collect();
    summary.dry_run_text = true;
    summary
}

fn target_report(wave: &Wave, now: bool) -> WaveReport {
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
    let becomes = match (difference.old, difference.new) {
        (None, _) => EntryChange::Added,
        (Some(_), None) => EntryChange::Removed,
        (Some(_), Some(_)) => EntryChange::Changed,
    };
    let end = if matches!(difference.new.or(difference.old), Some(Node::Tree(_))) {
        "/"
    } else {
        ""
    };
    EntryReport {
        path: shown(&difference.path) + end,
        change: becomes,
    }
}

/// The bytes of a file, none of what is not there; `None` is what has none.
fn bytes(node: Option<&Node>) -> Option<&[u8]> {
    match node {
        None => Some(b""),
        Some(Node::File(_, bytes)) => Some(bytes),
        Some(Node::Link(_) | Node::Tree(_)) => None,
    }
}

/// The difference of two texts, line by line; `below` is their place in a directory.
fn unified(old: &[u8], new: &[u8], below: &str) -> Option<String> {
    let (old, new) = (
        std::str::from_utf8(old).ok()?,
        std::str::from_utf8(new).ok()?,
    );
    let name = |which: &str| {
        if below.is_empty() {
            which.to_owned()
        } else {
            format!("{which}/{below}")
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
