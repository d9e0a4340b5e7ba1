//! The claims that hold for every run over hosts, however it ended.

use std::collections::BTreeSet;

use super::*;
use crate::event::HostState;

impl HostRan {
    fn runs(&self, instance: &Instance, content: &Content) -> bool {
        self.script.runs.get(&instance.pid) == Some(&content.sha256)
    }

    pub(in super::super) fn has_on_disk(&self, content: &Content) -> bool {
        self.script.files.values().all(|f| *f == content.sha256)
    }

    /// Returns true if its file and each of its instances are old.
    pub(in super::super) fn is_old(&self) -> bool {
        self.has_on_disk(&OLD) && self.instances.iter().all(|i| self.runs(i, &OLD))
    }

    fn is_signalled(&self, pid: i32) -> bool {
        self.script.signals.iter().any(|(of, _)| *of == pid)
    }

    pub(super) fn outcomes(&self) -> Vec<Outcome> {
        self.instances.iter().map(|i| i.outcome).collect()
    }

    fn assert_claims(&self, context: &str) {
        for i in &self.instances {
            let agrees = match i.outcome {
                Outcome::Confirmed | Outcome::Unconfirmed => self.runs(i, &NEW),
                Outcome::Untouched | Outcome::Refused => {
                    self.runs(i, &OLD) && !self.is_signalled(i.pid)
                }
                Outcome::Reverted | Outcome::Rejected => self.runs(i, &OLD),
                _ => true,
            };
            assert!(agrees, "pid {} is not {:?}: {context}", i.pid, i.outcome);
        }
        let mut files = self.script.files.values();
        let is_known = files.all(|f| *f == OLD.sha256 || *f == NEW.sha256);
        assert!(is_known, "a file is neither old nor new: {context}");
    }

    /// Asserts that its journal has an intent for each signal.
    fn assert_intents(&self, context: &str) {
        let mut intended = BTreeSet::new();
        for event in &self.journal {
            if let Event::Intent {
                direction, pids, ..
            } = event
            {
                intended.extend(pids.iter().map(|(pid, _)| (*pid, *direction)));
            }
        }
        let mut signals = self.script.signals.iter();
        let all = signals.all(|signal| intended.contains(signal));
        assert!(all, "a signal without an intent: {context}");
    }
}

impl HostsRan {
    pub(super) fn has_event(&self, is: impl Fn(&Event) -> bool) -> bool {
        self.events.iter().any(|(_, event)| is(event))
    }

    fn is_rolled_back(&self) -> bool {
        self.has_event(|e| matches!(e, Event::RollbackBegan { .. }))
    }

    /// Asserts what holds for every run, however it ended.
    pub(super) fn hold(self, context: impl Fn() -> String) -> Self {
        let hosts = self.hosts.iter();
        let hosts = hosts.map(|h| (h.outcomes(), &h.lost, &h.script.runs, &h.script.files));
        let context = format!(
            "{}\n{:?}\n{:?}\n{:#?}\n{:?}",
            context(),
            self.case,
            self.verdict,
            hosts.collect::<Vec<_>>(),
            self.moments
        );
        for host in &self.hosts {
            host.assert_claims(&context);
            host.assert_intents(&context);
        }
        self.assert_waves_are_in_order(&context);
        self.assert_lost_hosts_are_named(&context);
        if self.verdict.is_err() {
            let is_untouched = |host: &HostRan| host.script.signals.is_empty() && host.is_old();
            assert!(self.hosts.iter().all(is_untouched), "touched: {context}");
            return self;
        }
        assert_eq!(self.verdict, Ok(self.expected_verdict()), "{context}");
        if self.verdict == Ok(Verdict::Reverted) {
            let is_old = self.hosts.iter().all(HostRan::is_old);
            assert!(is_old, "something stays on the new config: {context}");
        }
        if self.is_rolled_back() {
            self.assert_others_are_rolled_back(&context);
        }
        self
    }

