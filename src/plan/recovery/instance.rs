//! The state of one instance after an earlier run.

use std::path::{Path, PathBuf};

use super::request::RecoveryRequest;
use crate::{
    event::{Direction, Instance, Outcome},
    plan::running::{Literals, already_current, baseline_matches, is_reload_pending},
    runs::{InterruptedRun, SignalRecord},
    step::{PlannedInstance, PriorReadings, Survey, SurveyedTarget, TargetChange, short},
};

/// Returns, refused, the instances of the earlier run that live and read other targets now: they
/// would load none of the contents that the run installs.
pub(super) fn with_other_targets(survey: &Survey, left: &InterruptedRun) -> Vec<Instance> {
    let refused = |m: &PlannedInstance| {
        let known = left
            .instances
            .iter()
            .find(|i| left.same_boot && (i.pid, i.started) == m.id)?;
        let before = known
            .targets
            .iter()
            .find(|path| !m.instance.targets.contains(path))?;
        let now = m
            .instance
            .targets
            .iter()
            .find(|path| !known.targets.contains(path));
        let now = now.map_or("no such file".to_owned(), |path| {
            format!("`{}`", path.display())
        });
        let mut instance = m.clone();
        instance.refuse(format!(
            "it read `{}` in run {}, and names {now} today; make it name the former path, or \
             restart it",
            before.display(),
            left.id
        ));
        Some(instance.instance)
    };
    survey
        .instances
        .iter()
        .chain(&survey.unresponsive)
        .filter_map(refused)
        .collect()
}

/// An instance that reports a config which is neither of an earlier run's two. The text has no
/// subject.
#[derive(Debug, thiserror::Error)]
#[error(
    "runs {}, but run {run} is about `{}` of {} and {}: neither of them",
    short(.runs), .path.display(), short(.from), short(.to)
)]
pub(super) struct OtherConfig {
    runs: String,
    run: String,
    path: PathBuf,
    from: String,
    to: String,
}

/// Records in one instance what an earlier run may have done to it. An instance that needs no
/// signal is unchanged.
///
/// # Errors
/// Fails if it runs neither of the two configs.
pub(super) fn classify(
    instance: &mut PlannedInstance,
    changes: &[TargetChange],
    disk: &[(&Path, &SurveyedTarget)],
    request: RecoveryRequest<'_>,
) -> Result<(), OtherConfig> {
    let left = request.left;
    let is_same = left.same_boot
        && left
            .instances
            .iter()
            .any(|i| (i.pid, i.started) == instance.id);
    let signal = left
        .touched
        .get(&instance.id)
        .filter(|_| left.same_boot)
        .copied();
    let reported = instance
        .instance
        .before
        .clone()
        .filter(|_| !changes.is_empty());
    let reported = reported.as_deref();
    let Digests { from, to } = check_reported(reported, changes.first(), left)?;
    let restores_old = left.back ^ (request.direction == Direction::Back);
    instance.prior_readings = match left.readings.get(&instance.id).filter(|_| is_same) {
        Some(readings) if restores_old => PriorReadings::After(readings.clone()),
        Some(readings) => PriorReadings::Before(readings.clone()),
        None => PriorReadings::None,
    };
    // A process loads what is on disk when it handles a signal. It may still be loading the other
    // config, for a signal of the opposite direction that has not ended.
    instance.signal_may_be_pending = match signal {
        None => is_reload_pending(instance, request.proven),
        Some(signal) => was_signalled_for_other(&signal, request.direction) && !signal.is_over(),
    };
    let on_disk = disk
        .iter()
        .zip(changes)
        .all(|((_, target), change)| target.content.sha256 == change.to.sha256);
    // The key of a store may have changed since it loaded both.
    let is_whole = !instance.reads_key || request.direction.is_back();
    let is_reported = changes.len() == 1
        && is_whole
        && reported.is_some()
        && reported == to
        && (on_disk || request.at_once);
    let is_proven = on_disk
        && (already_current(instance, disk, request.proven)
            || (changes.is_empty() && !instance.unresponsive && was_confirmed(signal.as_ref())));
    let started_on_it =
        on_disk && !is_same && signal.is_none() && read_it_at_start(instance, disk, restores_old);
    if !instance.signal_may_be_pending && (is_reported || is_proven || started_on_it) {
        instance.instance.outcome = Outcome::Unchanged;
    }
    let left_alone = is_back_or_untouched(signal.as_ref());
    // Unless it certainly runs the config from before.
    instance.may_run_new = !match reported {
        Some(runs) => left_alone && Some(runs) == from,
        None => left_alone && is_same,
    };
    instance.runs_it = restores_old && left_alone && is_same;
    Ok(())
}

/// The digests of a target's old content, if it is known, and of its new content.
struct Digests<'a> {
    from: Option<&'a str>,
    to: Option<&'a str>,
}

/// Checks that the digest that a process reported is one of its first target's two.
fn check_reported<'a>(
    reported: Option<&str>,
    first: Option<&'a TargetChange>,
    left: &InterruptedRun,
) -> Result<Digests<'a>, OtherConfig> {
    let to = first.map(|change| change.to.sha256.as_str());
    let from = first
        .and_then(|change| change.from.as_ref())
        .map(|from| from.sha256.as_str());
    if let (Some(runs), Some(from), Some(first)) = (reported, from, first)
        && runs != from
        && Some(runs) != to
    {
        return Err(OtherConfig {
            runs: runs.into(),
            run: left.id.clone(),
            path: first.path.clone(),
            from: from.into(),
            to: first.to.sha256.clone(),
        });
    }
    Ok(Digests { from, to })
}

fn was_signalled_for_other(signal: &SignalRecord, way: Direction) -> bool {
    if way == Direction::Forward {
        signal.back
    } else {
        signal.forward
    }
}

fn was_confirmed(signal: Option<&SignalRecord>) -> bool {
    signal.is_some_and(|signal| signal.outcome == Some(Outcome::Confirmed))
}

/// Tells whether the earlier run did not signal the instance, or has rolled it back.
fn is_back_or_untouched(signal: Option<&SignalRecord>) -> bool {
    signal.is_none_or(|signal| {
        matches!(
            signal.outcome,
            Some(Outcome::Reverted | Outcome::Untouched | Outcome::Refused)
        )
    })
}

/// Tells whether an instance that does not report its config started when every target was what it
/// is now. It read that config at its start, and a signal would change nothing that it shows.
fn read_it_at_start(
    instance: &PlannedInstance,
    disk: &[(&Path, &SurveyedTarget)],
    restores_old: bool,
) -> bool {
    let literals = if restores_old {
        Literals::Skipped
    } else {
        Literals::Count
    };
    !instance.unresponsive
        && instance.instance.before.is_none()
        && !disk.is_empty()
        && disk
            .iter()
            .all(|(_, target)| target.ctime < instance.started_ns)
        && baseline_matches(instance, disk, literals)
}
