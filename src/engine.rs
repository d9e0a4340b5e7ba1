//! Carries out a prepared plan, wave by wave. An instance that fails within the budget is rolled
//! back alone, at once. Past the budget the run rolls everything back, stops, or continues.

use std::time::Instant;

use self::{
    budget::{Budget, FailedInstances},
    commit::{commit, journal_abort},
    log::EventLog,
};
pub(crate) use self::{log::EventStore, proofs::proofs_of};
use crate::{
    event::{Abort, Direction, Event, Interrupts, Outcome, Verdict},
    fleet::OnFailure,
    host::{Host, local::check::Recheck},
    plan::{Plan, Wave},
    step::{PlannedInstance, Step},
};

mod budget;
mod commit;
mod end;
mod gates;
mod log;
mod proofs;
mod rollback;
#[cfg(test)]
mod tests;

/// How a plan is carried out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EngineOptions<'a> {
    /// The run's id, for the commands of gates.
    pub run: &'a str,
    /// No bake, no gate, and no rollback.
    pub immediate: bool,
    /// The run continues an earlier one, which may have begun any of its steps.
    pub recovering: bool,
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
    pub verdict: Verdict,
    /// Why the run is not converged; none where only the outcomes tell.
    pub reason: Option<String>,
    /// The result of each gate, as its event.
    pub gates: Vec<Event>,
}

struct Engine<'a, J, R> {
    plan: &'a mut Plan,
    host: &'a mut Host,
    options: EngineOptions<'a>,
    interrupts: &'a mut Interrupts,
    log: EventLog<'a, J, R>,
    budget: Budget,
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

