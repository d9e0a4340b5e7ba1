//! The config that an instance runs now, as far as it can be known without a signal.

use std::path::Path;

use crate::{
    assertion::{Assertion, each_entry},
    event::Outcome,
    fleet::Speaks,
    runs::{ProofCache, ProvenTarget},
    step::{Content, PlannedInstance, SurveyedTarget},
};

/// Tells whether a reload that an earlier run caused may still be in progress, in an instance that
/// does not report its config.
pub(super) fn is_reload_pending(instance: &PlannedInstance, proven: &ProofCache) -> bool {
    let (pid, started) = instance.id;
    instance.group.speaks == Speaks::None
        && proven.is_open(pid, started, &instance.instance.targets)
}

/// Tells whether an instance that does not report its config needs no signal for `targets` as they
/// are on disk.
///
/// For each target one of these holds: a run proved the instance on this content, and no program
/// has changed it since; or the instance reads the target only at its start, and started later. Its
/// present answers must be those of this config.
pub(super) fn already_current(
    instance: &PlannedInstance,
    targets: &[(&Path, &SurveyedTarget)],
    proven: &ProofCache,
) -> bool {
    let (pid, started) = (instance.instance.pid, instance.instance.started);
    let is_current = |(path, target): &(&Path, &SurveyedTarget)| {
        let read_at_start = instance.restart_only_paths.iter().any(|p| p == path)
            && target.ctime < instance.started_ns;
        read_at_start
            || proven.of(pid, started, path).is_some_and(|proven| {
                proven.sha256 == target.content.sha256
                    && proven.ctime == target.ctime
                    && includes_are_same(proven, target)
            })
    };
    // The present answers of an unresponsive instance are not known.
    !instance.unresponsive
        && instance.instance.before.is_none()
        && !targets.is_empty()
        && targets.iter().all(is_current)
        && baseline_matches(instance, targets, Literals::Count)
}

/// Tells whether the content that is read through a target is known, and is the same as when an
/// instance was proven to run it.
fn includes_are_same(proven: &ProvenTarget, target: &SurveyedTarget) -> bool {
    target.behind.is_some() && proven.behind == target.behind
}

/// How assertions count that take no value from the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Literals {
    /// They must hold.
    Count,
    /// They are ignored: they describe the config that is rolled back.
    Skipped,
}

/// Tells whether each assertion of an instance holds now that needs no baseline.
pub(super) fn baseline_matches(
    instance: &PlannedInstance,
    targets: &[(&Path, &SurveyedTarget)],
    literals: Literals,
) -> bool {
    let disk = targets
        .first()
        .and_then(|(_, target)| target.content.file());
    let holds = |(assertion, now): (&Assertion, &Option<String>)| {
        let holds =
            |resolved: &Assertion| now.as_deref().is_some_and(|now| resolved.holds_alone(now));
        let is_skipped = |resolved: &Assertion| {
            literals == Literals::Skipped && resolved.expectation == assertion.expectation
        };
        assertion.needs_signal()
            || assertion
                .resolved(disk)
                .is_ok_and(|resolved| is_skipped(&resolved) || holds(&resolved))
    };
    let confirm = &instance.group.confirm;
    each_entry(confirm, |index, assertion| {
        instance
            .baseline
            .get(index)
            .is_none_or(|now| holds((assertion, now)))
    })
}

/// Returns the content that instances serve now, if the candidate is on disk already; none if it is
/// not known, or if they serve different contents.
///
/// Instances that report the content on disk become unchanged, unless they read a key as well. An
/// instance that does not report its config is taken to run the content that it was last proven to
/// run. With several targets (`alone` is false), a report is of the first only and does not count.
/// Unresponsive instances are always signalled, and are taken to run what the others run.
pub(super) fn previous_content(
    path: &Path,
    target: &SurveyedTarget,
    alone: bool,
    instances: &mut [PlannedInstance],
    proven: &ProofCache,
    stored: impl Fn(&str) -> Option<Vec<u8>>,
) -> Option<Content> {
    let disk = &target.content;
    let mut others: Vec<Option<String>> = Vec::new();
    let all_unresponsive = instances.iter().all(|m| m.unresponsive);
    for instance in instances
        .iter_mut()
        .filter(|m| m.instance.outcome != Outcome::Unchanged)
    {
        match instance.instance.before.clone().filter(|_| alone) {
            Some(runs) if runs == disk.sha256 => {
                if !instance.unresponsive && !instance.reads_key {
                    instance.instance.outcome = Outcome::Unchanged;
                }
            }
            Some(runs) => others.push(Some(runs)),
            None => match proven.of(instance.instance.pid, instance.instance.started, path) {
                // The old content of the included files is not stored.
                Some(proven) if proven.behind.is_some() && !includes_are_same(proven, target) => {
                    others.push(None)
                }
                // The same bytes were written again.
                Some(proven) if proven.sha256 == disk.sha256 => {}
                None if instance.unresponsive && !all_unresponsive => {}
                proven => others.push(proven.map(|proven| proven.sha256.clone())),
            },
        }
    }
    others.sort();
    others.dedup();
    match others.as_slice() {
        [] => Some(disk.clone()),
        [Some(sha256)] => stored(sha256)
            .and_then(|bytes| Content::from_stored(bytes, disk.kind()))
            .filter(|content| content.sha256 == *sha256),
        _ => None,
    }
}
