//! What a run holds on one host: its plan, its locks and staged files, and its journal. It carries
//! out the requests of an engine, which sees none of that.

use std::collections::BTreeSet;

pub(crate) use self::{
    broadcast::{BroadcastOrder, survey_broadcast},
    context::{RunContext, SessionOptions},
    log::EventStore,
    prepared::{Prepared, RunningSession},
    recover::{RecoverOrder, survey_recovery},
};
#[cfg(test)]
use crate::protocol::HostPlan;
use crate::{
    event::{Event, Interrupts, Outcome},
    host::Host,
    inventory::HostName,
    plan::Plan,
    protocol::{HostLink, Lost, Numbers, SessionAnswer, SessionRequest},
    step::{PlannedInstance, Step},
};

mod arrange;
mod broadcast;
mod commit;
mod context;
mod emit;
mod end;
mod explain;
mod finish;
mod host_plan;
mod log;
mod prepared;
mod preview;
mod proofs;
mod record;
mod recover;
mod request;
mod rollback;
mod rows;
mod survey;

/// Instances by their numbers: the place of each in the host plan.
#[derive(Debug, Default)]
struct InstanceNumbers {
    /// The number of each instance, in the order of the waves.
    numbers: Vec<u32>,
    /// The outcome of each, as the coordinator knows it, in the same order.
    reported: Vec<Outcome>,
}

impl InstanceNumbers {
    /// Returns the identities of instances.
    fn ids(&self, plan: &Plan, wanted: &[u32]) -> BTreeSet<(i32, u64)> {
        let wanted: BTreeSet<u32> = wanted.iter().copied().collect();
        instances(plan)
            .zip(&self.numbers)
            .filter(|(_, number)| wanted.contains(number))
            .map(|(m, _)| m.id)
            .collect()
    }
}

fn instances(plan: &Plan) -> impl Iterator<Item = &PlannedInstance> {
    plan.steps().flat_map(|step| &step.instances)
}

/// What one run holds on this host.
#[derive(Debug)]
pub(crate) struct HostSession<J> {
    name: HostName,
    plan: Plan,
    host: Host,
    journal: J,
    /// True once the journal has missed an event.
    journal_failed: bool,
    /// No rollback.
    is_immediate: bool,
    /// The run continues an earlier one, which may have begun any of its steps.
    is_recovering: bool,
    /// The last wave that the run has begun.
    last_wave: usize,
    numbers: InstanceNumbers,
}

impl<J: EventStore> HostSession<J> {
    /// Begins the session of a plan in its waves. `numbers` has the number of each instance in
    /// their order.
    fn begin(
        name: HostName,
        (plan, numbers): (Plan, Vec<u32>),
        host: Host,
        journal: J,
        (is_immediate, is_recovering): (bool, bool),
    ) -> Self {
        let reported = instances(&plan).map(|m| m.instance.outcome).collect();
        Self {
            name,
            plan,
            host,
            journal,
            journal_failed: false,
            is_immediate,
            is_recovering,
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
        let entries = host_plan::host_plan(&plan);
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
        steps.any(|step| request::was_touched(&self.host, step))
    }

    /// Adds the outcomes that differ from those of the answer before.
    fn report_outcomes(&mut self, answer: &mut SessionAnswer) {
        let InstanceNumbers { numbers, reported } = &mut self.numbers;
        let known = numbers.iter().zip(reported);
        for (member, (number, reported)) in instances(&self.plan).zip(known) {
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