/// Runs a prepared plan. The verdict is what was seen at the end. Each event goes to `report` and,
/// unless it is a phase, to `journal`.
///
/// # Errors
/// Fails if the run ended before it touched anything.
pub(crate) async fn run<J: EventStore, R: FnMut(&Event)>(
    plan: &mut Plan,
    host: &mut Host,
    options: EngineOptions<'_>,
    interrupts: &mut Interrupts,
    journal: &mut J,
    report: &mut R,
) -> Result<RunEnd, Abort> {
    let budget = Budget::of(plan);
    let mut engine = Engine {
        plan,
        host,
        options,
        interrupts,
        log: EventLog {
            journal,
            report,
            journal_failed: false,
        },
        budget,
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

impl<J: EventStore, R: FnMut(&Event)> Engine<'_, J, R> {
    async fn run(&mut self) -> Result<Verdict, Abort> {
        for index in 0..self.plan.waves.len() {
            if !self.must_run(&self.plan.waves[index]) {
                continue;
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

    fn must_run(&self, wave: &Wave) -> bool {
        has_work(wave) || wave.steps.iter().any(|s| self.host.needs_install(s))
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
        let has_rollback_content = self.has_rollback_content(index);
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
            _ if !has_rollback_content => Verdict::Mixed,
            // The run stopped before it had seen all that it should.
            Verdict::Converged | Verdict::Unproven => Verdict::Partial,
            verdict => verdict,
        })
    }

    /// Records that no other instance is signalled, and why.
    fn stop(&mut self, why: String) {
        self.reason = Some(why.clone());
        self.log.emit(Event::Stopped { why });
    }

    /// Returns true if an instance of the step was touched, or a target of it was replaced.
    fn was_touched(&self, step: &Step) -> bool {
        step.instances.iter().any(PlannedInstance::is_touched)
            || step.changes.iter().any(|c| self.host.is_installed(&c.path))
    }

    fn touched_anything(&self) -> bool {
        self.plan.steps().any(|s| self.was_touched(s))
    }

    /// Returns true if the step is part of a full rollback: this run has begun it, or the run that
    /// this one continues may have begun it.
    fn must_roll_back(&self, step: &Step) -> bool {
        self.options.recovering || self.was_touched(step)
    }

    /// Returns true if the old bytes of everything that was begun are known. Without them the new
    /// config stays on disk, and is named.
    fn has_rollback_content(&self, index: usize) -> bool {
        let begun = self.plan.waves[..=index]
            .iter()
            .flat_map(|w| &w.steps)
            .filter(|s| s.is_work() && self.was_touched(s));
        begun.flat_map(|s| &s.changes).all(|c| c.from.is_some())
    }

    /// Carries out one wave: commit, bake, gate. When this fails, an instance that failed has been
    /// rolled back already, unless everything will be.
    async fn wave(&mut self, index: usize) -> Result<(), Escalation> {
        let begun = Instant::now();
        let wave = &mut self.plan.waves[index];
        let committed = commit(
            &mut wave.steps,
            wave.number,
            self.host,
            self.interrupts,
            &mut self.log,
        );
        if let Err(abort) = committed.await {
            return Err(self.abort_wave(index, abort).await);
        }
        self.apply_budget(index).await?;
        self.ensure_journaled(index).await?;
        self.keep_proofs(index).await;
        if self.options.immediate {
            return Ok(());
        }
        self.bake(index).await?;
        self.ensure_journaled(index).await?;
        self.gates(index).await?;
        if !self.plan.waves[index + 1..].iter().any(has_work) {
            // The verdict covers every wave, so each is checked after the last slow action.
            let moment = self.stale_before().max(begun);
            self.recheck(index, Recheck::SeenBefore(moment)).await?;
        }
        self.ensure_journaled(index).await
    }

    /// Keeps the proofs of a wave before the run waits or goes on. If it is killed then, they are
    /// known all the same. They are kept once more at the end, which reports where that fails.
    async fn keep_proofs(&mut self, index: usize) {
        let wave = &self.plan.waves[index];
        let waits = !self.options.immediate && (!wave.bake.is_zero() || !wave.gates.is_empty());
        if waits || self.plan.waves[index + 1..].iter().any(has_work) {
            let proofs = proofs_of(wave.steps.iter(), self.host);
            self.log.journal.keep_proofs(proofs, self.interrupts).await;
        }
    }

    async fn bake(&mut self, index: usize) -> Result<(), Escalation> {
        let number = self.plan.waves[index].number;
        let bake = self.plan.waves[index].bake;
        if bake.is_zero() {
            return Ok(());
        }
        self.log.emit(Event::Baking {
            wave: number,
            seconds: bake.as_secs_f64(),
        });
        tokio::select! {
            () = tokio::time::sleep(bake) => {}
            Ok(_) = self.interrupts.wait_for(|n| *n > 0) => {}
        }
        self.quiet_since = Instant::now();
        self.recheck(index, Recheck::All).await?;
        let instances = self
            .plan
            .instances()
            .filter(|i| i.outcome == Outcome::Confirmed)
            .count();
        self.log.emit(Event::Baked {
            wave: number,
            instances,
        });
        Ok(())
    }

    /// Ends the wave if the journal has missed an event, as an interrupt does.
    async fn ensure_journaled(&mut self, index: usize) -> Result<(), Escalation> {
        if self.log.journal_failed {
            Err(self.abort_wave(index, journal_abort()).await)
        } else {
            Ok(())
        }
    }

    /// Checks that every instance of the waves so far still shows what it has shown. An instance
    /// that needs no signal must still run what it ran.
    async fn recheck(&mut self, index: usize, recheck: Recheck) -> Result<(), Escalation> {
        if *self.interrupts.borrow() == 0 {
            self.recheck_steps(index, recheck, 0, |_| true).await;
        }
        if *self.interrupts.borrow() > 0 {
            return Err(self.abort_wave(index, Abort::interrupted()).await);
        }
        self.apply_budget(index).await
    }

    /// Checks the instances of the waves so far whose step is `meant`. More than `patience`
    /// interrupts end the check. Returns true if every probed instance was probed to the end.
    async fn recheck_steps(
        &mut self,
        index: usize,
        recheck: Recheck,
        patience: u8,
        meant: impl Fn(&Step) -> bool,
    ) -> bool {
        let mut steps: Vec<&mut Step> = self.plan.waves[..=index]
            .iter_mut()
            .flat_map(|w| &mut w.steps)
            .filter(|s| meant(s))
            .collect();
        let log = &mut self.log;
        let interrupts = (&mut *self.interrupts, patience);
        self.host
            .check(&mut steps, recheck, interrupts, &mut |event| {
                log.emit(event);
            })
            .await
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
        let action = failed
            .action
            .map(|action| self.allowed_action(index, action));
        if action == Some(OnFailure::Revert) {
            return Err(Escalation {
                abort,
                action: OnFailure::Revert,
            });
        }
        if let Err(abort) = self
            .roll_back_failed(index, &failed.ids, &abort.reason)
            .await
        {
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

    /// Returns what follows where a wave could not end: a config could not be installed, the
    /// journal cannot be written, or the operator interrupted the run.
    async fn abort_wave(&mut self, index: usize, abort: Abort) -> Escalation {
        let action = self.strictest_action(index);
        if action != OnFailure::Revert {
            // No instance stays unproven, and no file stays that no instance runs, if it can be
            // rolled back.
            let failed = self.budget.update(self.plan);
            let _ = self
                .roll_back_failed(index, &failed.ids, &abort.reason)
                .await;
        }
        Escalation { abort, action }
    }

    /// Returns `wanted`, or `Stop` where a rollback is not allowed or not possible.
    fn allowed_action(&self, index: usize, wanted: OnFailure) -> OnFailure {
        if self.options.immediate || !self.has_rollback_content(index) {
            OnFailure::Stop
        } else {
            wanted
        }
    }

    /// Returns the action of the strictest group of the waves so far, at least `Stop`.
    fn strictest_action(&self, index: usize) -> OnFailure {
        let members = self.plan.waves[..=index]
            .iter()
            .flat_map(|w| &w.steps)
            .flat_map(|s| &s.instances);
        let action = members
            .map(|m| m.group.rollout.on_failure)
            .max()
            .unwrap_or(OnFailure::Stop);
        self.allowed_action(index, action.max(OnFailure::Stop))
    }
}

fn has_work(wave: &Wave) -> bool {
    wave.steps.iter().any(Step::is_work)
}
