//! Shows a run: lines for people on stderr, JSON on stdout. A reader that went away changes
//! nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use serde::Serialize;

pub(crate) use self::names::named;
use self::{
    lines::line_of,
    names::{LISTED, NAMED, and_more, instances},
    summary::name,
};
pub use self::{
    refusal::refused,
    summary::{CommandContext, Summary, WaveReport},
};
use crate::{
    event::{Event, FailureKind, Outcome, Phase, Proof},
    screen::{self, Progress, Sink},
    step::short,
};

mod lines;
mod names;
mod refusal;
mod summary;
#[cfg(test)]
mod tests;

/// What stdout carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Nothing; people read stderr.
    Screen,
    /// One object at the end.
    Json,
    /// The events as they happen, then the same object.
    Jsonl,
}

/// Prints events and the end of a run.
#[derive(Debug)]
pub struct Reporter {
    output: Output,
    quiet: bool,
    verbose: bool,
    began: Instant,
    /// How many waves the run has.
    waves: usize,
    /// The time of day, and since the run began, where that is not now.
    past: Option<(String, Duration)>,
    /// Instances of the batch that runs now, and how many of them have ended.
    batch: (usize, usize),
    /// Those of the batch that have not ended, and since when they are awaited.
    awaited: (BTreeSet<i32>, Instant),
    undo: bool,
    /// Failures of a large fleet by their text, to be named together.
    failures: BTreeMap<String, Vec<i32>>,
    data: Sink,
    people: Sink,
}

impl Reporter {
    /// A reporter for one run.
    #[must_use]
    pub fn new(output: Output, quiet: bool, verbose: bool) -> Self {
        Self {
            output,
            quiet,
            verbose,
            began: Instant::now(),
            waves: 0,
            past: None,
            batch: (0, 0),
            awaited: (BTreeSet::new(), Instant::now()),
            undo: false,
            failures: BTreeMap::new(),
            data: Sink::stdout(),
            people: Sink::stderr(!quiet),
        }
    }

    /// A reporter of what happened once: on stdout, every instance a line, and each line with its
    /// time.
    #[must_use]
    pub fn for_replay() -> Self {
        Self {
            past: Some(Default::default()),
            people: Sink::stdout(),
            ..Self::new(Output::Screen, false, true)
        }
    }

    /// When the next line happened: the time of day, and since the run began.
    pub fn set_time(&mut self, clock: String, elapsed: Duration) {
        self.past = Some((clock, elapsed));
    }

    fn elapsed(&self) -> Duration {
        self.past
            .as_ref()
            .map_or_else(|| self.began.elapsed(), |(_, elapsed)| *elapsed)
    }

