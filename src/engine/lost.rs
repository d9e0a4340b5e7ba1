//! Hosts that are lost: those that no commit has reached are skipped, within a budget of their own.
//! Of every other host, the instances that the run may have signalled are not proven.

use std::{cell::RefCell, collections::BTreeSet};

use futures_util::future::join_all;

use super::{Engine, Escalation, FleetPlan, GateRunner, RunHost};
use crate::{
    event::{Abort, Event, Outcome, Verdict},
    fleet::{OnFailure, Share},
    inventory::HostName,
    names,
    protocol::{HostLink, InstanceEntry, Scope, SessionRequest},
};

/// The number of hosts that a run may go without.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReachBudget {
    /// The limit, over all hosts of the run.
    pub(crate) max: Share,
    /// The hosts of the run.
    pub(crate) hosts: usize,
    /// Those of them that did not greet.
    pub(crate) unreachable: usize,
}

impl ReachBudget {
    /// Returns how many more hosts the run may lose before they are touched.
    pub(crate) fn left(self) -> usize {
        let most = self.max.rounded_down(self.hosts);
        most.saturating_sub(self.unreachable)
    }

    /// Returns the limit as the end of a sentence; empty if no host may be missing.
    pub(crate) fn text(self) -> String {
        match self.max {
            Share::Count(0) => String::new(),
            max @ Share::Count(_) => format!("; `max_unreachable` is {max}"),
            max => format!(
                "; `max_unreachable` is {max}, which is {} of {} hosts",
                max.rounded_down(self.hosts),
                self.hosts
            ),
        }
    }
}

impl<L> RunHost<L> {
    /// Returns true if it was lost before a commit could reach it: nothing was touched there.
    pub(crate) fn is_skipped(&self) -> bool {
        self.lost.is_some() && !self.is_committed
    }

    /// Takes a lost host that no commit has reached out of the run. An instance that the run before
    /// this one may have signalled is not proven.
    pub(crate) fn skip(&mut self, why: &str) {
        self.lost = Some(why.to_owned());
        let is_recovered = self.plan.must_record;
        for (number, entry) in (0..).zip(&mut self.plan.entries) {
            entry.wave = 0;
            match entry.outcome {
                Outcome::Untouched if is_recovered => {
                    entry.outcome = Outcome::TimedOut;
                    let why = format!("lost: {why}; an earlier run may have signalled it");
                    self.failures.insert(number, why);
                }
                // It ran the new config at the survey, and is not looked at once more.
                Outcome::Unchanged => entry.outcome = Outcome::Untouched,
                _ => {}
            }
        }
    }

    /// Returns true if the run has lost it, and what it left there is not known.
    pub(super) fn is_unknown(&self) -> bool {
        self.lost.is_some() && (self.is_committed || self.plan.must_record)
    }

    /// Takes the proofs from its instances, if the run has lost it after a commit.
    pub(super) fn unprove(&mut self) {
        let Some(why) = self.lost.clone().filter(|_| self.is_committed) else {
            return;
        };
        for (number, entry) in (0..).zip(&mut self.plan.entries) {
            if let Some(outcome) = lost_proof(entry.outcome) {
                entry.outcome = outcome;
                let why = format!("lost: {why}; it was not checked at the end");
                self.failures.entry(number).or_insert(why);
            }
        }
    }

    /// Fails each instance that the run may have signalled and that is not proven now that the host
    /// is lost. Returns their numbers.
    pub(super) fn fail_unproven(
        &mut self,
        request: Option<&SessionRequest>,
        is_awaited: bool,
        why: &str,
    ) -> BTreeSet<u32> {
        let is_recovered = self.plan.must_record;
        let mut failed = BTreeSet::new();
        for (number, entry) in (0..).zip(&mut self.plan.entries) {
            let signalled =
                request.and_then(|request| lost_outcome(request, (number, entry), is_recovered));
            // A later wave waits for this proof. At the end, the last one counts.
            let proof = || lost_proof(entry.outcome).filter(|_| is_awaited && checks(request));
            let outcome = signalled.or_else(proof);
            if let Some(outcome) = outcome {
                self.reported.entry(number).or_insert(entry.outcome);
                entry.outcome = outcome;
                failed.insert(number);
                self.failures.insert(number, format!("lost: {why}"));
            }
        }
        if let Some(SessionRequest::Commit { .. }) = request {
            self.is_touched = true;
        }
        failed
    }
}

