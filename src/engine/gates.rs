//! The gates of a wave: commands of the operator that decide whether the run goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use super::{Engine, Escalation, gate_runner::GateRunner};
use crate::{
    event::{Abort, Event, Instance, Phase, Verdict},
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
        let instances = self.instances_before(number, command).await;
        let end = self
            .gate_runner
            .run(command, number, &instances, self.interrupts)
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

    /// Returns the instances of a wave, after those of its earlier rounds that have the same gate.
    async fn instances_before(&mut self, number: usize, command: &[String]) -> Vec<Instance> {
        let mut rounds: BTreeMap<usize, BTreeSet<String>> = BTreeMap::new();
        for group in self
            .plan
            .groups
            .iter()
            .filter(|g| g.rollout.gate == command)
        {
            let earlier = group.rounds.iter().filter(|(_, last)| **last == number);
            for (round, _) in earlier {
                rounds.entry(*round).or_default().insert(group.name.clone());
            }
        }
        let mut instances = Vec::new();
        for (round, groups) in rounds {
            let of_round = self.describe(round).await.into_iter();
            instances.extend(of_round.filter(|instance| groups.contains(&instance.group)));
        }
        instances.extend(self.describe(number).await);
        instances
    }

    async fn describe(&mut self, wave: usize) -> Vec<Instance> {
        let request = SessionRequest::Describe { wave };
        let described = self.ask(&request, |host| host.is_in(wave)).await;
        described.instances
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
