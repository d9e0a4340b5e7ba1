//! One request to several hosts at once, and what their answers say together.

use std::{cell::RefCell, collections::BTreeSet};

use futures_util::{StreamExt, stream};

use super::{Engine, GateRunner, RunHost};
use crate::{
    event::{Abort, Event, HostState, Instance, Outcome},
    inventory::HostName,
    protocol::{
        Concluded, HostLink, InstanceEntry, Lost, Numbers, Scope, SessionAnswer, SessionRequest,
    },
};

/// The answer of one host, or the request that it was lost in.
type Answered = Result<SessionAnswer, (SessionRequest, Lost)>;

/// The answers of several hosts to one request.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// The first failure, in the order of the hosts.
    pub(super) abort: Option<Abort>,
    /// True if a host had something to do.
    pub(super) acted: bool,
    pub(super) concluded: Vec<Concluded>,
    pub(super) instances: Vec<Instance>,
}

impl<L: HostLink, G: GateRunner, R: FnMut(&HostName, &Event)> Engine<'_, L, G, R> {
    /// Reports an event of the coordinator, which each host's journal has as well.
    pub(super) fn note(&mut self, event: &Event) {
        (self.report)(&HostName::local(), event);
        for host in self.plan.hosts.iter_mut().filter(|host| host.is_there()) {
            host.link.note(event);
        }
    }

    /// Sends one request to the hosts that are `meant`, and joins their answers.
    pub(super) async fn ask(
        &mut self,
        request: &SessionRequest,
        meant: impl Fn(&RunHost<L>) -> bool,
    ) -> Answers {
        self.ask_each(|_| request.clone(), |_, host| meant(host))
            .await
    }

    /// Sends a request to each host that is `meant`, as many at once as the options say, and joins
    /// their answers.
    pub(super) async fn ask_each(
        &mut self,
        request: impl Fn(usize) -> SessionRequest,
        meant: impl Fn(usize, &RunHost<L>) -> bool,
    ) -> Answers {
        let interrupts = &*self.interrupts;
        let report = RefCell::new(&mut *self.report);
        let asked = self
            .plan
            .hosts
            .iter_mut()
            .enumerate()
            .filter(|(index, host)| host.is_there() && meant(*index, host))
            .map(|(index, host)| {
                let (request, report) = (request(index), &report);
                async move {
                    let name = host.link.name().clone();
                    let mut emit = |event: &Event| report.borrow_mut()(&name, event);
                    let answer = host.link.request(request.clone(), interrupts, &mut emit);
                    let answer = answer.await.map_err(|lost| (request, lost));
                    (index, answer)
                }
            });
        let mut answers: Vec<(usize, Answered)> = stream::iter(asked)
            .buffer_unordered(self.options.parallel.max(1))
            .collect()
            .await;
        answers.sort_by_key(|(index, _)| *index);
        let mut joined = Answers::default();
        for (index, answer) in answers {
            match answer {
                Ok(answer) => self.join(index, answer, &mut joined),
                Err((request, lost)) => {
                    self.lose(index, &request, lost);
                    // It may have acted.
                    joined.acted = true;
                }
            }
        }
        joined
    }

    fn join(&mut self, index: usize, answer: SessionAnswer, joined: &mut Answers) {
        let host = &mut self.plan.hosts[index];
        host.is_touched = answer.is_touched;
        host.can_roll_back = answer.can_roll_back;
        for (outcome, Numbers(numbers)) in answer.outcomes {
            for number in numbers {
                let number = usize::try_from(number).unwrap_or(usize::MAX);
                if let Some(entry) = host.plan.entries.get_mut(number) {
                    entry.outcome = outcome;
                }
            }
        }
        host.failures.extend(answer.failures);
        if joined.abort.is_none() {
            joined.abort = answer.abort;
        }
        joined.acted |= answer.acted;
        joined.concluded.extend(answer.concluded);
        joined.instances.extend(answer.instances);
    }

    /// Counts a host as lost, and reports it. What it does since is not known: an instance that
    /// the request may have signalled is not proven. Every other instance keeps its last outcome.
    fn lose(&mut self, index: usize, request: &SessionRequest, Lost(why): Lost) {
        let host = &mut self.plan.hosts[index];
        let mut failed = BTreeSet::new();
        for (number, entry) in (0..).zip(&mut host.plan.entries) {
            let is_recovered = host.plan.must_record;
            if let Some(outcome) = lost_outcome(request, (number, entry), is_recovered) {
                entry.outcome = outcome;
                failed.insert(number);
                host.failures.insert(number, why.clone());
            }
        }
        if let SessionRequest::Commit { .. } = request {
            host.is_touched = true;
        }
        host.lost = Some(why.clone());
        let name = host.link.name().clone();
        let lost = Event::Host {
            host: name.clone(),
            state: HostState::Lost,
            why: Some(why),
        };
        (self.report)(&name, &lost);
        let host = &self.plan.hosts[index];
        for (_, instance) in host.instances().filter(|(n, _)| failed.contains(n)) {
            (self.report)(&name, &Event::of(&instance));
        }
    }
}

/// Returns the outcome of an instance whose host was lost during a request; none if the request
/// cannot have signalled it. `is_recovered` tells that an earlier run may have signalled it.
fn lost_outcome(
    request: &SessionRequest,
    (number, entry): (u32, &InstanceEntry),
    is_recovered: bool,
) -> Option<Outcome> {
    let is_signalled_back = match request {
        SessionRequest::Commit { wave, .. } => {
            let is_begun = usize::from(entry.wave) == *wave;
            let is_due = is_begun && entry.outcome == Outcome::Untouched;
            return is_due.then_some(Outcome::TimedOut);
        }
        SessionRequest::RollBack { scope, .. } => match (scope, entry.outcome) {
            // Its file may go back now that no instance is proven on it.
            (Scope::Named(_), Outcome::Rejected) => true,
            (Scope::Named(numbers), Outcome::TimedOut) => numbers.contains(&number),
            (Scope::Named(_), _) => false,
            (Scope::All, Outcome::Untouched) => is_recovered,
            (Scope::All, outcome) => {
                let is_settled = [
                    Outcome::Refused,
                    Outcome::Died,
                    Outcome::Reverted,
                    Outcome::RevertFailed,
                ];
                !is_settled.contains(&outcome)
            }
        },
        _ => false,
    };
    is_signalled_back.then_some(Outcome::RevertFailed)
}
