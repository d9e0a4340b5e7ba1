//! The end of a run: the last checks on every host, and their verdict.

use super::{Engine, RunHost, gate_runner::GateRunner};
use crate::{
    event::{Direction, Event, Outcome, Verdict},
    fleet::Unproven,
    inventory::HostName,
    protocol::{HostLink, SessionRequest},
};

impl<L: HostLink, G: GateRunner, R: FnMut(&HostName, &Event)> Engine<'_, L, G, R> {
    /// Returns the verdict of what is there on every host.
    pub(super) async fn final_verdict(&mut self, direction: Direction) -> Verdict {
        self.rejoin().await;
        let fresh = self.fresh_since(self.quiet_since);
        let request = SessionRequest::Conclude { direction, fresh };
        let answer = self.ask(&request, |_| true).await;
        self.unprove_lost();
        // A lost host leaves its outcomes. Its targets are not known after a commit.
        let mut is_known = !self.plan.hosts.iter().any(RunHost::is_unknown);
        let has_skipped = self.plan.hosts.iter().any(RunHost::is_skipped);
        let mut is_new = false;
        let mut ends: Vec<(Outcome, Unproven)> = Vec::new();
        for concluded in answer.concluded {
            is_known &= concluded.is_known;
            is_new |= concluded.is_new;
            if concluded.unseen.is_some() {
                self.reason = concluded.unseen;
            }
            ends.extend(concluded.ends);
        }
        match Verdict::of(ends, direction.is_back()) {
            _ if !is_known => Verdict::Mixed,
            // No instance runs the new config, but it is on disk: the next process that starts
            // would load it.
            Verdict::Reverted if !direction.is_back() && is_new => Verdict::Partial,
            Verdict::Converged | Verdict::Unproven if has_skipped => Verdict::Partial,
            verdict => verdict,
        }
    }

    /// Looks at every instance once more, and touches nothing.
    pub(super) async fn final_check(&mut self) {
        let fresh = self.fresh_since(self.quiet_since);
        self.ask(&SessionRequest::FinalCheck { fresh }, |_| true)
            .await;
        self.unprove_lost();
    }

    /// Takes the proofs of the new config from the instances of lost hosts: nothing has looked at
    /// them at the end.
    fn unprove_lost(&mut self) {
        for host in &mut self.plan.hosts {
            host.unprove();
        }
    }
}
