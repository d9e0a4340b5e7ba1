//! A run while it goes on: each event on the screen, or as a line of JSON.

use std::time::Duration;

use super::{
    Output, Reporter,
    batch::Batch,
    lines::{EventLine, line_of},
    phases,
    text::{instances, proof_text, rolled_back_text, seconds, unconfirmed_text, waves_text},
};
use crate::{
    event::{At, Direction, Event, FailureKind, HostState, Outcome, Phase, process},
    inventory::HostName,
    names, screen,
    step::short,
};

impl Reporter {
    /// Shows an event of this machine.
    pub(crate) fn event(&mut self, event: &Event) {
        self.event_of(&HostName::local(), event);
    }

    /// Shows an event of a host.
    pub(crate) fn event_of(&mut self, host: &HostName, event: &Event) {
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
            self.data(&At::of(host, event));
        }
        self.hosts.note(host);
        if let Event::Host { host, state, why } = event {
            return self.host(host, *state, why.as_deref());
        }
        // Events of hosts that are ready come while others are still connected.
        if host.is_local() || self.hosts.has_all() {
            self.end_connecting();
        }
        if let Some(line) = line_of(event) {
            return self.line_of_host(host, line);
        }
        match event {
            Event::Survey { .. } => self.survey(host, event),
            Event::Waves { instances } => {
                self.show_grouped();
                self.waves.clone_from(instances);
            }
            Event::Intent {
                direction,
                wave,
                pids,
                ..
            } => self.intent(host, (*direction, *wave), pids),
            Event::Installed { path, sha256, .. } => {
                let word = if self.batch.direction.is_back() {
                    "Rolled back"
                } else {
                    "Installed"
                };
                let text = format!("{} sha256:{}", path.display(), short(sha256));
                self.line_of_host(host, EventLine::new(word, text));
            }
            Event::RollbackBegan { why } => {
                self.rolling_back(host, &format!("everything: {why}"));
            }
            Event::RolledBack { pids, why } => {
                self.rolling_back(host, &rolled_back_text(pids, why));
            }
            Event::Stopped { why } => {
                self.after_batch("Stopped", &format!("no other instance is signalled: {why}"));
            }
            Event::Armed { seconds } => {
                let text = format!(
                    "each host that is touched rolls back by itself after {seconds}s without a \
                     sign of this command"
                );
                self.line_of_host(host, EventLine::new("Armed", text));
            }
            Event::Baking { wave, seconds } => self.baking(*wave, *seconds),
            Event::Baked { wave, instances } => self.baked(*wave, *instances),
            Event::Gate {
                wave,
                command,
                exit,
                output,
            } => self.gate(*wave, command, *exit, output),
            Event::Instance { .. } => self.instance(host, event),
            _ => {}
        }
    }

    /// Shows a phase while it lasts. The instances of a batch are shown as the batch.
    fn phase(&mut self, phase: Phase, counts: (usize, usize), limit: Option<Duration>) {
        if phase == Phase::Connecting {
            self.hosts.all = counts.1;
            return self.stderr.progress(true, || Some(self.hosts.progress()));
        }
        self.end_connecting();
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

    /// Shows the state of a host. A host without a fault is only counted.
    fn host(&mut self, host: &HostName, state: HostState, why: Option<&str>) {
        if self.hosts.set(host, state, self.verbose) {
            let text = why.map_or_else(|| host.to_string(), |why| format!("{host}: {why}"));
            self.line(state.word(), &text);
        }
        if self.hosts.is_connecting() {
            self.stderr.progress(false, || Some(self.hosts.progress()));
        }
    }

    /// Shows how many hosts are in each state, once no more of them are connected.
    fn end_connecting(&mut self) {
        if let Some(text) = self.hosts.end_text() {
            self.idle();
            self.line("Hosts", &text);
        }
    }

    /// Shows a line of a host. The lines of many hosts wait to be shown together.
    fn line_of_host(&mut self, host: &HostName, line: EventLine) {
        if host.is_local() || self.verbose || !self.hosts.is_large() {
            self.line(line.word, &line.text_of(host));
        } else {
            self.grouped.add(host, line);
        }
    }

    /// Shows the lines that waited.
    fn show_grouped(&mut self) {
        for (word, text) in self.grouped.take() {
            self.line(word, &text);
        }
    }

    fn survey(&mut self, host: &HostName, event: &Event) {
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
        let on = match self.hosts.in_run() {
            _ if !host.is_local() => String::new(),
            0 => " on 1 host".into(),
            hosts => format!(" on {}", screen::counted(hosts, "host")),
        };
        let text = format!("{}{on} ({source})", instances(*count));
        self.line_of_host(host, EventLine::new("Survey", text));
    }

    /// Begins a batch of instances. Those of other hosts in one wave are one batch.
    fn intent(
        &mut self,
        host: &HostName,
        (direction, wave): (Direction, usize),
        pids: &[(i32, u64)],
    ) {
        let instances = pids.iter().map(|(pid, _)| (host.clone(), *pid));
        if host.is_local() {
            self.end_batch();
            self.show_wave(direction, wave, pids.len());
            self.batch = Batch::new(direction, instances);
        } else {
            if !self.batch.is_of_wave(direction, wave) {
                self.end_batch();
                // The instances of a rollback are only known host by host.
                let all = self.waves.get(wave.wrapping_sub(1)).copied();
                let all = all.filter(|_| !direction.is_back()).unwrap_or(0);
                self.show_wave(direction, wave, all);
                self.batch = Batch::of_wave(direction, wave, all);
            }
            self.batch.add(instances);
        }
        self.show_batch();
    }

    fn show_wave(&self, direction: Direction, wave: usize, count: usize) {
        // A rollback is no wave. Neither is a file that is installed again after a partial one.
        if !direction.is_back() && self.waves.len() > 1 && count > 0 {
            let text = format!("{wave}/{}: {}", self.waves.len(), instances(count));
            self.line("Wave", &text);
        }
    }

    /// Ends a batch of signals, and shows why it is rolled back.
    fn rolling_back(&mut self, host: &HostName, text: &str) {
        // Another host may roll back already: its instances are in the batch then.
        if host.is_local() || !(self.batch.is_empty() || self.batch.direction.is_back()) {
            self.end_batch();
        }
        self.line_of_host(host, EventLine::new("Rolling back", text));
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
    fn instance(&mut self, host: &HostName, event: &Event) {
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
        let signalled = successor_of.unwrap_or(*pid);
        self.batch.end(&(host.clone(), signalled));
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
                self.batch.fail((host.clone(), *pid), &why, self.verbose);
                ("FAILED", format!(": {why}"))
            }
        };
        if self.batch.is_listed(self.verbose) {
            self.show_grouped();
            let time = seconds(self.elapsed());
            let place = self.batch.place();
            let process = process(host, *pid);
            let text = format!("[{time}] {place}{group} {process}{old}{address}{result}");
            self.line(word, &text);
        } else if self.batch.is_over() {
            self.end_batch();
        }
    }

    /// Counts the successes of a large batch, and names its failures by their reason.
    pub(super) fn end_batch(&mut self) {
        self.show_grouped();
        let batch = self.batch.take();
        let time = seconds(self.elapsed());
        for (word, text) in batch.summary(self.verbose) {
            self.line(word, &format!("[{time}] {text}"));
        }
    }
}
