//! Events that are one line each, whatever came before them.

use crate::{
    event::{Event, process},
    inventory::HostName,
    names::{self, and_more},
    screen::counted,
    step::short,
};

/// One line about an event, whose host is not named yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EventLine {
    pub(super) word: &'static str,
    /// The process that the text begins with; none where it begins with the host.
    pub(super) process: Option<NamedProcess>,
    /// The text, or what follows the process.
    pub(super) text: String,
}

/// A process as a line begins with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedProcess {
    /// Its group, where the line names it.
    pub(super) group: Option<String>,
    pub(super) pid: i32,
}

impl EventLine {
    pub(super) fn new(word: &'static str, text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            word,
            process: None,
            text,
        }
    }

    fn of(word: &'static str, group: Option<&String>, pid: i32, text: String) -> Self {
        let group = group.cloned();
        Self {
            word,
            process: Some(NamedProcess { group, pid }),
            text,
        }
    }

    /// Returns the text with the host, unless that is this machine.
    pub(super) fn text_of(&self, host: &HostName) -> String {
        match &self.process {
            Some(NamedProcess { group, pid }) => {
                let group = group.as_ref().map_or(String::new(), |g| format!("{g} "));
                format!("{group}{}{}", process(host, *pid), self.text)
            }
            None if host.is_local() => self.text.clone(),
            None => format!("{host}: {}", self.text),
        }
    }
}

/// Returns the line of such an event; none for every other event.
pub(super) fn line_of(event: &Event) -> Option<EventLine> {
    let line = || file_line(event).or_else(|| run_line(event));
    process_line(event).or_else(|| line().map(|(word, text)| EventLine::new(word, text)))
}

/// Events of processes, and of their answers.
fn process_line(event: &Event) -> Option<EventLine> {
    Some(match event {
        Event::Skipped { pid, why } => EventLine::of("Skipped", None, *pid, format!(" {why}")),
        Event::Gone { group, pids, why } => {
            let pids = names::pids(pids);
            EventLine::new("Gone", format!("{group} pid {pids} {why}"))
        }
        Event::Insecure { group, url } => {
            let text = format!("{group}: the certificate of {url} is not checked");
            EventLine::new("Insecure", text)
        }
        Event::NotHeldBefore {
            group,
            pid,
            instances,
            why,
        } => {
            let more = and_more(instances.saturating_sub(1));
            let text = format!("{more}: before the run {why}");
            EventLine::of("Failing", Some(group), *pid, text)
        }
        Event::NotOpened {
            group,
            pid,
            instances,
            path,
        } => {
            let more = and_more(instances.saturating_sub(1));
            let path = path.display();
            let text = format!("{more}: not seen to open {path} after its signal");
            EventLine::of("Not opened", Some(group), *pid, text)
        }
        Event::Unvalidated { pid, why } => {
            EventLine::of("Unvalidated", None, *pid, format!(": {why}"))
        }
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
            let text = format!(" {what}: {why}");
            EventLine::of("Unresponsive", Some(group), *pid, text)
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
        Event::IndexClosed { run, why } => {
            ("Closed", format!("run {run}, which was left open: {why}"))
        }
        Event::NotKept { why } => ("Not kept", why.clone()),
        Event::NotPruned { why } => ("Not pruned", format!("old runs are still there: {why}")),
        _ => return None,
    })
}
