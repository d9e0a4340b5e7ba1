//! One request to several hosts at once, and what their answers say together.

use std::cell::RefCell;

use futures_util::{StreamExt, stream};

use super::{Engine, RunHost, gate_runner::GateRunner};
use crate::{
    event::{Abort, Event, HostState, Instance, Outcome},
    inventory::HostName,
    protocol::{Concluded, HostLink, Lost, Numbers, Scope, SessionAnswer, SessionRequest},
};

/// The answers of several hosts to one request.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// The first failure, in the order of the hosts.
    pub(super) abort: Option<Abort>,
    /// True if a host had something to do.
    pub(super) acted: bool,
    /// True if a host was lost.
    pub(super) lost: bool,
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
                let goal = Goal::of(&request);
                async move {
                    let name = host.link.name().clone();
                    let mut emit = |event: &Event| report.borrow_mut()(&name, event);
                    let answer = host.link.request(request, interrupts, &mut emit);
                    (index, goal, answer.await)
                }
            });
        let mut answers: Vec<(usize, Goal, Result<SessionAnswer, Lost>)> = stream::iter(asked)
            .buffer_unordered(self.options.parallel.max(1))
            .collect()
            .await;
        answers.sort_by_key(|(index, ..)| *index);
        let mut joined = Answers::default();
        for (index, goal, answer) in answers {
            match answer {
                Ok(answer) => self.join(index, answer, &mut joined),
                Err(lost) => {
                    joined.lost = true;
                    self.lose(index, &goal, lost);
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
        let failures = answer.failures.into_iter();
        self.failures
            .extend(failures.map(|(number, why)| ((index, number), why)));
        if joined.abort.is_none() {
            joined.abort = answer.abort;
        }
        joined.acted |= answer.acted;
        joined.concluded.extend(answer.concluded);
        joined.instances.extend(answer.instances);
    }

    /// Counts a host as lost. What it does since is not known, so an instance that may have been
    /// signalled is not proven.
    fn lose(&mut self, index: usize, goal: &Goal, lost: Lost) {
        let begun = self.begun_wave;
        let host = &mut self.plan.hosts[index];
        for (number, entry) in (0..).zip(&mut host.plan.entries) {
            let is_begun = usize::from(entry.wave) <= begun;
            let outcome = match goal {
                _ if entry.outcome == Outcome::Untouched && is_begun => Outcome::TimedOut,
                Goal::RollBack(named)
                    if may_be_signalled(entry.outcome)
                        && named.as_ref().is_none_or(|named| named.contains(&number)) =>
                {
                    Outcome::RevertFailed
                }
                _ => continue,
            };
            entry.outcome = outcome;
            self.failures.insert((index, number), lost.0.clone());
        }
        host.is_touched |= host.is_in(begun);
        let event = Event::Host {
            host: host.link.name().clone(),
            state: HostState::Lost,
            why: Some(lost.0.clone()),
        };
        host.lost = Some(lost.0);
        (self.report)(&HostName::local(), &event);
    }
}

/// The part of a request that decides what the loss of its host means.
enum Goal {
    /// A rollback of these instances, or of all.
    RollBack(Option<Vec<u32>>),
    Other,
}

impl Goal {
    fn of(request: &SessionRequest) -> Self {
        match request {
            SessionRequest::RollBack { scope, .. } => Self::RollBack(match scope {
                Scope::Named(numbers) => Some(numbers.clone()),
                Scope::All => None,
            }),
            _ => Self::Other,
        }
    }
}

/// Tells whether a rollback may have signalled an instance with this outcome.
fn may_be_signalled(outcome: Outcome) -> bool {
    !matches!(
        outcome,
        Outcome::Untouched | Outcome::Unchanged | Outcome::Refused | Outcome::Reverted
    )
}
