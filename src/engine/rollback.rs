//! Rolls back the instances that failed, or everything that the run touched.

use std::{collections::BTreeSet, time::Instant};

use super::{Engine, fleet_plan::InstanceId, gate_runner::GateRunner};
use crate::{
    event::{Abort, Direction, Event, Verdict},
    inventory::HostName,
    protocol::{HostLink, Scope, SessionRequest},
};

impl<L: HostLink, G: GateRunner, R: FnMut(&HostName, &Event)> Engine<'_, L, G, R> {
    /// Rolls back those of `failed` that may have been signalled, on the hosts that are `meant`.
    ///
    /// # Errors
    /// Fails if a file that other instances are proven on could not be installed again.
    pub(super) async fn roll_back_failed(
        &mut self,
        index: usize,
        failed: &BTreeSet<InstanceId>,
        why: &str,
        meant: impl Fn(usize) -> bool,
    ) -> Result<(), Abort> {
        if self.options.immediate || *self.interrupts.borrow() > 1 {
            return Ok(());
        }
        let until = self.plan.waves[index].number;
        let request = |host: usize| {
            let of_host = failed.range((host, 0)..=(host, u32::MAX));
            SessionRequest::RollBack {
                until,
                scope: Scope::Named(of_host.map(|(_, number)| *number).collect()),
                why: why.to_owned(),
            }
        };
        let answer = self
            .ask_each(request, |index, host| meant(index) && host.is_touched)
            .await;
        if answer.acted {
            self.reason = Some(why.to_owned());
            self.quiet_since = Instant::now();
        }
        answer.abort.map_or(Ok(()), Err)
    }

    /// Rolls everything back on every host, newest wave first, and proves it.
    pub(super) async fn roll_back_all(&mut self, index: usize, why: String) -> Verdict {
        let until = self.plan.waves[index].number;
        self.reason = Some(why.clone());
        let request = SessionRequest::RollBack {
            until,
            scope: Scope::All,
            why,
        };
        // A host that is there again is rolled back with the others, or after them.
        self.rejoin().await;
        // A bake or a gate before it does not make its proofs stale.
        self.quiet_since = Instant::now();
        self.ask(&request, |_| true).await;
        let late = self.rejoin().await.hosts;
        self.ask_each(|_| request.clone(), |host, _| late.contains(&host))
            .await;
        self.final_verdict(Direction::Back).await
    }
}