    /// The table of exit codes.
    fn expected_verdict(&self) -> Verdict {
        let is_stopped = self.has_event(|e| matches!(e, Event::Stopped { .. }));
        let outcomes: Vec<Outcome> = self.hosts.iter().flat_map(HostRan::outcomes).collect();
        let all = |of: &[Outcome]| outcomes.iter().all(|o| of.contains(o));
        let reads_another = |host: &HostRan| {
            host.outcomes().contains(&Outcome::Confirmed) && !host.has_on_disk(&NEW)
        };
        let mut each = outcomes.iter();
        let is_unproven =
            each.any(|o| matches!(o, Outcome::TimedOut | Outcome::Died | Outcome::RevertFailed));
        let old = [Outcome::Reverted, Outcome::Untouched, Outcome::Refused];
        let is_old = all(&old) && self.hosts.iter().all(|host| host.has_on_disk(&OLD));
        let hosts = self.hosts.iter().enumerate();
        let mut lost = hosts.filter(|(_, host)| host.lost.is_some());
        match () {
            () if lost.any(|(place, _)| self.may_have_begun(place)) => Verdict::Mixed,
            () if is_unproven || self.hosts.iter().any(reads_another) => Verdict::Mixed,
            () if self.is_rolled_back() && !is_old => Verdict::Mixed,
            () if self.is_rolled_back() => Verdict::Reverted,
            () if all(&[Outcome::Confirmed]) && is_stopped => Verdict::Partial,
            () if all(&[Outcome::Confirmed]) => Verdict::Converged,
            () if is_old => Verdict::Reverted,
            () => Verdict::Partial,
        }
    }

    /// Returns true if a commit may have reached a host.
    fn may_have_begun(&self, place: Place) -> bool {
        let is_commit = |m: &Moment| matches!(m, Moment::Asked(of, "commit", _) if *of == place);
        self.moments.iter().any(is_commit)
    }

    /// A host that is lost does not keep the others from being rolled back.
    fn assert_others_are_rolled_back(&self, context: &str) {
        for host in self.hosts.iter().filter(|host| host.lost.is_none()) {
            let can_fail = !host.script.stuck.is_empty() || !host.script.ends.is_empty();
            assert!(
                can_fail || host.is_old(),
                "a host is not rolled back: {context}"
            );
        }
    }

    fn assert_lost_hosts_are_named(&self, context: &str) {
        for (place, host) in self.hosts.iter().enumerate() {
            let is_lost = |(_, event): &&(HostName, Event)| {
                matches!(event, Event::Host { host, state: HostState::Lost, .. }
                    if *host == host_name(place))
            };
            let named = self.events.iter().filter(is_lost).count();
            let is_back = |(_, event): &&(HostName, Event)| {
                matches!(event, Event::Host { host, state: HostState::Ready, .. }
                    if *host == host_name(place))
            };
            let back = self.events.iter().filter(is_back).count();
            assert_eq!(named - back, usize::from(host.lost.is_some()), "{context}");
        }
    }

    /// Asserts that no host begins a wave before each host has ended the one before it, and that
    /// none begins after more failures than the budget bears.
    fn assert_waves_are_in_order(&self, context: &str) {
        let limit = self.case.budget.rounded_down(6);
        let mut open: BTreeSet<(Place, usize)> = BTreeSet::new();
        let mut failed: BTreeSet<(Place, u32)> = BTreeSet::new();
        let mut committed: BTreeSet<Place> = BTreeSet::new();
        let mut skipped: BTreeSet<Place> = BTreeSet::new();
        let mut gone = Vec::new();
        let mut unsent = None;
        let mut last = 0;
        let mut is_over = false;
        for moment in &self.moments {
            match moment {
                Moment::Asked(place, "commit", wave) => {
                    assert!(*wave >= last, "a wave is late: {context}");
                    if *wave > last {
                        gone.extend(unsent.take_if(|(_, of)| *of < *wave).map(|(gone, _)| gone));
                        for (place, begun) in gone.drain(..) {
                            if !committed.contains(&place) {
                                skipped.insert(place);
                                continue;
                            }
                            let numbers = (0..).zip(self.case.waves[place]);
                            let begun = numbers.filter(|(_, wave)| *wave <= begun);
                            failed.extend(begun.map(|(number, _)| (place, number)));
                        }
                        let is_beyond = failed.len() > limit || skipped.len() > self.case.reach;
                        is_over = is_beyond && self.case.then != OnFailure::Continue;
                        // A host that was lost does not answer any more.
                        open.retain(|(place, _)| self.hosts[*place].lost.is_none());
                        assert!(open.is_empty(), "a wave is not proven: {context}");
                    }
                    assert!(!is_over, "a wave begins beyond the budget: {context}");
                    last = *wave;
                    open.insert((*place, *wave));
                    committed.insert(*place);
                }
                Moment::Gone(place) => gone.push((*place, last)),
                // The others of its wave are asked at the same time.
                Moment::Unsent(place, wave) => unsent = Some(((*place, last), *wave)),
                Moment::Answered(place, "commit", wave) => {
                    open.remove(&(*place, *wave));
                }
                Moment::Failed(place, number) => {
                    failed.insert((*place, *number));
                }
                _ => {}
            }
        }
    }
}
