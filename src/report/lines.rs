//! Events that are one line each, whatever came before them.

use super::names::{and_more, named};
use crate::{event::Event, screen::counted, step::short};

/// The word and the text of such an event; none for every other one.
pub(super) fn line_of(event: &Event) -> Option<(&'static str, String)> {
    of_processes(event)
        .or_else(|| of_files(event))
        .or_else(|| of_runs(event))
}

/// What was seen of processes, and of what they answer.
fn of_processes(event: &Event) -> Option<(&'static str, String)> {
    Some(match event {
        Event::Skipped { pid, why } => ("Left out", format!("pid {pid} {why}")),
        Event::Gone { group, pids, why } => ("Gone", format!("{group} pid {} {why}", named(pids))),
        Event::Insecure { group, url } => (
            "Insecure",
            format!("{group}: the certificate of {url} is not checked"),
        ),
        Event::NotHeldBefore {
            group,
            pid,
            instances,
            why,
        } => {
            let more = and_more(instances.saturating_sub(1));
            let text = format!("{group} pid {pid}{more}: before the run {why}");
            ("Unheld", text)
        }
        Event::NotOpened {
            group,
            pid,
            instances,
            path,
        } => {
            let (more, path) = (and_more(instances.saturating_sub(1)), path.display());
            let text = format!("{group} pid {pid}{more}: not seen to open {path} after its signal");
            ("Not opened", text)
        }
        Event::Unvalidated { pid, why } => ("Unvalidated", format!("pid {pid}: {why}")),
        Event::Unresponsive {
            group,
            pid,
            why,
            skipped: left_out,
            ..
        } => {
            let what = if *left_out {
                "is left out"
            } else {
                "goes along"
            };
            ("Sick", format!("{group} pid {pid} {what}: {why}"))
        }
        _ => return None,
    })
}

/// What was seen of targets, and of what stands beside them.
fn of_files(event: &Event) -> Option<(&'static str, String)> {
    Some(match event {
        Event::ForeignLock { path, holder } => {
            let why = "which may write none of the targets there";
            let path = path.display();
            let text = format!("{path} is locked by a process {why}; ignored{holder}");
            ("Foreign lock", text)
        }
        Event::LeftBeside { path, why } => ("Left beside", format!("{}: {why}", path.display())),
        Event::LateEdit { path, what, kept } => {
            let kept = kept.as_ref().map_or_else(String::new, |kept| {
                format!("; what was written is kept in {}", kept.display())
            });
            let why = "was changed after it was replaced, through a descriptor from before";
            let text = format!("{} {why} ({what}){kept}", path.display());
            ("Late edit", text)
        }
        Event::NotHeld { targets } => {
            let why = "whether an edit arrived later in what was replaced is not known: too few \
                       descriptors (ulimit -n)";
            ("Not held", format!("{}: {why}", counted(*targets, "file")))
        }
        Event::Valid { path, sha256, by } => {
            let text = format!("{} sha256:{} by {by}", path.display(), short(sha256));
            ("Valid", text)
        }
        Event::NoRollbackContent { path } => {
            let why = "nobody has the bytes that are served now, so a failure could not be undone";
            ("No way back", format!("{}: {why}", path.display()))
        }
        _ => return None,
    })
}

/// What became of earlier runs.
fn of_runs(event: &Event) -> Option<(&'static str, String)> {
    Some(match event {
        Event::Superseded { run } => ("Superseded", format!("run {run}, which was left open")),
        Event::NotPruned { why } => ("Not pruned", format!("old runs are still there: {why}")),
        _ => return None,
    })
}
