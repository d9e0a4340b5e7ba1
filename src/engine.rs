//! Carries out a prepared plan over its hosts, wave by wave. An instance that fails within the
//! budget is rolled back alone, at once. Past the budget the run rolls everything back, stops, or
//! continues.
//!
//! The engine sees entries and answers. Processes, files and journals belong to the hosts.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use self::budget::{Budget, FailedInstances};
pub(crate) use self::{
    fleet_plan::{FleetPlan, FleetWave, GroupPolicy, RunHost},
    gate_runner::{GateEnd, GateRunner},
    lost::ReachBudget,
};
use crate::{
    event::{Abort, Direction, Event, Interrupts, Outcome, Verdict},
    fleet::OnFailure,
    inventory::HostName,
    protocol::{Freshness, HostLink, Moment, SessionRequest},
};

mod ask;
mod budget;
mod end;
mod fleet_plan;
mod gate_runner;
mod gates;
mod lost;
mod rejoin;
mod rollback;
#[cfg(test)]
mod tests;

/// The age up to which a proof counts as one of the end of the run.
const MAX_AGE: Duration = Duration::from_secs(1);
/// Added to that age for every instance: the proofs of ten thousand instances cannot all be of the
/// same second.
const MAX_AGE_PER_INSTANCE: Duration = Duration::from_millis(1);

/// The time between two looks at the hosts in a bake: that between two signs of life of an agent.
const LISTEN: Duration = Duration::from_secs(5);

/// How a plan is carried out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EngineOptions {
    /// No bake, no gate, and no rollback.
    pub(crate) immediate: bool,
    /// The hosts that work on one request at once.
    pub(crate) parallel: usize,
    /// The hosts that may be lost before they are touched.
    pub(crate) reach: ReachBudget,
}

/// A failure that ends the run, and the action that follows: `Stop` or `Revert`.
struct Escalation {
    abort: Abort,
    action: OnFailure,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub(crate) struct RunEnd {
    /// The verdict of what was seen at the end.
    pub(crate) verdict: Verdict,
    /// Why the run is not converged; none where only the outcomes tell.
    pub(crate) reason: Option<String>,
    /// The result of each gate, as its event.
    pub(crate) gates: Vec<Event>,
}

struct Engine<'a, L, G, R> {
    plan: &'a mut FleetPlan<L>,
    options: EngineOptions,
    interrupts: &'a mut Interrupts,
    gate_runner: &'a mut G,
    report: &'a mut R,
    budget: Budget,
    /// The number of the last wave that was begun.
    begun_wave: usize,
    /// See [`RunEnd`].
    reason: Option<String>,
    run_gates: Vec<Event>,
    /// The first failure that the run continued after.
    first_tolerated: Option<Abort>,
    /// A gate failed, and the run continued.
    gate_failed: bool,
    /// The last end of a slow action: a bake, a gate, a rollback. A proof from before that is
    /// stale.
    quiet_since: Instant,
}

/// Runs a prepared plan. The verdict is what was seen at the end. Each event goes to `report`
/// with its host; those of the engine itself are of `local`.
///
/// # Errors
/// Fails if the run ended before it touched anything.
pub(crate) async fn run<L: HostLink, G: GateRunner, R: FnMut(&HostName, &Event)>(
    plan: &mut FleetPlan<L>,
    options: EngineOptions,
    interrupts: &mut Interrupts,
    gate_runner: &mut G,
    report: &mut R,
) -> Result<RunEnd, Abort> {
    let budget = Budget::of(plan);
    let mut engine = Engine {
        plan,
        options,
        interrupts,
        gate_runner,
        report,
        budget,
        begun_wave: 0,
        reason: None,
        run_gates: Vec::new(),
        first_tolerated: None,
        gate_failed: false,
        quiet_since: Instant::now(),
    };
    let verdict = engine.run().await?;
    Ok(RunEnd {
        verdict,
        reason: engine.reason,
        gates: engine.run_gates,
    })
}

