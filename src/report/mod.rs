//! Shows a run: lines for people on stderr, JSON on stdout. A reader that went away changes
//! nothing.

use std::time::{Duration, Instant};

use serde::Serialize;

use self::{
    batch::Batch,
    lines::line_of,
    text::{
        LISTED, end_text, instances, proof_text, refused_text, rolled_back_text, seconds,
        unconfirmed_text, waves_text,
    },
};
pub(crate) use self::{
    exports::Exports,
    leftovers::remove_leftovers,
    refusal::{fail, refused},
    run_report::{AfterFailure, CommandContext, Look, RunReport, WaveReport},
    run_text::{action, ended, local_time, operator, operator_name, result, run_object},
    schema::{event_schema, result_schema},
    summary::Summary,
};
use crate::{
    event::{At, Direction, Event, FailureKind, Outcome, Phase, failures},
    inventory::HostName,
    names,
    refusal::Hint,
    screen::{self, Sink},
    step::short,
};

mod batch;
mod dry_run;
mod exports;
mod github;
mod hint;
mod junit;
mod leftovers;
mod lines;
mod phases;
mod refusal;
mod run_report;
mod run_text;
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
    /// Number of waves of the run.
    waves: usize,
    /// In a replay: the time of day of the next line, and the time since the run began.
    past: Option<(String, Duration)>,
    /// The instances that are signalled now.
    batch: Batch,
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
            waves: 0,
            past: None,
            batch: Batch::default(),
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

    /// Shows an event.
    pub(crate) fn event(&mut self, event: &Event) {
        if let Event::Phase {
            phase,
            done,
            all,
            limit,
        } = event
        {
            return self.phase(*phase, (*done, *all), *limit);
        }
        if self.output == Output::Jsonl {
            self.data(&At::of(&HostName::local(), event));
        }
        if let Some((word, text)) = line_of(event) {
            return self.line(word, &text);
        }
        match event {
            Event::Survey { .. } => self.survey(event),
            Event::Waves { instances } => self.waves = instances.len(),
            Event::Intent {
                direction,
                wave,
                pids,
                ..
            } => self.intent(*direction, *wave, pids),
            Event::Installed { path, sha256, .. } => {
                let word = if self.batch.direction.is_back() {
                    "Rolled back"
                } else {
                    "Installed"
                };
                let text = format!("{} sha256:{}", path.display(), short(sha256));
                self.line(word, &text);
            }
            Event::RollbackBegan { why } => {
                self.after_batch("Rolling back", &format!("everything: {why}"));
            }
            Event::RolledBack { pids, why } => {
                self.after_batch("Rolling back", &rolled_back_text(pids, why));
            }
            Event::Stopped { why } => {
                self.after_batch("Stopped", &format!("no other instance is signalled: {why}"));
            }
            Event::Baking { wave, seconds } => self.baking(*wave, *seconds),
            Event::Baked { wave, instances } => self.baked(*wave, *instances),
            Event::Gate {
                wave,
                command,
                exit,
                output,
            } => self.gate(*wave, command, *exit, output),
            Event::Instance { .. } => self.instance(event),
            _ => {}
        }
    }

    /// Shows a phase while it lasts. The instances of a batch are shown as the batch.
    fn phase(&mut self, phase: Phase, counts: (usize, usize), limit: Option<Duration>) {
        if phase != Phase::Confirming {
            let is_first = counts.0 == 0;
            return self
                .stderr
                .progress(is_first, || Some(phases::progress(phase, counts, limit)));
        }
        self.batch.limit = limit;
        self.show_batch();
        if let Some(limit) = limit.filter(|_| self.rolls_back_interrupted()) {
            let text = format!(
                "each instance has {}s to prove the old config",
                limit.as_secs_f64()
            );
            self.line("Rolling back", &text);
        }
    }

    /// Tells whether the operator waits for a rollback after an interrupt.
    fn rolls_back_interrupted(&self) -> bool {
        self.batch.direction.is_back() && screen::is_interrupted()
    }

    fn survey(&mut self, event: &Event) {
        let Event::Survey {
            instances: count,
            fleet,
        } = event
        else {
            return;
        };
        self.idle();
        let source = fleet
            .as_ref()
            .map_or("no fleet.toml".into(), |path| path.display().to_string());
        let text = format!("{} on 1 host ({source})", instances(*count));
        self.line("Survey", &text);
    }

    /// Begins a batch of instances.
    fn intent(&mut self, direction: Direction, wave: usize, pids: &[(i32, u64)]) {
        self.end_batch();
        // A rollback is no wave. Neither is a file that is installed again after a partial one.
        if !direction.is_back() && self.waves > 1 && !pids.is_empty() {
            let text = format!("{wave}/{}: {}", self.waves, instances(pids.len()));
            self.line("Wave", &text);
        }
        self.batch = Batch::new(direction, pids.iter().map(|(pid, _)| *pid));
        self.show_batch();
    }

    /// Ends the batch, and shows a line.
    fn after_batch(&mut self, word: &str, text: &str) {
        self.end_batch();
        self.line(word, text);
    }

    fn baking(&mut self, wave: usize, seconds: f64) {
        let text = format!("wave {wave} is left alone for {seconds}s");
        self.after_batch("Baking", &text);
        self.stderr
            .progress(true, || Some(phases::baking(wave, seconds)));
    }

    fn baked(&mut self, wave: usize, count: usize) {
        self.end_batch();
        self.idle();
        let text = format!(
            "[{}] {} of wave {} still on the new config",
            seconds(self.elapsed()),
            instances(count),
            waves_text(wave)
        );
        self.line("Baked", &text);
    }

    /// Shows the result of a gate, and the first lines of its output.
    fn gate(&mut self, wave: usize, command: &[String], exit: Option<i32>, output: &str) {
        self.end_batch();
        self.idle();
        let result = match exit {
            Some(0) => "passed".into(),
            Some(code) => format!("failed (exit status {code})"),
            None => "failed (no exit status)".into(),
        };
        let word = if exit == Some(0) { "Gate" } else { "FAILED" };
        let time = seconds(self.elapsed());
        let command = command.join(" ");
        self.line(
            word,
            &format!("[{time}] gate of wave {wave}: `{command}` {result}"),
        );
        for line in output.lines().take(names::MOST) {
            self.line("", &format!("| {line}"));
        }
        let more = output.lines().count().saturating_sub(names::MOST);
        if more > 0 {
            let lines = if more == 1 { "line" } else { "lines" };
            self.line("", &format!(".. and {more} more {lines}"));
        }
    }

    /// Shows the outcome of an instance.
    fn instance(&mut self, event: &Event) {
        let Event::Instance {
            group,
            pid,
            endpoint,
            moved_from,
            successor_of,
            outcome,
            proof,
            draining,
            failure,
            ..
        } = event
        else {
            return;
        };
        let address = match moved_from {
            Some(from) => format!(" {from} moved to {endpoint}"),
            None if endpoint.is_empty() => String::new(),
            None => format!(" {endpoint}"),
        };
        let old = successor_of.map_or(String::new(), |old| format!(", successor of pid {old}"));
        let failure = failure.as_ref().map(|f| {
            if *outcome == Outcome::Unconfirmed && f.kind == FailureKind::Unresponsive {
                format!("unresponsive before the run: {}", f.text)
            } else {
                f.text.clone()
            }
        });
        self.batch.end(successor_of.unwrap_or(*pid));
        self.show_batch();
        let proof = proof_text(*proof, draining);
        let (word, result) = match outcome {
            Outcome::Confirmed => ("Confirmed", proof),
            Outcome::Unconfirmed => ("Signalled", unconfirmed_text(failure.as_deref())),
            Outcome::Reverted => {
                let first = failure.map_or(String::new(), |text| format!(" (first: {text})"));
                ("Reverted", proof + &first)
            }
            _ => {
                let why = failure.unwrap_or_else(|| "not proven".into());
                self.batch.fail(*pid, &why, self.verbose);
                ("FAILED", format!(": {why}"))
            }
        };
        if self.batch.is_listed(self.verbose) {
            let time = seconds(self.elapsed());
            let place = self.batch.place();
            let text = format!("[{time}] {place}{group} pid {pid}{old}{address}{result}");
            self.line(word, &text);
        } else if self.batch.is_over() {
            self.end_batch();
        }
    }

    /// Counts the successes of a large batch, and names its failures by their reason.
    fn end_batch(&mut self) {
        let batch = self.batch.take();
        let time = seconds(self.elapsed());
        for (word, text) in batch.summary(self.verbose) {
            self.line(word, &format!("[{time}] {text}"));
        }
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
        if is_listed {
            self.list("Refused", &refused);
        }
        let time = seconds(self.elapsed());
        self.line("Summary", &format!("[{time}] {}", end_text(summary)));
        if !summary.run.is_empty() {
            self.line("Run", &summary.run);
        }
        if summary.exit != 0 {
            // The list says why.
            let why = if is_listed && summary.reason == failures(&summary.instances) {
                format!("{} refused", instances(refused.len()))
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

    /// Shows a line for each text; of many, only the first unless every instance is wanted.
    fn list(&self, word: &str, texts: &[String]) {
        let shown = if self.verbose { texts.len() } else { LISTED };
        for text in texts.iter().take(shown) {
            self.line(word, text);
        }
        let more = texts.len().saturating_sub(shown);
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