    /// Shows what happened.
    pub fn event(&mut self, event: &Event) {
        if let Event::Phase { phase, done, all } = event {
            return self
                .people
                .progress(*done == 0, || Some(progress_of(*phase, *done, *all)));
        }
        if self.output == Output::Jsonl {
            self.data(event);
        }
        if let Some((word, text)) = line_of(event) {
            return self.line(word, &text);
        }
        match event {
            Event::Survey { instances, fleet } => {
                self.idle();
                let place = fleet
                    .as_ref()
                    .map_or("no fleet.toml".into(), |p| p.display().to_string());
                let found = self::instances(*instances);
                self.line("Survey", &format!("{found} on 1 host ({place})"));
            }
            Event::Waves { instances } => self.waves = instances.len(),
            Event::Intent {
                undo, wave, pids, ..
            } => self.intent(*undo, *wave, pids),
            Event::Installed { path, sha256 } => {
                let word = if self.undo { "Put back" } else { "Installed" };
                let text = format!("{} sha256:{}", path.display(), short(sha256));
                self.line(word, &text);
            }
            Event::RollbackBegan { why } => {
                self.flush();
                self.line("Undo", why);
            }
            Event::RolledBack { pids, why } => {
                self.flush();
                self.line("Undo alone", &rolled_back_text(pids, why));
            }
            Event::Stopped { why } => {
                self.flush();
                self.line("Stopped", &format!("nobody else is signalled: {why}"));
            }
            Event::Baking { wave, seconds } => {
                self.flush();
                let text = format!("wave {wave} is left alone for {seconds}s");
                self.line("Baking", &text);
                self.people
                    .progress(true, || Some(Progress::of("Baking", text)));
            }
            Event::Baked { wave, instances } => {
                self.flush();
                self.idle();
                let (at, many) = (seconds(self.elapsed()), self::instances(*instances));
                let waves = wave_text(*wave);
                let text = format!("[{at}] {many} of wave {waves} still on the new config");
                self.line("Held", &text);
            }
            Event::Gate {
                wave,
                command,
                exit,
                output,
            } => self.gate((*wave, command), *exit, output),
            Event::Instance { .. } => self.ended(event),
            // Lines without a state were shown already; the others are nothing for people.
            Event::Skipped { .. }
            | Event::Gone { .. }
            | Event::Insecure { .. }
            | Event::NotHeldBefore { .. }
            | Event::NotOpened { .. }
            | Event::Unvalidated { .. }
            | Event::Unresponsive { .. }
            | Event::ForeignLock { .. }
            | Event::LeftBeside { .. }
            | Event::LateEdit { .. }
            | Event::NotHeld { .. }
            | Event::Valid { .. }
            | Event::NoRollbackContent { .. }
            | Event::Superseded { .. }
            | Event::NotPruned { .. } => {}
            Event::Phase { .. }
            | Event::FinalCheck
            | Event::SupersededBy { .. }
            | Event::Finished { .. } => {}
        }
    }

    /// Begins a batch of instances.
    fn intent(&mut self, undo: bool, wave: usize, pids: &[(i32, u64)]) {
        self.flush();
        // The way back, and a file that is installed again after one was put back alone, are no
        // wave.
        if !undo && self.waves > 1 && !pids.is_empty() {
            let text = format!("{wave}/{}: {}", self.waves, instances(pids.len()));
            self.line("Wave", &text);
        }
        (self.undo, self.batch) = (undo, (pids.len(), 0));
        self.awaited = (pids.iter().map(|(pid, _)| *pid).collect(), Instant::now());
        self.bar();
    }

    /// Shows the verdict of a gate, and the beginning of what it printed.
    fn gate(&mut self, (wave, command): (usize, &[String]), exit: Option<i32>, output: &str) {
        self.flush();
        self.idle();
        let said = match exit {
            Some(0) => "says yes".into(),
            Some(code) => format!("says no (exit status {code})"),
            None => "has not judged it, which is no".into(),
        };
        let word = if exit == Some(0) { "Gate" } else { "FAILED" };
        let (at, command) = (seconds(self.elapsed()), command.join(" "));
        self.line(
            word,
            &format!("[{at}] gate of wave {wave}: `{command}` {said}"),
        );
        for line in output.lines().take(NAMED) {
            self.line("", &format!("| {line}"));
        }
        let more = output.lines().count().saturating_sub(NAMED);
        if more > 0 {
            let lines = if more == 1 { "line" } else { "lines" };
            self.line("", &format!(".. and {more} more {lines}"));
        }
    }

