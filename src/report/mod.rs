//! Shows a run: lines for people on stderr, JSON on stdout. A reader that went away changes
//! nothing.

use std::time::{Duration, Instant};

use serde::Serialize;

use self::{
    batch::Batch,
    grouped::GroupedLines,
    host_tally::HostTally,
    run_report::Refusal,
    text::{LISTED, end_text, instances, on_hosts, refused_text, seconds},
};
pub(crate) use self::{
    exports::Exports,
    hosts::HostReport,
    leftovers::remove_leftovers,
    refusal::{fail, refused},
    run_report::{AfterFailure, CommandContext, Look, RunReport, WaveReport},
    run_text::{action, ended, local_time, operator, operator_name, result, run_object, unreached},
    schema::{event_schema, result_schema},
    summary::Summary,
};
use crate::{
    event::has_hosts,
    refusal::Hint,
    screen::{self, Sink},
};

mod batch;
mod dry_run;
mod exports;
mod github;
mod grouped;
mod hint;
mod host_tally;
mod hosts;
mod junit;
mod leftovers;
mod lines;
mod phases;
mod refusal;
mod run_report;
mod run_text;
mod running;
mod schema;
mod summary;
#[cfg(test)]
mod tests;
mod text;
mod watched;

/// What stdout carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// Nothing; people read stderr.
    Screen,
    /// One object at the end.
    Json,
    /// The events as they happen, then the same object.
    Jsonl,
}

/// Prints events and the end of a run.
#[derive(Debug)]
pub(crate) struct Reporter {
    output: Output,
    quiet: bool,
    verbose: bool,
    began: Instant,
    /// Number of instances in each wave of the run.
    waves: Vec<usize>,
    /// In a replay: the time of day of the next line, and the time since the run began.
    past: Option<(String, Duration)>,
    /// The instances that are signalled now.
    batch: Batch,
    hosts: HostTally,
    /// Lines of a large number of hosts, which wait to be shown together.
    grouped: GroupedLines,
    exports: Exports,
    stdout: Sink,
    stderr: Sink,
}

impl Reporter {
    /// Returns a reporter for one run.
    #[must_use]
    pub(crate) fn new(output: Output, quiet: bool, verbose: bool) -> Self {
        Self {
            output,
            quiet,
            verbose,
            began: Instant::now(),
            waves: Vec::new(),
            past: None,
            batch: Batch::default(),
            hosts: HostTally::default(),
            grouped: GroupedLines::default(),
            exports: Exports::default(),
            stdout: Sink::stdout(),
            stderr: Sink::stderr(!quiet),
        }
    }

    /// Adds the reports that a CI system reads.
    #[must_use]
    pub(crate) fn exporting(mut self, exports: Exports) -> Self {
        self.exports = exports;
        self
    }

    /// Returns a reporter that replays an earlier run on stdout. Every instance is a line, and each
    /// line has its time.
    #[must_use]
    pub(crate) fn for_replay() -> Self {
        Self {
            past: Some(Default::default()),
            stderr: Sink::stdout(),
            ..Self::new(Output::Screen, false, true)
        }
    }

    /// Sets the time of the next line of a replay: the time of day, and the time since the run
    /// began.
    pub(crate) fn set_time(&mut self, clock: String, elapsed: Duration) {
        self.past = Some((clock, elapsed));
    }

    fn elapsed(&self) -> Duration {
        self.past
            .as_ref()
            .map_or_else(|| self.began.elapsed(), |(_, elapsed)| *elapsed)
    }

    /// Shows the end.
    pub(crate) fn finish(&mut self, summary: &Summary) {
        self.end_batch();
        self.idle();
        if self.output != Output::Screen {
            self.data(summary);
        } else if summary.is_preview {
            let text = dry_run::text(summary, self.verbose);
            self.stdout.line(text.trim_end());
        }
        if summary.exit == 0 && summary.run.is_empty() && !summary.is_preview {
            self.line("Unchanged", &summary.reason);
        }
        let refused = refused_text(&summary.instances);
        let is_listed = !self.quiet && summary.run.is_empty() && refused.len() > 1;
        // Over hosts, the line of each host has told them.
        let is_told = has_hosts(&summary.instances);
        if is_listed && !is_told {
            let lines: Vec<_> = refused
                .iter()
                .map(|text| ("Refused", text.clone()))
                .collect();
            self.list(&lines);
        }
        let time = seconds(self.elapsed());
        self.line("Summary", &format!("[{time}] {}", end_text(summary)));
        if let (Some(counts), Some(others)) = (&summary.host_counts, &summary.hosts) {
            self.list(&hosts::lines(counts, others));
        }
        if !summary.run.is_empty() {
            self.line("Run", &summary.run);
        }
        if summary.exit != 0 {
            // These lines say why.
            let why = if is_listed && summary.refusal == Some(Refusal::ByInstances) {
                let on = on_hosts(&summary.instances);
                format!("{} refused{on}", instances(refused.len()))
            } else {
                summary.reason.clone()
            };
            self.stderr.line(&format!("\n{}", screen::failure(&why)));
            self.hint(summary.hint.as_ref());
        } else if !self.quiet {
            self.hint(summary.undo.as_ref());
        }
        for line in self.exports.annotations(summary) {
            self.stderr.line(&screen::line(&line));
        }
        self.exports.write(summary, self.elapsed());
        self.close();
    }

    /// Shows lines, each a word and a text; of many, only the first unless every one is wanted.
    fn list(&self, lines: &[(&str, String)]) {
        let shown = if self.verbose { lines.len() } else { LISTED };
        for (word, text) in lines.iter().take(shown) {
            self.line(word, text);
        }
        let more = lines.len().saturating_sub(shown);
        if more > 0 {
            self.line("", &format!(".. and {more} more; -v names them"));
        }
    }

    fn hint(&self, hint: Option<&Hint>) {
        if let Some(hint) = hint {
            self.stderr
                .line(&format!("\n{}", screen::hint(&hint.what, &hint.commands)));
        }
    }

    /// Waits until the readers have taken everything, as long as that is of use.
    pub(crate) fn close(&mut self) {
        self.stdout.close();
        self.stderr.close();
    }

    /// Writes one JSON object to stdout.
    fn data(&self, value: &impl Serialize) {
        if let Ok(line) = serde_json::to_string(value) {
            self.stdout.data(line);
        }
    }

    fn show_batch(&self) {
        self.stderr
            .progress(self.batch.is_at_an_end(), || self.batch.progress());
    }

    /// Removes the progress line.
    fn idle(&self) {
        self.stderr.progress(true, || None);
    }

    /// Shows one line.
    pub(crate) fn line(&self, word: &str, text: &str) {
        match &self.past {
            Some((clock, _)) => self.stderr.line(&format!(
                "{clock} {}",
                screen::worded(word, &screen::line(text))
            )),
            None if self.quiet => {}
            None => self.stderr.line(&screen::worded(word, text)),
        }
    }
}
