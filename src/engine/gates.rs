//! The gates of a wave: commands of the operator that decide whether the run goes on.

use std::time::Instant;

use super::{Engine, Escalation, gate_runner::GateRunner};
use crate::{
    event::{Abort, Event, Phase, Verdict},
    fleet::OnFailure,
    inventory::HostName,
    protocol::{HostLink, SessionRequest},
};

impl<L: HostLink, G: GateRunner, R: FnMut(&HostName, &Event)> Engine<'_, L, G, R> {
    pub(super) async fn gates(&mut self, index: usize) -> Result<(), Escalation> {
        for gate in self.plan.waves[index].gates.clone() {
            self.gate(index, &gate).await?;
        }
        Ok(())
    }

    /// Runs one gate. Every exit status but 0 fails it.
    async fn gate(&mut self, index: usize, command: &[String]) -> Result<(), Escalation> {
        let phase = Event::Phase {
            phase: Phase::Judging,
            done: 0,
            all: 0,
            limit: Some(self.gate_runner.limit()),
        };
        (self.report)(&HostName::local(), &phase);
        let number = self.plan.waves[index].number;
        let request = SessionRequest::Describe { wave: number };
        let described = self.ask(&request, |host| host.is_in(number)).await;
        let end = self
            .gate_runner
            .run(command, number, &described.instances, self.interrupts)
            .await;
        self.quiet_since = Instant::now();
        if end.exit != Some(0) {
            self.reason = Some(format!("the gate of wave {number} failed"));
        }
        let event = Event::Gate {
            wave: number,
            command: command.to_vec(),
            exit: end.exit,
            output: end.output.clone(),
        };
        self.run_gates.push(event.clone());
        self.note(&event);
        if *self.interrupts.borrow() > 0 {
            return Err(self.abort_wave(index, Abort::interrupted()).await);
        }
        if end.exit == Some(0) {
            return Ok(());
        }
        let wanted = self.reaction_to(number, command);
        let action = self.allowed_action(wanted.unwrap_or(OnFailure::Revert));
        if action == OnFailure::Continue {
            self.gate_failed = true;
            return Ok(());
        }
        let why = end
            .exit
            .map_or(end.output, |code| format!("ended with exit status {code}"));
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

    /// Returns the reaction of the strictest group of a wave that has this gate.
    fn reaction_to(&self, wave: usize, command: &[String]) -> Option<OnFailure> {
        self.plan
            .entries()
            .filter(|(_, _, entry)| usize::from(entry.wave) == wave)
            .map(|(_, host, entry)| self.plan.policy(host, entry))
            .filter(|rollout| rollout.gate == command)
            .map(|rollout| rollout.on_failure)
            .max()
    }
}
