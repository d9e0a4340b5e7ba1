//! Shows a run: plain lines for people on stderr, JSON on stdout. A reader that went away changes nothing.

use std::{collections::BTreeMap, time::Instant};

use serde::Serialize;
use sink::Sink;

use crate::{
    event::{Event, Instance, State, TargetReport, Verdict},
    plan::short,
};

mod sink;

/// Above this many instances, successes are counted instead of listed.
const LISTED: usize = 20;

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

/// The end of a run, as `-o json` prints it.
#[derive(Debug, Serialize)]
pub struct Summary {
    /// Version of this shape.
    pub v: u32,
    /// The run's id; empty when it ended before one began.
    pub run: String,
    /// How it ended.
    pub verdict: Verdict,
    /// Its exit code.
    pub exit: u8,
    /// Why, in one line.
    pub reason: String,
    /// Every target.
    pub targets: Vec<TargetReport>,
    /// Every instance.
    pub instances: Vec<Instance>,
    /// Instances by state.
    pub counts: BTreeMap<State, usize>,
}

/// Prints events and the end of a run.
#[derive(Debug)]
pub struct Reporter {
    output: Output,
    quiet: bool,
    verbose: bool,
    began: Instant,
    shown: usize,
    data: Sink,
    people: Sink,
}

impl Reporter {
    /// A reporter for one run.
    #[must_use]
    pub fn new(output: Output, quiet: bool, verbose: bool) -> Self {
        Self { output, quiet, verbose, began: Instant::now(), shown: 0, data: Sink::stdout(), people: Sink::stderr() }
    }

    /// Shows what happened.
    pub fn event(&mut self, event: &Event) {
        if self.output == Output::Jsonl {
            self.data(event);
        }
        match event {
            Event::Survey { instances, fleet } => {
                let place = fleet.as_ref().map_or("no fleet.toml".into(), |p| p.display().to_string());
                self.line("Survey", &format!("{instances} instances on 1 host ({place})"));
            }
            Event::LeftOut { pid, why } => self.line("Left out", &format!("pid {pid} {why}")),
            Event::Valid { path, sha256, by } => self.line("Valid", &format!("{} sha256:{} by {by}", path.display(), short(sha256))),
            Event::Unvalidated { pid, why } => self.line("Unvalidated", &format!("pid {pid}: {why}")),
            Event::Installed { path, sha256 } => self.line("Installed", &format!("{} sha256:{}", path.display(), short(sha256))),
            Event::UndoBegan { why } => self.line("Undo", why),
            Event::Instance { pid, endpoint, state, trouble, .. } => {
                let good = matches!(state, State::Confirmed | State::Reverted);
                if good {
                    self.shown += 1;
                }
                if good && self.shown > LISTED && !self.verbose {
                    return;
                }
                let word = match state {
                    State::Confirmed => "Confirmed",
                    State::Reverted => "Reverted",
                    _ => "FAILED",
                };
                let why = trouble.as_ref().map_or(String::new(), |t| format!(": {}", t.text));
                self.line(word, &format!("[{:8.3}s] pid {pid} {endpoint}{why}", self.began.elapsed().as_secs_f64()));
            }
            Event::Intent { .. } | Event::Finished { .. } => {}
        }
    }

    /// Shows the end; `hint` is what to do next.
    pub fn finish(&mut self, summary: &Summary, hint: Option<&str>) {
        if self.output != Output::Screen {
            self.data(summary);
        }
        let counts: Vec<String> = summary.counts.iter().map(|(state, n)| format!("{n} {}", name(*state))).collect();
        self.line(
            "Summary",
            &format!(
                "[{:8.3}s] {} instances: {} ({})",
                self.began.elapsed().as_secs_f64(),
                summary.instances.len(),
                verdict(summary.verdict),
                counts.join(", ")
            ),
        );
        if summary.exit != 0 {
            self.people.line(format!("\nerror: {}", summary.reason));
            if let Some(hint) = hint {
                self.people.line(format!("\nhint: {hint}"));
            }
        }
        self.data.close();
        self.people.close();
    }

    /// Text for stdout where it is what the command answers.
    pub fn answer(&self, text: &str) {
        if self.output == Output::Screen {
            self.data.line(text.trim_end().to_owned());
        }
    }

    /// One JSON object on stdout.
    fn data(&self, value: &impl Serialize) {
        if let Ok(line) = serde_json::to_string(value) {
            self.data.line(line);
        }
    }

    fn line(&self, word: &str, text: &str) {
        if !self.quiet {
            self.people.line(format!("{word:>12} {text}"));
        }
    }
}

fn name(state: State) -> String {
    serde_json::to_value(state).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

fn verdict(verdict: Verdict) -> String {
    serde_json::to_value(verdict).ok().and_then(|v| v.as_str().map(|s| s.replace('_', " "))).unwrap_or_default()
}
