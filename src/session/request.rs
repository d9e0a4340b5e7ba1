//! One request of the engine, carried out.

use super::{
    commit::commit,
    host_session::HostSession,
    log::{EventLog, EventStore},
    proofs::proofs_of,
    touched::was_touched,
};
use crate::{
    event::{Abort, Event, Interrupts},
    host::{Host, local::check::Recheck},
    plan::{Plan, Wave},
    protocol::{Scope, SessionAnswer, SessionRequest},
    step::Step,
};

/// A session while it carries out one request.
pub(super) struct Turn<'a, J> {
    pub(super) plan: &'a mut Plan,
    pub(super) host: &'a mut Host,
    /// See [`super::SessionTraits`].
    pub(super) is_immediate: bool,
    pub(super) is_recovering: bool,
    pub(super) interrupts: &'a mut Interrupts,
    pub(super) log: EventLog<'a, J>,
}

/// Returns true if the wave signals an instance.
pub(super) fn has_work(wave: &Wave) -> bool {
    wave.steps.iter().any(Step::is_work)
}

impl<J: EventStore> HostSession<J> {
    /// Carries out a request, and gives each event to `emit` meanwhile.
    pub(crate) async fn carry_out(
        &mut self,
        request: SessionRequest,
        interrupts: &mut Interrupts,
        emit: &mut dyn FnMut(&Event),
    ) -> SessionAnswer {
        let until = match &request {
            SessionRequest::Commit { wave, .. } => *wave,
            SessionRequest::RollBack { until, .. } | SessionRequest::Recheck { until, .. } => {
                *until
            }
            _ => self.last_wave,
        };
        self.last_wave = until;
        let mut turn = Turn {
            plan: &mut self.plan,
            host: &mut self.host,
            is_immediate: self.is_immediate,
            is_recovering: self.is_recovering,
            interrupts,
            log: EventLog {
                journal: &mut self.journal,
                emit,
                journal_failed: &mut self.journal_failed,
                armed_s: self.armed_s,
            },
        };
        let mut answer = SessionAnswer {
            acted: true,
            ..SessionAnswer::default()
        };
        match request {
            SessionRequest::Commit { wave, goes_on } => match turn.commit(wave, goes_on).await {
                Ok(acted) => answer.acted = acted,
                Err(abort) => answer.abort = Some(abort),
            },
            SessionRequest::RollBack { until, scope, why } => {
                let done = match scope {
                    Scope::Named(numbers) => {
                        let failed = self.numbers.ids(turn.plan, &numbers);
                        turn.roll_back_failed(until, &failed, &why).await
                    }
                    Scope::All => {
                        turn.roll_back_all(until, why).await;
                        Ok(true)
                    }
                };
                match done {
                    Ok(acted) => answer.acted = acted,
                    Err(abort) => answer.abort = Some(abort),
                }
            }
            SessionRequest::Recheck { until, fresh } => {
                let recheck =
                    fresh.map_or(Recheck::All, |fresh| Recheck::SeenBefore(fresh.begin()));
                turn.recheck_steps(until, recheck, 0, |_| true).await;
            }
            SessionRequest::FinalCheck { fresh } => {
                turn.final_check(fresh).await;
            }
            SessionRequest::Conclude { direction, fresh } => {
                answer.concluded = Some(turn.conclude(direction, fresh).await);
            }
            SessionRequest::Describe { wave } => {
                answer.instances = turn.instances_of(wave);
            }
        }
        answer.can_roll_back = turn.has_rollback_content(until);
        answer.is_touched = self.is_touched();
        self.report_outcomes(&mut answer);
        answer.is_journaled = !self.journal_failed;
        answer
    }
}

impl<J: EventStore> Turn<'_, J> {
    /// Commits one wave, and keeps its proofs if the run waits or goes on after it. If it is killed
    /// then, they are known all the same. Returns false if there is nothing to do.
    async fn commit(&mut self, number: usize, goes_on: bool) -> Result<bool, Abort> {
        let Some(index) = self.plan.waves.iter().position(|w| w.number == number) else {
            return Ok(false);
        };
        let host = &*self.host;
        let wave = &self.plan.waves[index];
        if !has_work(wave) && !wave.steps.iter().any(|s| host.needs_install(s)) {
            return Ok(false);
        }
        let steps = &mut self.plan.waves[index].steps;
        commit(steps, number, self.host, self.interrupts, &mut self.log).await?;
        if goes_on {
            let proofs = proofs_of(self.plan.waves[index].steps.iter(), self.host);
            self.log.journal.keep_proofs(proofs, self.interrupts).await;
        }
        Ok(true)
    }

    /// Iterates over the steps of the waves up to `number`.
    pub(super) fn steps_until(&self, number: usize) -> impl Iterator<Item = &Step> {
        let waves = self.plan.waves.iter().filter(move |w| w.number <= number);
        waves.flat_map(|w| &w.steps)
    }

    pub(super) fn was_touched(&self, step: &Step) -> bool {
        was_touched(self.host, step)
    }

    /// Returns true if the step is part of a full rollback: this run has begun it, or the run that
    /// this one continues may have begun it.
    pub(super) fn must_roll_back(&self, step: &Step) -> bool {
        self.is_recovering || self.was_touched(step)
    }

    /// Returns true if the old bytes of everything that was begun are known. Without them the new
    /// config stays on disk, and is named.
    fn has_rollback_content(&self, until: usize) -> bool {
        let begun = self
            .steps_until(until)
            .filter(|s| s.is_work() && self.was_touched(s));
        begun.flat_map(|s| &s.changes).all(|c| c.from.is_some())
    }

    /// Checks the instances of the waves up to `until` whose step is `meant`. More than `patience`
    /// interrupts end the check. Returns true if every probed instance was probed to the end.
    pub(super) async fn recheck_steps(
        &mut self,
        until: usize,
        recheck: Recheck,
        patience: u8,
        meant: impl Fn(&Step) -> bool,
    ) -> bool {
        let mut steps: Vec<&mut Step> = self
            .plan
            .waves
            .iter_mut()
            .filter(|w| w.number <= until)
            .flat_map(|w| &mut w.steps)
            .filter(|s| meant(s))
            .collect();
        let log = &mut self.log;
        let interrupts = (&mut *self.interrupts, patience);
        self.host
            .check(&mut steps, recheck, interrupts, &mut |event| {
                log.emit(&event);
            })
            .await
    }

    fn instances_of(&self, number: usize) -> Vec<crate::event::Instance> {
        let waves = self.plan.waves.iter().filter(|w| w.number == number);
        waves
            .flat_map(|w| &w.steps)
            .flat_map(|s| &s.instances)
            .map(|m| m.instance.clone())
            .collect()
    }
}
