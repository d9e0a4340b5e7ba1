//! The session: a plan, a host and a journal, behind the requests of an engine.

use std::collections::BTreeSet;

use super::{log::EventStore, touched::was_touched};
#[cfg(test)]
use crate::protocol::HostPlan;
use crate::{
    event::{Event, Interrupts, Outcome},
    host::Host,
    inventory::HostName,
    plan::Plan,
    protocol::{HostLink, Lost, Numbers, SessionAnswer, SessionRequest},
};

/// Instances by their numbers: the place of each in the host plan.
#[derive(Debug, Default)]
pub(super) struct InstanceNumbers {
    /// The number of each instance, in the order of the waves.
    numbers: Vec<u32>,
    /// The outcome of each, as the coordinator knows it, in the same order.
    reported: Vec<Outcome>,
}

impl InstanceNumbers {
    /// Returns the identities of instances.
    pub(super) fn ids(&self, plan: &Plan, wanted: &[u32]) -> BTreeSet<(i32, u64)> {
        let wanted: BTreeSet<u32> = wanted.iter().copied().collect();
        plan.members()
            .zip(&self.numbers)
            .filter(|(_, number)| wanted.contains(number))
            .map(|(m, _)| m.id)
            .collect()
    }
}

/// What one run holds on this host.
#[derive(Debug)]
pub(crate) struct HostSession<J> {
    name: HostName,
    pub(super) plan: Plan,
    pub(super) host: Host,
    pub(super) journal: J,
    /// True once the journal has missed an event.
    pub(super) journal_failed: bool,
    /// No rollback.
    pub(super) is_immediate: bool,
    /// The run continues an earlier one, which may have begun any of its steps.
    pub(super) is_recovering: bool,
    /// The seconds of the commit-confirmed timer.
    pub(super) armed_s: Option<u64>,
    /// The last wave that the run has begun.
    pub(super) last_wave: usize,
    pub(super) numbers: InstanceNumbers,
}

impl<J: EventStore> HostSession<J> {
    /// Begins the session of a plan in its waves. `numbers` has the number of each instance in
    /// their order.
    pub(super) fn begin(
        name: HostName,
        (plan, numbers): (Plan, Vec<u32>),
        host: Host,
        journal: J,
        (is_immediate, is_recovering): (bool, bool),
    ) -> Self {
        let reported = plan.members().map(|m| m.instance.outcome).collect();
        Self {
            name,
            plan,
            host,
            journal,
            journal_failed: false,
            is_immediate,
            is_recovering,
            armed_s: None,
            last_wave: 0,
            numbers: InstanceNumbers { numbers, reported },
        }
    }

    /// Begins the session of a plan on a scripted host, for a test. Returns it with its entries.
    #[cfg(test)]
    pub(crate) fn scripted(
        (plan, host): (Plan, Host),
        journal: J,
        traits: (bool, bool),
    ) -> (Self, HostPlan) {
        let entries = super::host_plan::host_plan(&plan);
        let numbers = (0..).take(entries.entries.len()).collect();
        let session = Self::begin(HostName::local(), (plan, numbers), host, journal, traits);
        (session, entries)
    }

    /// Returns the plan with its outcomes, and the host.
    #[cfg(test)]
    pub(crate) fn into_parts(self) -> (Plan, Host) {
        (self.plan, self.host)
    }

    /// Tells whether this run has touched an instance or replaced a target.
    pub(crate) fn is_touched(&self) -> bool {
        let mut steps = self.plan.steps();
        steps.any(|step| was_touched(&self.host, step))
    }

    /// Adds the outcomes that differ from those of the answer before.
    pub(super) fn report_outcomes(&mut self, answer: &mut SessionAnswer) {
        let InstanceNumbers { numbers, reported } = &mut self.numbers;
        let known = numbers.iter().zip(reported);
        for (member, (number, reported)) in self.plan.members().zip(known) {
            let outcome = member.instance.outcome;
            if *reported == outcome {
                continue;
            }
            *reported = outcome;
            match answer.outcomes.iter_mut().find(|(o, _)| *o == outcome) {
                Some((_, Numbers(numbers))) => numbers.push(*number),
                None => answer.outcomes.push((outcome, Numbers(vec![*number]))),
            }
            if let Some(failure) = member
                .instance
                .failure
                .as_ref()
                .filter(|_| !member.is_good())
            {
                answer.failures.push((*number, failure.text.clone()));
            }
        }
    }
}

impl<J: EventStore> HostLink for HostSession<J> {
    fn name(&self) -> &HostName {
        &self.name
    }

    fn note(&mut self, event: &Event) {
        self.journal_failed |= self.journal.record(event).is_err();
    }

    fn is_journaled(&self) -> bool {
        !self.journal_failed
    }

    async fn hear(&mut self, _: &mut dyn FnMut(&Event)) -> Result<(), Lost> {
        Ok(())
    }

    async fn request(
        &mut self,
        request: SessionRequest,
        interrupts: &Interrupts,
        emit: &mut dyn FnMut(&Event),
    ) -> Result<SessionAnswer, Lost> {
        let mut interrupts = interrupts.clone();
        Ok(self.carry_out(request, &mut interrupts, emit).await)
    }
}
