//! Lost hosts that are there again: their own answers replace what the run took them for.

use super::{Engine, RunHost, ask::Answers, fleet_plan::has_failed, gate_runner::GateRunner};
use crate::{
    event::{Event, HostState, Outcome},
    inventory::HostName,
    protocol::{HostLink, Returned, SessionRequest},
};

/// The hosts that are there again.
#[derive(Debug, Default)]
pub(super) struct Rejoined {
    /// Their indices.
    pub(super) hosts: Vec<usize>,
    /// Why one of them did not carry out its request to the end.
    pub(super) abort: Option<crate::event::Abort>,
}

impl<L> RunHost<L> {
    /// Takes back what the loss of the host made of its instances. Returns their numbers.
    fn restore_reported(&mut self) -> Vec<u32> {
        let reported = std::mem::take(&mut self.reported);
        for (number, outcome) in &reported {
            let index = usize::try_from(*number).unwrap_or(usize::MAX);
            if let Some(entry) = self.plan.entries.get_mut(index) {
                entry.outcome = *outcome;
                self.failures.remove(number);
            }
        }
        reported.into_keys().collect()
    }

    /// Returns true if a wave that the run has begun did not reach an instance of it.
    fn has_missed(&self, wave: usize) -> bool {
        let mut entries = self.plan.entries.iter();
        entries.any(|entry| usize::from(entry.wave) == wave && entry.outcome == Outcome::Untouched)
    }
}

impl<L: HostLink, G: GateRunner, R: FnMut(&HostName, &Event)> Engine<'_, L, G, R> {
    /// Looks for lost hosts that are there again. A host that no commit has reached stays out of
    /// the run. Any other one goes on, with the waves that it has missed.
    pub(super) async fn rejoin(&mut self) -> Rejoined {
        let mut rejoined = Rejoined::default();
        for index in 0..self.plan.hosts.len() {
            let host = &mut self.plan.hosts[index];
            if host.is_there() || !host.is_committed {
                continue;
            }
            let name = host.link.name().clone();
            let report = &mut *self.report;
            let mut emit = |event: &Event| report(&name, event);
            if let Some(returned) = host.link.returned(&mut emit).await {
                let answers = self.take_back(index, returned);
                rejoined.abort = rejoined.abort.or(answers.abort);
                rejoined.hosts.push(index);
            }
        }
        rejoined
    }

    /// Takes a host back into the run.
    fn take_back(&mut self, index: usize, returned: Returned) -> Answers {
        let host = &mut self.plan.hosts[index];
        host.lost = None;
        let guessed = host.restore_reported();
        let mut answers = Answers::default();
        if let Some(answer) = returned.answer {
            self.join(index, answer, &mut answers);
        }
        let host = &self.plan.hosts[index];
        let name = host.link.name().clone();
        let is_well = |number: &u32| {
            let entry = host.entry(*number);
            entry.is_some_and(|entry| !has_failed(entry.outcome))
        };
        let well = guessed.iter().copied().filter(is_well);
        self.budget.forgive(well.map(|number| (index, number)));
        let there = Event::Host {
            host: name.clone(),
            state: HostState::Ready,
            why: None,
        };
        (self.report)(&name, &there);
        let host = &self.plan.hosts[index];
        for (_, instance) in host.instances().filter(|(n, _)| guessed.contains(n)) {
            (self.report)(&name, &Event::of(&instance));
        }
        answers
    }

    /// Commits the waves up to that at `index` that hosts have missed while they were lost.
    pub(super) async fn catch_up(&mut self, index: usize, hosts: &[usize]) -> Answers {
        let mut all = Answers::default();
        for at in 0..=index {
            let wave = self.plan.waves[at].number;
            let request = SessionRequest::Commit {
                wave,
                goes_on: true,
            };
            let answers = self
                .ask_each(
                    |_| request.clone(),
                    |host, entry| hosts.contains(&host) && entry.has_missed(wave),
                )
                .await;
            all.abort = all.abort.or(answers.abort);
        }
        all
    }
}
