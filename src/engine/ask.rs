//! One request to several hosts at once, and what their answers say together.

use std::{cell::RefCell, collections::BTreeSet};

use futures_util::{StreamExt, stream};

use super::{Engine, GateRunner, RunHost};
use crate::{
    event::{Abort, Event, HostState, Instance},
    inventory::HostName,
    protocol::{Concluded, HostLink, Lost, Numbers, SessionAnswer, SessionRequest},
};

/// One host that was asked: its index, the request, and the answer.
type Asked = (usize, SessionRequest, Result<SessionAnswer, Lost>);

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
                    let answer = answer.await;
                    (index, request, answer)
                }
            });
        let mut answers: Vec<Asked> = stream::iter(asked)
            .buffer_unordered(self.options.parallel.max(1))
            .collect()
            .await;
        answers.sort_by_key(|(index, ..)| *index);
        let mut joined = Answers::default();
        for (index, request, answer) in answers {
            let is_sent = answer.as_ref().map_or_else(|lost| lost.is_sent, |_| true);
            let is_commit = matches!(request, SessionRequest::Commit { .. });
            self.plan.hosts[index].is_committed |= is_sent && is_commit;
            match answer {
                Ok(answer) => self.join(index, answer, &mut joined),
                Err(lost) => {
                    // It may have acted.
                    joined.acted |= lost.is_sent;
                    // Without its commit, a host is lost as it would be between two waves.
                    let request = Some(&request).filter(|_| lost.is_sent || !is_commit);
                    self.lose(index, request, lost.why);
                }
            }
        }
        joined
    }

    pub(super) fn join(&mut self, index: usize, answer: SessionAnswer, joined: &mut Answers) {
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
        let name = self.plan.hosts[index].link.name().clone();
        joined
            .instances
            .extend(answer.instances.into_iter().map(|instance| Instance {
                host: name.clone(),
                ..instance
            }));
    }

    /// Counts a host as lost, and reports it; `request` is the one that it was lost in. What it
    /// does since is not known: an instance that the run may have signalled is not proven.
    pub(super) fn lose(&mut self, index: usize, request: Option<&SessionRequest>, why: String) {
        self.plan.hosts[index].lost = Some(why.clone());
        let is_awaited = self.goes_on_after_wave(self.begun_wave);
        let host = &mut self.plan.hosts[index];
        let mut failed = BTreeSet::new();
        if host.is_committed {
            failed = host.fail_unproven(request, is_awaited, &why);
        } else {
            host.skip(&why);
        }
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