impl<L: HostLink> FleetPlan<L> {
    /// Returns a sentence about the hosts that are skipped.
    fn skipped_hosts(&self) -> String {
        let skipped = self.hosts.iter().filter(|host| host.is_skipped());
        let texts = skipped.map(|host| {
            let why = host.lost.as_deref().unwrap_or_default();
            format!("{}: {why}", host.link.name())
        });
        names::list(texts, "; ", names::MOST)
    }

    /// Returns the reaction of the strictest group of the hosts that are skipped.
    fn reaction_to_skipped(&self) -> OnFailure {
        let entries = self.entries().filter(|(_, host, _)| host.is_skipped());
        let reactions = entries.map(|(_, host, entry)| self.policy(host, entry).on_failure);
        reactions.max().unwrap_or(OnFailure::Revert)
    }
}

impl<L: HostLink, G: GateRunner, R: FnMut(&HostName, &Event)> Engine<'_, L, G, R> {
    /// Waits until every host is there again or lost, before the wave after that at `index`: a host
    /// that is lost must not be found out while the others of its wave are touched.
    pub(super) async fn settle(&mut self, index: usize) -> Result<(), Escalation> {
        let interrupts = &*self.interrupts;
        let report = RefCell::new(&mut *self.report);
        let hosts = self.plan.hosts.iter_mut().enumerate();
        let settled = hosts.filter(|(_, host)| host.is_there()).map(|(at, host)| {
            let report = &report;
            async move {
                let name = host.link.name().clone();
                let mut emit = |event: &Event| report.borrow_mut()(&name, event);
                let settled = host.link.settle(interrupts, &mut emit).await;
                settled.err().map(|lost| (at, lost.why))
            }
        });
        let lost = join_all(settled).await.into_iter().flatten().collect();
        self.go_on_without(index, lost).await
    }

    /// Looks whether every host is still there, in the bake of the wave at `index`.
    pub(super) async fn hear(&mut self, index: usize) -> Result<(), Escalation> {
        let hosts = self.plan.hosts.iter_mut().enumerate();
        let report = &mut *self.report;
        let mut lost = Vec::new();
        for (at, host) in hosts.filter(|(_, host)| host.is_there()) {
            let name = host.link.name().clone();
            let mut emit = |event: &Event| report(&name, event);
            if let Err(why) = host.link.hear(&mut emit).await {
                lost.push((at, why.why));
            }
        }
        self.go_on_without(index, lost).await
    }

    /// Counts hosts as lost, and takes back those that are there again.
    async fn go_on_without(
        &mut self,
        index: usize,
        lost: Vec<(usize, String)>,
    ) -> Result<(), Escalation> {
        for (at, why) in lost {
            self.lose(at, None, why);
        }
        self.ensure_reached()?;
        if self.begun_wave == 0 {
            return Ok(());
        }
        let rejoined = self.rejoin().await;
        let missed = self.catch_up(index, &rejoined.hosts).await;
        if let Some(abort) = rejoined.abort.or(missed.abort) {
            return Err(self.abort_wave(index, abort).await);
        }
        self.apply_budget(index).await
    }

    /// Holds the hosts that were lost before they were touched against their budget.
    ///
    /// # Errors
    /// Fails if they are too many, or if no host is left.
    pub(super) fn ensure_reached(&self) -> Result<(), Escalation> {
        let skipped = self.plan.hosts.iter().filter(|host| host.is_skipped());
        let count = skipped.count();
        let touched = self.touched_anything();
        let is_alone = !touched && count == self.plan.hosts.len();
        if count == 0 || (count <= self.options.reach.left() && !is_alone) {
            return Ok(());
        }
        let action = self.allowed_action(self.plan.reaction_to_skipped());
        if touched && action == OnFailure::Continue {
            return Ok(());
        }
        let budget = self.options.reach.text();
        let why = format!("{}{budget}", self.plan.skipped_hosts());
        Err(Escalation {
            abort: Abort::new(Verdict::Unreachable, why),
            action,
        })
    }
}

/// Tells whether a run that loses a host in this request still goes on to later waves.
fn checks(request: Option<&SessionRequest>) -> bool {
    match request {
        None | Some(SessionRequest::Recheck { .. } | SessionRequest::Describe { .. }) => true,
        Some(SessionRequest::RollBack { scope, .. }) => matches!(scope, Scope::Named(_)),
        Some(_) => false,
    }
}

/// Returns the outcome of an instance that was proven, now that its host is lost.
fn lost_proof(outcome: Outcome) -> Option<Outcome> {
    let is_new = matches!(outcome, Outcome::Confirmed | Outcome::Unconfirmed);
    is_new.then_some(Outcome::TimedOut)
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