    /// Shows how an instance ended.
    fn ended(&mut self, event: &Event) {
        let Event::Instance {
            group,
            pid,
            endpoint,
            moved_from,
            successor_of,
            outcome: state,
            proof,
            draining,
            failure: trouble,
            ..
        } = event
        else {
            return;
        };
        let place = match moved_from {
            Some(from) => format!(" {from} moved to {endpoint}"),
            None if endpoint.is_empty() => String::new(),
            None => format!(" {endpoint}"),
        };
        let is_silent = |kind| *state == Outcome::Unconfirmed && kind == FailureKind::Unresponsive;
        let silent = trouble.as_ref().filter(|t| is_silent(t.kind));
        let silent = silent.map(|t| format!("silent before the run: {}", t.text));
        let text = trouble.as_ref().map(|t| t.text.as_str());
        let end = (
            *state,
            proof_text(*proof, draining),
            silent.as_deref().or(text),
        );
        self.awaited.0.remove(&successor_of.unwrap_or(*pid));
        let old = successor_of.map(|old| format!(" in the place of pid {old}"));
        let old = old.unwrap_or_default();
        self.instance(*pid, &format!("{group} pid {pid}{old}{place}"), end);
    }

    fn instance(
        &mut self,
        pid: i32,
        who: &str,
        (state, proven, trouble): (Outcome, String, Option<&str>),
    ) {
        self.batch.1 += 1;
        self.bar();
        let (all, done) = self.batch;
        // Who came meanwhile, or is told once more, was not counted beforehand.
        let more = done.saturating_sub(all);
        let at = seconds(self.elapsed());
        let listed = self.verbose || (all <= LISTED && more <= LISTED);
        let (word, why) = match state {
            Outcome::Confirmed => ("Confirmed", proven),
            Outcome::Unconfirmed => ("Signalled", unconfirmed_text(trouble)),
            Outcome::Reverted => (
                "Reverted",
                proven + &trouble.map_or(String::new(), |t| format!(" (first: {t})")),
            ),
            _ => ("FAILED", format!(": {}", trouble.unwrap_or("not proven"))),
        };
        if listed {
            let place = if more == 0 {
                format!("({done}/{all}) ")
            } else {
                String::new()
            };
            self.line(word, &format!("[{at}] {place}{who}{why}"));
        } else if word == "FAILED" {
            // The pid of the text is what makes equal reasons different.
            self.failures
                .entry(
                    trouble
                        .unwrap_or("not proven")
                        .replace(&format!("pid {pid} "), ""),
                )
                .or_default()
                .push(pid);
        }
        if !listed && done == all {
            self.flush();
        }
    }

    /// Names the failures of a large batch by their reason, and counts its successes.
    fn flush(&mut self) {
        let (all, done) = std::mem::take(&mut self.batch);
        let failures = std::mem::take(&mut self.failures);
        let at = seconds(self.elapsed());
        if all > LISTED && !self.verbose && done > 0 {
            let failed: usize = failures.values().map(Vec::len).sum();
            self.line(
                if self.undo { "Reverted" } else { "Confirmed" },
                &format!("[{at}] ({done}/{all}) {}", instances(done - failed)),
            );
        }
        for (why, pids) in failures {
            self.line(
                "FAILED",
                &format!(
                    "[{at}] {}: {why}: pid {}",
                    instances(pids.len()),
                    named(&pids)
                ),
            );
        }
    }

    /// Shows the end.
    pub fn finish(&mut self, summary: &Summary) {
        self.flush();
        self.batch = (0, 0);
        self.idle();
        if self.output != Output::Screen {
            self.data(summary);
        } else if summary.dry_run_text {
            self.data.line(summary.rehearsal(self.verbose).trim_end());
        }
        if summary.exit == 0 && summary.run.is_empty() && !summary.dry_run_text {
            self.line("Unchanged", &summary.reason);
        }
        let counts: Vec<String> = summary
            .counts
            .iter()
            .map(|(state, n)| format!("{n} {}", name(state)))
            .collect();
        let counts = if counts.is_empty() {
            String::new()
        } else {
            format!(" ({})", counts.join(", "))
        };
        let (n, verdict) = (
            summary.instances.len(),
            if summary.dry_run_text {
                "dry run".into()
            } else {
                name(summary.verdict)
            },
        );
        // Before anything was touched, nobody's state is more than what the error says.
        let n = if n == 0 {
            String::new()
        } else {
            format!("{}: ", instances(n))
        };
        self.line(
            "Summary",
            &format!("[{}] {n}{verdict}{counts}", seconds(self.elapsed())),
        );
        if summary.exit != 0 {
            self.people
                .line(&format!("\n{}", screen::failure(&summary.reason)));
            if let Some(hint) = summary.hint() {
                self.people
                    .line(&format!("\n{}", screen::hint(&hint.what, &hint.commands)));
            }
        }
        self.close();
    }

