//! The report of `hello doctor`, on the screen and as JSON.

use std::path::PathBuf;

use serde::Serialize;

use crate::{
    event::VERSION,
    fleet::Group,
    host::{discover::found::Found, local::examine::Finding},
    names,
    report::Output,
    screen,
};

/// The most reasons that the last line about a process repeats.
const MAX_REASONS: usize = 3;

/// One process with its findings.
#[derive(Debug, Serialize)]
pub(super) struct ProcessReport {
    pid: i32,
    /// The group that matches the process; none if there is none.
    group: Option<String>,
    #[serde(with = "crate::exact")]
    exe: PathBuf,
    checks: Vec<Finding>,
    pub(super) reloadable: bool,
}

/// A process or group that was asked for and does not exist.
#[derive(Debug, Serialize)]
pub(super) struct Missing {
    pub(super) pid: Option<i32>,
    pub(super) group: Option<String>,
    pub(super) text: String,
}

/// Everything that one `hello doctor` reports.
#[derive(Debug, Default, Serialize)]
pub(super) struct Report {
    pub(super) processes: Vec<ProcessReport>,
    pub(super) missing: Vec<Missing>,
}

impl ProcessReport {
    pub(super) fn new(found: Found, group: Option<&Group>, checks: Vec<Finding>) -> Self {
        let reloadable = !checks.iter().any(|finding| finding.ok == Some(false));
        Self {
            pid: found.pid,
            group: group.map(|group| group.name.clone()),
            exe: found.exe,
            checks,
            reloadable,
        }
    }

    /// Returns a line for each check, and one whether the process can be reloaded.
    fn lines(&self) -> Vec<String> {
        let process = format!("pid {} {}", self.pid, self.exe.display());
        let mut lines = vec![screen::worded("Process", process.trim_end())];
        for finding in &self.checks {
            let mark = match finding.ok {
                Some(true) => "ok",
                Some(false) => "NO",
                None => "--",
            };
            let next = finding
                .next
                .as_ref()
                .map_or(String::new(), |next| format!("; {next}"));
            lines.push(screen::worded(
                finding.topic.label(),
                &format!("{mark} {}{next}", finding.text),
            ));
        }
        let result = format!("pid {} {}", self.pid, self.result());
        lines.push(screen::worded("Result", &result));
        lines
    }

    /// Returns whether the process can be reloaded, with the first reasons why not.
    fn result(&self) -> String {
        if self.reloadable {
            return "can be reloaded".to_owned();
        }
        let reasons: Vec<&str> = self
            .checks
            .iter()
            .filter(|finding| finding.ok == Some(false))
            .map(|finding| finding.text.lines().next().unwrap_or_default())
            .collect();
        let reasons = names::list(reasons, "; ", MAX_REASONS);
        format!("cannot be reloaded: {reasons}")
    }
}

impl Report {
    pub(super) fn show(&self, output: Output, code: u8) {
        if output == Output::Screen {
            self.show_lines();
        } else {
            screen::data([serde_json::json!({
                "v": VERSION,
                "dry_run": false,
                "exit": code,
                "next": [],
                "processes": self.processes,
                "missing": self.missing,
            })]);
        }
        for missing in &self.missing {
            let pid = missing
                .pid
                .map_or(String::new(), |pid| format!("pid {pid} "));
            screen::tell(&screen::failure(&format!("{pid}{}", missing.text)));
        }
    }

    fn show_lines(&self) {
        screen::answer(self.processes.iter().flat_map(ProcessReport::lines));
        let count = self.processes.len();
        if count > 1 {
            let reloadable = self.processes.iter().filter(|p| p.reloadable).count();
            let text = format!(
                "{count} processes: {reloadable} can be reloaded, {} cannot",
                count - reloadable
            );
            screen::answer([screen::worded("Summary", &text)]);
        }
    }
}
