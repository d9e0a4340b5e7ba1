//! The report of `hello doctor`, on the screen and as JSON.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    event::{VERSION, Verdict},
    fleet::Group,
    host::{
        discover::found::Found,
        local::{draft::Draft, examine::Finding},
    },
    inventory::HostName,
    names,
    report::Output,
    screen::{self, Table},
};

/// The most reasons that the last line about a process repeats.
const MAX_REASONS: usize = 3;

/// One process with its findings.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ProcessReport {
    /// Its host; `local` is this machine.
    pub(super) host: HostName,
    pub(super) pid: i32,
    /// The group that matches the process; none if there is none.
    pub(super) group: Option<String>,
    #[serde(with = "crate::exact")]
    exe: PathBuf,
    pub(super) checks: Vec<Finding>,
    pub(super) reloadable: bool,
    /// The facts about a program that no group and no kind knows, and a group for it.
    #[serde(default)]
    pub(super) draft: Option<Draft>,
}

/// A process or group that was asked for and does not exist.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Missing {
    /// Its host; `local` is this machine.
    pub(super) host: HostName,
    pub(super) pid: Option<i32>,
    pub(super) group: Option<String>,
    pub(super) text: String,
}

/// Everything that one `hello doctor` reports.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Report {
    pub(super) processes: Vec<ProcessReport>,
    pub(super) missing: Vec<Missing>,
}

impl ProcessReport {
    pub(super) fn new(found: Found, group: Option<&Group>, checks: Vec<Finding>) -> Self {
        let reloadable = !checks.iter().any(|finding| finding.ok == Some(false));
        Self {
            host: HostName::local(),
            pid: found.pid,
            group: group.map(|group| group.name.clone()),
            exe: found.exe,
            checks,
            reloadable,
            draft: None,
        }
    }

    /// Prints a table of its checks, and whether it can be reloaded.
    fn print(&self) {
        let pid = self.pid_text();
        let process = format!("{pid} {}", self.exe.display());
        screen::answer([screen::worded("Process", process.trim_end())]);
        let result = format!("{pid} {}", self.result());
        self.checks().answer([screen::worded("Result", &result)]);
    }

    /// Returns its pid, with its host if that is another machine.
    pub(super) fn pid_text(&self) -> String {
        if self.host == HostName::local() {
            format!("pid {}", self.pid)
        } else {
            format!("{} pid {}", self.host, self.pid)
        }
    }

    /// Returns a table with a row for each check, and with what to do below it.
    fn checks(&self) -> Table {
        let mut table = Table::new(2, ["RESULT", "CHECK", "FINDING"]);
        for finding in &self.checks {
            let mut lines = finding.text.lines();
            table.row([
                mark(finding.ok),
                finding.topic.label(),
                lines.next().unwrap_or_default(),
            ]);
            lines.for_each(|line| table.quote(line));
            if let Some(next) = &finding.next {
                table.below(&format!("next: {next}"));
            }
            finding.commands.iter().for_each(|c| table.command(c));
        }
        for fact in self.draft.iter().flat_map(|draft| &draft.facts) {
            table.row([fact.mark(), fact.about.label(), &fact.detail]);
        }
        table
    }

    /// Returns the first lines of the checks that prevent a reload.
    fn reasons(&self) -> impl Iterator<Item = &str> {
        let bad = self
            .checks
            .iter()
            .filter(|finding| finding.ok == Some(false));
        bad.map(|finding| finding.text.lines().next().unwrap_or_default())
    }

    /// Returns whether the process can be reloaded, with the first reasons why not.
    fn result(&self) -> String {
        if self.reloadable {
            return "can be reloaded".to_owned();
        }
        let reasons = names::list(self.reasons(), "; ", MAX_REASONS);
        format!("cannot be reloaded: {reasons}")
    }
}

impl Report {
    /// Prints the processes, and to stderr what is missing. `next` are the commands that write the
    /// groups of unknown programs.
    pub(super) fn show(&self, output: Output, code: u8, next: &[String]) {
        if output == Output::Screen {
            self.show_lines();
        } else {
            screen::data([self.json(code, next)]);
        }
        self.tell_missing();
        if output == Output::Screen && !next.is_empty() {
            screen::tell(&screen::hint("to write its group:", next));
        }
    }

    /// Prints to stderr what does not exist.
    pub(super) fn tell_missing(&self) {
        for missing in &self.missing {
            let host = Some(&missing.host).filter(|host| **host != HostName::local());
            let host = host.map_or(String::new(), |host| format!("{host}: "));
            let pid = missing
                .pid
                .map_or(String::new(), |pid| format!("pid {pid} "));
            screen::tell(&screen::failure(&format!("{host}{pid}{}", missing.text)));
        }
    }

    /// Returns the object of `-o json`.
    pub(super) fn json(&self, code: u8, next: &[String]) -> serde_json::Value {
        serde_json::json!({
            "v": VERSION,
            "dry_run": false,
            "exit": code,
            "next": next,
            "processes": self.processes,
            "missing": self.missing,
        })
    }

    /// Returns the verdict: something does not exist, every process can be reloaded, or one cannot.
    pub(super) fn verdict(&self) -> Verdict {
        if !self.missing.is_empty() || self.processes.is_empty() {
            Verdict::NoMatch
        } else if self.processes.iter().all(|process| process.reloadable) {
            Verdict::Converged
        } else {
            Verdict::Refused
        }
    }

    /// Returns the verdict where groups are written: something does not exist, every process has a
    /// group now, or one has none.
    pub(super) fn written(&self) -> Verdict {
        if !self.missing.is_empty() || self.processes.is_empty() {
            Verdict::NoMatch
        } else if self.processes.iter().all(|process| process.draft.is_some()) {
            Verdict::Converged
        } else {
            Verdict::Refused
        }
    }

    fn show_lines(&self) {
        self.processes.iter().for_each(ProcessReport::print);
        let count = self.processes.len();
        if count > 1 {
            let reloadable = self.processes.iter().filter(|p| p.reloadable).count();
            let text = format!(
                "{count} processes: {reloadable} can be reloaded, {} cannot",
                count - reloadable
            );
            self.overview().answer([screen::worded("Summary", &text)]);
        }
    }

    /// Returns a table with a row for each process, and with the reasons that prevent its reload.
    fn overview(&self) -> Table {
        let mut table = Table::new(1, ["RESULT", "GROUP", "PID", "EXECUTABLE"]);
        for process in &self.processes {
            table.row([
                mark(Some(process.reloadable)),
                process.group.as_deref().unwrap_or("-"),
                process.pid_text().trim_start_matches("pid "),
                &process.exe.display().to_string(),
            ]);
            process.reasons().for_each(|reason| table.below(reason));
        }
        table
    }
}

/// Returns the word for the result of a check.
fn mark(ok: Option<bool>) -> &'static str {
    match ok {
        Some(true) => "ok",
        Some(false) => "NO",
        None => "--",
    }
}

#[cfg(test)]
mod tests;
