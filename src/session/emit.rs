//! Events of a run that neither the verbs of its host nor the engine emit.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use crate::{event::Event, fleet::Group, host::Host, plan::Plan, runs::Journal, step::Survey};

/// Emits what a survey found. `fleet` is the file that named the groups.
pub(super) fn emit_survey(
    survey: &Survey,
    groups: &[Group],
    fleet: Option<&Path>,
    on_event: &mut dyn FnMut(&Event),
) {
    for (pid, why) in &survey.skipped {
        on_event(&Event::Skipped {
            pid: *pid,
            why: why.clone(),
        });
    }
    for note in &survey.notes {
        on_event(note);
    }
    on_event(&Event::Survey {
        instances: survey.instances.len() + survey.unresponsive.len() + survey.refused.len(),
        fleet: fleet.map(Path::to_owned),
    });
    let found: BTreeSet<&str> = survey
        .instances
        .iter()
        .chain(&survey.unresponsive)
        .map(|m| m.instance.group.as_str())
        .collect();
    for group in groups.iter().filter(|g| found.contains(g.name.as_str())) {
        emit_insecure(group, on_event);
    }
}

/// Emits every URL of a group that is probed without a check of the certificate.
fn emit_insecure(group: &Group, on_event: &mut dyn FnMut(&Event)) {
    let urls: BTreeSet<&str> = group
        .confirm
        .iter()
        .chain(&group.reject)
        .filter_map(|assertion| assertion.source.unchecked())
        .collect();
    for url in urls {
        on_event(&Event::Insecure {
            group: group.name.clone(),
            url: url.into(),
        });
    }
}

/// Emits every unresponsive instance, and whether it is skipped.
pub(super) fn emit_unresponsive(plan: &Plan, on_event: &mut dyn FnMut(&Event)) {
    let skipped = plan.skipped.iter().map(|m| (m, true));
    let included = plan.steps().flat_map(|s| &s.instances).map(|m| (m, false));
    for (member, skipped) in skipped.chain(included).filter(|(m, _)| m.unresponsive) {
        let instance = &member.instance;
        let failure = instance.failure.as_ref();
        on_event(&Event::Unresponsive {
            group: instance.group.clone(),
            pid: instance.pid,
            endpoint: instance.endpoint.clone(),
            why: failure.map_or(String::new(), |f| f.text.clone()),
            skipped,
        });
    }
}

/// Ends a run on its host, and returns what the operator must know of that. Late edits are kept in
/// the run's folder, and staged files are removed.
pub(super) fn final_events(host: &mut Host, journal: &Journal) -> Vec<Event> {
    let end = host.late_edits();
    let keep = |(index, (path, what, bytes)): (usize, (PathBuf, String, Option<Vec<u8>>))| {
        let kept = bytes.map(|bytes| journal.keep_late(index + 1, &bytes));
        let (kept, what) = match kept {
            Some(Err(e)) => (None, format!("{what}, which could not be kept: {e}")),
            kept => (kept.and_then(Result::ok), what),
        };
        Event::LateEdit { path, what, kept }
    };
    let mut events: Vec<Event> = end.late.into_iter().enumerate().map(keep).collect();
    events.extend((end.not_held > 0).then_some(Event::NotHeld {
        targets: end.not_held,
    }));
    events.extend(leftovers(host.clear()));
    events
}

/// Returns an event for each staged file that could not be removed.
pub(super) fn leftovers(
    left: impl IntoIterator<Item = (PathBuf, String)>,
) -> impl Iterator<Item = Event> {
    left.into_iter()
        .map(|(path, why)| Event::LeftBeside { path, why })
}
