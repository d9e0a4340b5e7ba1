//! Events that are one line each, whatever came before them.

use crate::{
    event::Event,
    names::{self, and_more},
    screen::counted,
    step::short,
};

/// Returns the word and the text of such an event; none for every other event.
pub(super) fn line_of(event: &Event) -> Option<(&'static str, String)> {
    process_line(event)
        .or_else(|| file_line(event))
        .or_else(|| run_line(event))
}

/// Events of processes, and of their answers.
fn process_line(event: &Event) -> Option<(&'static str, String)> {
    Some(match event {
        Event::Skipped { pid, why } => ("Skipped", format!("pid {pid} {why}")),
        Event::Gone { group, pids, why } => {
            let pids = names::pids(pids);
            ("Gone", format!("{group} pid {pids} {why}"))
        }
        Event::Insecure { group, url } => {
            let text = format!("{group}: the certificate of {url} is not checked");
            ("Insecure", text)
        }
        Event::NotHeldBefore {
            group,
            pid,
            instances,
            why,
        } => {
            let more = and_more(instances.saturating_sub(1));
            let text = format!("{group} pid {pid}{more}: before the run {why}");
            ("Failing", text)
        }
        Event::NotOpened {
            group,
            pid,
            instances,
            path,
        } => {
            let more = and_more(instances.saturating_sub(1));
            let path = path.display();
            let text = format!("{group} pid {pid}{more}: not seen to open {path} after its signal");
            ("Not opened", text)
        }
        Event::Unvalidated { pid, why } => ("Unvalidated", format!("pid {pid}: {why}")),
        Event::Unresponsive {
            group,
            pid,
            why,
            skipped,
            ..
        } => {
            let what = if *skipped {
                "is skipped"
            } else {
                "is included"
            };
            ("Unresponsive", format!("{group} pid {pid} {what}: {why}"))
        }
        _ => return None,
    })
}

/// Events of targets, and of the files beside them.
fn file_line(event: &Event) -> Option<(&'static str, String)> {
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
            let why = "too few descriptors (ulimit -n) to see whether a process still writes to \
                       what was replaced";
            (
                "Not watched",
                format!("{}: {why}", counted(*targets, "file")),
            )
        }
        Event::SourceRead {
            url,
            rev,
            sha256,
            bytes,
        } => {
            let size = counted(*bytes, "byte");
            let text = format!("{url} revision {rev} sha256:{} ({size})", short(sha256));
            ("Read", text)
        }
        Event::Valid { path, sha256, by } => {
            let text = format!("{} sha256:{} by {by}", path.display(), short(sha256));
            ("Valid", text)
        }
        Event::NoRollbackContent { path, why } => {
            let path = path.display();
            let text = format!("{path}: {why}, so a failure could not be rolled back");
            ("No rollback", text)
        }
        _ => return None,
    })
}

/// Events of earlier runs.
fn run_line(event: &Event) -> Option<(&'static str, String)> {
    Some(match event {
        Event::Superseded { run } => ("Superseded", format!("run {run}, which was left open")),
        Event::NotKept { why } => ("Not kept", why.clone()),
        Event::NotPruned { why } => ("Not pruned", format!("old runs are still there: {why}")),
        _ => return None,
    })
}
