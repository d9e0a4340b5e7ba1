//! One request to several hosts at once, and what their answers say together.

use std::cell::RefCell;

use futures_util::{StreamExt, stream};

use super::{Engine, GateRunner, RunHost};
use crate::{
    event::{Abort, Event, Instance, Outcome},
    inventory::HostName,
    protocol::{Concluded, HostLink, Lost, Numbers, SessionAnswer, SessionRequest},
};

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
                    let answer = host.link.request(request, interrupts, &mut emit);
                    (index, answer.await)
                }
            });
        let mut answers: Vec<(usize, Result<SessionAnswer, Lost>)> = stream::iter(asked)
            .buffer_unordered(self.options.parallel.max(1))
            .collect()
            .await;
        answers.sort_by_key(|(index, _)| *index);
        let mut joined = Answers::default();
        for (index, answer) in answers {
            match answer {
                Ok(answer) => self.join(index, answer, &mut joined),
                Err(lost) => self.lose(index, lost),
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
    fn lose(&mut self, index: usize, lost: Lost) {
        let begun = self.begun_wave;
        let host = &mut self.plan.hosts[index];
        for (number, entry) in (0..).zip(&mut host.plan.entries) {
            let is_begun = usize::from(entry.wave) <= begun;
            if is_begun && entry.outcome == Outcome::Untouched {
                entry.outcome = Outcome::TimedOut;
                self.failures.insert((index, number), lost.0.clone());
            }
        }
        host.is_touched |= host.is_in(begun);
        host.lost = Some(lost.0);
    }
}
