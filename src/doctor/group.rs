//! `hello doctor PID --group`: prints the group of a program that no group and no kind knows.

use std::path::Path;

use super::report::{ProcessReport, Report};
use crate::{
    fleet::Fleet,
    host::local::examine::{Finding, Topic},
    inventory::HostName,
    screen,
};

/// The file that a group is appended to where no fleet file is in use.
const DEFAULT: &str = "fleet.toml";

/// Returns the commands that write the groups of unknown programs.
pub(super) fn commands(report: &Report, fleet: &Fleet) -> Vec<String> {
    let unknown = report
        .processes
        .iter()
        .filter(|process| process.draft.is_some());
    unknown.map(|process| command(process, fleet)).collect()
}

fn command(process: &ProcessReport, fleet: &Fleet) -> String {
    let pid = process.pid;
    let path = fleet.path.as_deref().unwrap_or(Path::new(DEFAULT));
    let file = screen::quote(path);
    if process.host != HostName::local() {
        let host = &process.host;
        return format!("hello doctor {host}:{pid} --fleet {file} --group");
    }
    if path == Path::new(DEFAULT) {
        return format!("hello doctor {pid} --group >> {file}");
    }
    format!("hello doctor {pid} --fleet {file} --group >> {file}")
}

/// Prints the groups to stdout, and to stderr why a process has none. A new file gets its version.
pub(super) fn show(report: &Report, fleet: &Fleet) {
    // The shell has created or opened the file that the group goes to.
    let is_new = match screen::stdout_file_size() {
        Some(size) => size == 0,
        None => fleet.path.is_none(),
    };
    let mut begin = if is_new { "version = 1\n\n" } else { "\n" };
    for process in &report.processes {
        match &process.draft {
            Some(draft) => {
                screen::answer([format!("{begin}{}", draft.toml).trim_end_matches('\n')]);
                begin = "\n";
            }
            None => tell_none(process, fleet),
        }
    }
    report.tell_missing();
}

/// Prints to stderr why no group was written for a process.
fn tell_none(process: &ProcessReport, fleet: &Fleet) {
    let is_role = |finding: &&Finding| finding.topic == Topic::Role && finding.ok == Some(false);
    let of_role = process.checks.iter().find(is_role);
    let is_reloads =
        |finding: &&Finding| finding.topic == Topic::Reloads && finding.ok == Some(false);
    let of_reloads = process.checks.iter().find(is_reloads);
    let Some(finding) = of_role.or(of_reloads).or(process.checks.first()) else {
        return;
    };
    let pid = process.pid_text();
    let why = format!("no group is written for {pid}: {}", finding.text);
    screen::tell(&screen::failure(&why));
    match (&finding.next, &process.group) {
        (Some(next), _) => screen::tell(&screen::hint(next, &finding.commands)),
        (None, Some(kind)) if fleet.path.is_none() => {
            let command = format!("hello kinds {kind}");
            screen::tell(&screen::hint(
                "this prints its kind as a group:",
                &[command],
            ));
        }
        _ => {}
    }
}