    /// Waits until the readers have taken everything, as long as that is of use.
    pub fn close(&mut self) {
        self.data.close();
        self.people.close();
    }

    /// One JSON object on stdout.
    fn data(&self, value: &impl Serialize) {
        if let Ok(line) = serde_json::to_string(value) {
            self.data.data(line);
        }
    }

    /// Shows how far the batch is, and which of its instances is awaited.
    fn bar(&self) {
        let (all, done) = self.batch;
        self.people.progress(done == 0 || done >= all, || {
            let word = if self.undo { "Reverting" } else { "Confirming" };
            let (left, since) = &self.awaited;
            let more = and_more(left.len().saturating_sub(1));
            match left.first() {
                Some(pid) if done < all => Some(Progress {
                    done,
                    all,
                    awaited: Some((format!("pid {pid}{more}"), *since)),
                    ..Progress::of(word, "")
                }),
                // The last look, and what follows it, may take their time.
                _ if all > 0 => Some(Progress::of("Checking", "")),
                _ => None,
            }
        });
    }

    /// Nothing is waited for.
    fn idle(&self) {
        self.people.progress(true, || None);
    }

    /// One line for people.
    pub fn line(&self, word: &str, text: &str) {
        match &self.past {
            Some((clock, _)) => self.people.line(&format!(
                "{clock} {}",
                screen::worded(word, &screen::line(text))
            )),
            None if self.quiet => {}
            None => self.people.line(&screen::worded(word, text)),
        }
    }
}

/// How a part of a run is shown while it lasts. Of what is counted, the one that is under way is
/// named.
fn progress_of(phase: Phase, done: usize, all: usize) -> Progress {
    let word = match phase {
        Phase::Surveying => "Surveying",
        Phase::Staging => "Staging",
        Phase::Validating => "Validating",
        Phase::Judging => "Gate",
    };
    Progress {
        done: (done + 1).min(all),
        all,
        ..Progress::of(word, "")
    }
}

/// What proved it, where that is less than its own word on the very bytes; and who will end later.
fn proof_text(proof: Option<Proof>, draining: &[i32]) -> String {
    let by = match proof {
        None | Some(Proof::Exact | Proof::None) => String::new(),
        Some(proof) => format!(" by {}", name(proof)),
    };
    let drains = draining
        .iter()
        .map(|pid| format!("pid {pid}"))
        .collect::<Vec<_>>()
        .join(", ");
    if drains.is_empty() {
        by
    } else {
        format!("{by}; draining: {drains}")
    }
}

/// Why an instance that lives, and of which no fault was seen, is not proven.
fn unconfirmed_text(trouble: Option<&str>) -> String {
    let why = trouble.unwrap_or("nothing that can be seen of it proves it");
    format!(": it lives, and its config is not proven: {why}")
}

/// All waves from the first.
fn wave_text(wave: usize) -> String {
    if wave == 1 {
        "1".into()
    } else {
        format!("1 to {wave}")
    }
}

/// Who is put back alone, and why; the reason names who was the first.
fn rolled_back_text(pids: &[i32], why: &str) -> String {
    match pids {
        [] => format!("nobody was signalled, so only files go back: {why}"),
        [one] if why.starts_with(&format!("pid {one}:")) => why.into(),
        all => format!("pid {} ({why})", named(all)),
    }
}

fn seconds(elapsed: Duration) -> String {
    format!("{:8.3}s", elapsed.as_secs_f64())
}