impl<L: HostLink, G: GateRunner, R: FnMut(&HostName, &Event)> Engine<'_, L, G, R> {
    async fn run(&mut self) -> Result<Verdict, Abort> {
        for index in 0..self.plan.waves.len() {
            let begun = index.saturating_sub(1);
            if let Err(escalation) = self.settle(begun).await {
                return self.escalate(begun, escalation).await;
            }
            if let Err(escalation) = self.wave(index).await {
                return self.escalate(index, escalation).await;
            }
        }
        if let Some(abort) = self
            .first_tolerated
            .take()
            .filter(|_| !self.touched_anything())
        {
            return Err(abort);
        }
        match self.final_verdict(Direction::Forward).await {
            Verdict::Converged | Verdict::Unproven if self.gate_failed => Ok(Verdict::Partial),
            verdict => Ok(verdict),
        }
    }

    /// Ends the run after a failure in the wave at `index`.
    async fn escalate(
        &mut self,
        index: usize,
        Escalation { abort, action }: Escalation,
    ) -> Result<Verdict, Abort> {
        if !self.touched_anything() {
            return Err(abort);
        }
        let can_roll_back = self.can_roll_back();
        if *self.interrupts.borrow() > 1 {
            self.stop(format!("{}, and left at once", abort.reason));
            self.final_check().await;
            return Ok(Verdict::Mixed);
        }
        if action == OnFailure::Revert {
            return Ok(self.roll_back_all(index, abort.reason).await);
        }
        self.stop(abort.reason);
        Ok(match self.final_verdict(Direction::Forward).await {
            _ if !can_roll_back => Verdict::Mixed,
            // The run stopped before it had seen all that it should.
            Verdict::Converged | Verdict::Unproven => Verdict::Partial,
            verdict => verdict,
        })
    }

    /// Records that no other instance is signalled, and why.
    fn stop(&mut self, why: String) {
        self.reason = Some(why.clone());
        self.note(&Event::Stopped { why });
    }

    fn touched_anything(&self) -> bool {
        self.plan.hosts.iter().any(|host| host.is_touched)
    }

    /// Returns true if the old bytes of everything that was begun are known. Without them the new
    /// config stays on disk, and is named.
    fn can_roll_back(&self) -> bool {
        self.plan.hosts.iter().all(|host| host.can_roll_back)
    }

    /// Returns true if a wave after that at `index` signals an instance.
    fn goes_on_after(&self, index: usize) -> bool {
        self.goes_on_after_wave(self.plan.waves[index].number)
    }

    /// Returns true if a wave with a higher number signals an instance of a host that is there.
    fn goes_on_after_wave(&self, number: usize) -> bool {
        self.plan.entries().any(|(_, host, entry)| {
            host.is_there()
                && usize::from(entry.wave) > number
                && entry.outcome != Outcome::Unchanged
        })
    }

    /// Carries out one wave: commit, bake, gate. When this fails, an instance that failed has been
    /// rolled back already, unless everything will be.
    async fn wave(&mut self, index: usize) -> Result<(), Escalation> {
        let begun = Instant::now();
        let wave = &self.plan.waves[index];
        let number = wave.number;
        self.begun_wave = number;
        let waits = !self.options.immediate && (!wave.bake.is_zero() || !wave.gates.is_empty());
        let request = SessionRequest::Commit {
            wave: number,
            goes_on: waits || self.goes_on_after(index),
        };
        let committed = self.ask(&request, |host| host.is_in(number)).await;
        if let Some(abort) = committed.abort {
            return Err(self.abort_wave(index, abort).await);
        }
        if !committed.acted && !self.plan.ends_rounds(number) {
            return self.ensure_reached();
        }
        self.apply_budget(index).await?;
        self.ensure_reached()?;
        self.ensure_journaled(index).await?;
        if self.options.immediate {
            return Ok(());
        }
        self.bake(index).await?;
        self.ensure_journaled(index).await?;
        self.gates(index).await?;
        if !self.goes_on_after(index) {
            // The verdict covers every wave, so each is checked after the last slow action.
            let fresh = self.fresh_since(self.quiet_since.max(begun));
            self.recheck(index, Some(fresh)).await?;
        }
        self.ensure_journaled(index).await
    }

    /// Returns the freshness of a proof that is of the end of the run, and not from before `since`.
    fn fresh_since(&self, since: Instant) -> Freshness {
        let instances = |host: &RunHost<L>| host.plan.entries.len() + host.plan.skipped;
        let count: usize = self.plan.hosts.iter().map(instances).sum();
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        Freshness {
            since: Moment(since),
            age: MAX_AGE + MAX_AGE_PER_INSTANCE * count,
        }
    }

    async fn bake(&mut self, index: usize) -> Result<(), Escalation> {
        let number = self.plan.waves[index].number;
        let bake = self.plan.waves[index].bake;
        if bake.is_zero() {
            return Ok(());
        }
        self.note(&Event::Baking {
            wave: number,
            seconds: bake.as_secs_f64(),
        });
        let end = tokio::time::Instant::now() + bake;
        while tokio::time::Instant::now() < end {
            let next = (tokio::time::Instant::now() + LISTEN).min(end);
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                Ok(_) = self.interrupts.wait_for(|n| *n > 0) => break,
            }
            self.hear(index).await?;
        }
        self.quiet_since = Instant::now();
        self.recheck(index, None).await?;
        let entries = self.plan.entries();
        let instances = entries
            .filter(|(_, host, entry)| host.is_there() && entry.outcome == Outcome::Confirmed)
            .count();
        self.note(&Event::Baked {
            wave: number,
            instances,
        });
        Ok(())
    }

    /// Ends the wave if a journal has missed an event, as an interrupt does.
    async fn ensure_journaled(&mut self, index: usize) -> Result<(), Escalation> {
        if self.plan.hosts.iter().all(|host| host.link.is_journaled()) {
            Ok(())
        } else {
            Err(self.abort_wave(index, Abort::unjournaled()).await)
        }
    }

    /// Checks that every instance of the waves so far still shows what it has shown. An instance
    /// that needs no signal must still run what it ran.
    async fn recheck(&mut self, index: usize, fresh: Option<Freshness>) -> Result<(), Escalation> {
        if *self.interrupts.borrow() == 0 {
            let until = self.plan.waves[index].number;
            self.ask(&SessionRequest::Recheck { until, fresh }, |_| true)
                .await;
        }
        if *self.interrupts.borrow() > 0 {
            return Err(self.abort_wave(index, Abort::interrupted()).await);
        }
        self.apply_budget(index).await
    }

    /// Holds the failures of the waves so far against the budgets, and rolls back the instances
    /// that failed. If an exceeded budget asks for a full rollback, none is rolled back alone.
    async fn apply_budget(&mut self, index: usize) -> Result<(), Escalation> {
        loop {
            let failed = self.budget.update(self.plan);
            if failed.ids.is_empty() {
                return Ok(());
            }
            // Another reader may have read a file while it was away for one rollback, and fails
            // then.
            self.tolerate(index, failed).await?;
        }
    }

    /// Acts on new failures.
    async fn tolerate(&mut self, index: usize, failed: FailedInstances) -> Result<(), Escalation> {
        let abort = Abort::new(Verdict::Refused, failed.reason);
        let action = failed.action.map(|action| self.allowed_action(action));
        if action == Some(OnFailure::Revert) {
            return Err(Escalation {
                abort,
                action: OnFailure::Revert,
            });
        }
        let hosts: BTreeSet<usize> = failed.ids.iter().map(|(host, _)| *host).collect();
        let rolled_back = self.roll_back_failed(index, &failed.ids, &abort.reason, |host| {
            hosts.contains(&host)
        });
        if let Err(abort) = rolled_back.await {
            return Err(Escalation {
                abort,
                action: self.strictest_action(index),
            });
        }
        if action == Some(OnFailure::Stop) {
            return Err(Escalation {
                abort,
                action: OnFailure::Stop,
            });
        }
        self.first_tolerated.get_or_insert(abort);
        Ok(())
    }

    /// Returns what follows where a wave could not end: a config could not be installed, a journal
    /// cannot be written, or the operator interrupted the run.
    async fn abort_wave(&mut self, index: usize, abort: Abort) -> Escalation {
        let action = self.strictest_action(index);
        if action != OnFailure::Revert {
            // No instance stays unproven, and no file stays that no instance runs, if it can be
            // rolled back.
            let failed = self.budget.update(self.plan);
            let _ = self
                .roll_back_failed(index, &failed.ids, &abort.reason, |_| true)
                .await;
        }
        Escalation { abort, action }
    }

    /// Returns `wanted`, or `Stop` where a rollback is not allowed or not possible.
    fn allowed_action(&self, wanted: OnFailure) -> OnFailure {
        if self.options.immediate || !self.can_roll_back() {
            OnFailure::Stop
        } else {
            wanted
        }
    }

    /// Returns the action of the strictest group of the waves so far, at least `Stop`.
    fn strictest_action(&self, index: usize) -> OnFailure {
        let number = self.plan.waves[index].number;
        self.allowed_action(self.plan.strictest_reaction(number))
    }
}
