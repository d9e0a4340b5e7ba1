//! The gates of a wave: commands of the operator that decide whether the run goes on.

use std::time::Instant;

use super::{Engine, Escalation, log::EventStore};
use crate::{
    event::{Abort, Event, Instance, Phase, Verdict},
    fleet::OnFailure,
    host::GATE_LIMIT,
    plan::Wave,
    step::PlannedInstance,
};

impl<J: EventStore, R: FnMut(&Event)> Engine<'_, J, R> {
    pub(super) async fn gates(&mut self, index: usize) -> Result<(), Escalation> {
        for gate in self.plan.waves[index].gates.clone() {
            self.gate(index, &gate).await?;
        }
        Ok(())
    }

    /// Runs one gate. Every exit status but 0 fails it.
    async fn gate(&mut self, index: usize, command: &[String]) -> Result<(), Escalation> {
        self.log.emit(Event::Phase {
            phase: Phase::Judging,
            done: 0,
            all: 0,
            limit: Some(GATE_LIMIT),
        });
        let wave = &self.plan.waves[index];
        let number = wave.number;
        let instances: Vec<&Instance> = members(wave).map(|m| &m.instance).collect();
        let run = self.options.run;
        let outcome = self
            .host
            .gate(command, run, number, &instances, self.interrupts)
            .await;
        self.quiet_since = Instant::now();
        if outcome.exit != Some(0) {
            self.reason = Some(format!("the gate of wave {number} failed"));
        }
        let event = Event::Gate {
            wave: number,
            command: command.to_vec(),
            exit: outcome.exit,
            output: outcome.output.clone(),
        };
        self.run_gates.push(event.clone());
        self.log.emit(event);
        if *self.interrupts.borrow() > 0 {
            return Err(self.abort_wave(index, Abort::interrupted()).await);
        }
        if outcome.exit == Some(0) {
            return Ok(());
        }
        let wanted = members(&self.plan.waves[index])
            .filter(|m| m.group.rollout.gate == command)
            .map(|m| m.group.rollout.on_failure)
            .max();
        let action = self.allowed_action(index, wanted.unwrap_or(OnFailure::Revert));
        if action == OnFailure::Continue {
            self.gate_failed = true;
            return Ok(());
        }
        let why = outcome.exit.map_or(outcome.output, |code| {
            format!("ended with exit status {code}")
        });
        let why = format!(
            "the gate of wave {number} failed: `{}` {}",
            command.join(" "),
            why.lines().next().unwrap_or_default()
        );
        Err(Escalation {
            abort: Abort::new(Verdict::Refused, why),
            action,
        })
    }
}

fn members(wave: &Wave) -> impl Iterator<Item = &PlannedInstance> {
    wave.steps.iter().flat_map(|s| &s.instances)
}
