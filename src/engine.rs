//! Carries out a prepared plan, wave by wave. Who fails within the budget is put back alone, at
//! once; past it the run reverts, stops or goes on.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Instant,
};

use budget::{Budget, FailedInstances};

use crate::{
    event::{Abort, Event, Instance, Interrupts, Outcome, Phase, Verdict},
    fleet::{OnFailure, Speaks},
    host::{Host, local::check::Recheck},
    plan::{Plan, Wave},
    step::{PlannedInstance, Step, TargetChange},
};

mod budget;
mod end;
#[cfg(test)]
mod tests;

/// How a plan is carried out.
#[derive(Debug, Clone, Copy)]
pub struct EngineOptions<'a> {
    /// The run's id, for the commands of gates.
    pub run: &'a str,
    /// No bake, no gate, and nothing goes back by itself.
    pub immediate: bool,
    /// It goes on with a run that may have begun any of its steps.
    pub recovering: bool,
}

/// A failure that ends the run, and what follows: `Stop` or `Revert`.
struct Escalation {
    abort: Abort,
    action: OnFailure,
}

/// How a run came to its end.
#[derive(Debug, Clone)]
pub struct RunEnd {
    /// The verdict of what was seen at the end.
    pub verdict: Verdict,
    /// Why it is not converged, as far as one failure or one gate decided that; none where only the
    /// states tell.
    pub reason: Option<String>,
    /// What each gate said, as its event.
    pub gates: Vec<Event>,
}

struct Engine<'a, T> {
    plan: &'a mut Plan,
    host: &'a mut Host,
    options: EngineOptions<'a>,
    interrupts: &'a mut Interrupts,
    emit: &'a mut T,
    budget: Budget,
    /// The journal has missed something.
    journal_failed: bool,
    /// See [`RunEnd`].
    reason: Option<String>,
    run_gates: Vec<Event>,
    /// The first failure that the run went on after.
    first_tolerated: Option<Abort>,
    /// A gate said no, and the run went on.
    gate_failed: bool,
    /// When something ended last that took its time: a bake, a gate, a rollback. A proof from
    /// before that is old.
    quiet_since: Instant,
}

/// Runs a prepared plan; the verdict is what was seen, never what was hoped. `tell` reports an
/// event and says whether the journal took it.
///
/// # Errors
/// The run ended before it had touched anything.
pub async fn run(
    plan: &mut Plan,
    host: &mut Host,
    conduct: EngineOptions<'_>,
    halts: &mut Interrupts,
    tell: &mut impl FnMut(Event) -> bool,
) -> Result<RunEnd, Abort> {
    let budget = Budget::of(plan);
    let mut engine = Engine {
        plan,
        host,
        options: conduct,
        interrupts: halts,
        emit: tell,
        budget,
        journal_failed: false,
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

impl<T: FnMut(Event) -> bool> Engine<'_, T> {
    async fn run(&mut self) -> Result<Verdict, Abort> {
        for at in 0..self.plan.waves.len() {
            if !has_work(&self.plan.waves[at])
                && !self.plan.waves[at]
                    .steps
                    .iter()
                    .any(|s| self.host.needs_install(s))
            {
                continue;
            }
            let Err(Escalation {
                abort: stop,
                action: then,
            }) = self.wave(at).await
            else {
                continue;
            };
            if !self.plan.steps().any(|s| self.was_touched(s)) {
                return Err(stop);
            }
            let way_back = self.has_rollback_content(at);
            return Ok(match then {
                _ if *self.interrupts.borrow() > 1 => {
                    self.stop(format!("{}, and left at once", stop.reason));
                    self.final_check().await;
                    Verdict::Mixed
                }
                OnFailure::Revert => self.roll_back_all(at, stop.reason).await,
                _ => {
                    self.stop(stop.reason);
                    match self.final_verdict(false).await {
                        _ if !way_back => Verdict::Mixed,
                        // It was stopped before it had seen all that it should.
                        Verdict::Converged | Verdict::Unproven => Verdict::Partial,
                        verdict => verdict,
                    }
                }
            });
        }
        if let Some(stop) = self
            .first_tolerated
            .take()
            .filter(|_| !self.plan.steps().any(|s| self.was_touched(s)))
        {
            return Err(stop);
        }
        match self.final_verdict(false).await {
            Verdict::Converged | Verdict::Unproven if self.gate_failed => Ok(Verdict::Partial),
            verdict => Ok(verdict),
        }
    }

    /// Says that nothing else is signalled, and why.
    fn stop(&mut self, why: String) {
        self.reason = Some(why.clone());
        self.emit_event(Event::Stopped { why });
    }

    fn emit_event(&mut self, event: Event) {
        self.journal_failed |= !(self.emit)(event);
    }

    /// Whether anybody of it was touched, or anything of it replaced.
    fn was_touched(&self, step: &Step) -> bool {
        step.instances.iter().any(PlannedInstance::is_touched)
            || step.changes.iter().any(|s| self.host.is_installed(&s.path))
    }

    /// Whether it goes back when everything does: it has begun, or the run that this one goes on
    /// with may have begun it.
    fn goes_back(&self, step: &Step) -> bool {
        self.options.recovering || self.was_touched(step)
    }

    /// Whether somebody has the bytes of before of everything that was begun; without it what is
    /// there stays as it is, and is named.
    fn has_rollback_content(&self, at: usize) -> bool {
        let begun = self.plan.waves[..=at]
            .iter()
            .flat_map(|w| &w.steps)
            .filter(|s| s.is_work() && self.was_touched(s));
        begun.flat_map(|s| &s.changes).all(|s| s.from.is_some())
    }

    /// One wave: commit, bake, gate. Unless everything goes back, who failed is where it was when
    /// this returns.
    async fn wave(&mut self, at: usize) -> Result<(), Escalation> {
        let wave = &mut self.plan.waves[at];
        let (number, bake) = (wave.number, wave.bake);
        let begun = Instant::now();
        if let Err(stop) = commit(
            &mut wave.steps,
            number,
            self.host,
            self.interrupts,
            self.emit,
            &mut self.journal_failed,
        )
        .await
        {
            return Err(self.abort_wave(at, stop).await);
        }
        self.apply_budget(at).await?;
        self.ensure_journaled(at).await?;
        if self.options.immediate {
            return Ok(());
        }
        if !bake.is_zero() {
            self.emit_event(Event::Baking {
                wave: number,
                seconds: bake.as_secs_f64(),
            });
            tokio::select! {
                () = tokio::time::sleep(bake) => {}
                Ok(_) = self.interrupts.wait_for(|n| *n > 0) => {}
            }
            self.quiet_since = Instant::now();
            self.recheck(at, Recheck::All).await?;
            let instances = self
                .plan
                .instances()
                .filter(|i| i.outcome == Outcome::Confirmed)
                .count();
            self.emit_event(Event::Baked {
                wave: number,
                instances,
            });
        }
        self.ensure_journaled(at).await?;
        self.gates(at).await?;
        if !self.plan.waves[at + 1..].iter().any(has_work) {
            // The verdict speaks of every wave, so each is looked at after the last thing that took
            // its time.
            let moment = self.stale_before().max(begun);
            self.recheck(at, Recheck::SeenBefore(moment)).await?;
        }
        self.ensure_journaled(at).await
    }

    /// A journal that has missed something is a halt.
    async fn ensure_journaled(&mut self, at: usize) -> Result<(), Escalation> {
        if self.journal_failed {
            Err(self.abort_wave(at, journal_abort()).await)
        } else {
            Ok(())
        }
    }

    /// Every instance of the waves until now must still show what it has shown, and every one that
    /// needs no signal must still run what it ran.
    async fn recheck(&mut self, at: usize, ask: Recheck) -> Result<(), Escalation> {
        if *self.interrupts.borrow() == 0 {
            self.recheck_step(at, ask, 0, |_| true).await;
        }
        if *self.interrupts.borrow() > 0 {
            return Err(self.abort_wave(at, Abort::interrupted()).await);
        }
        self.apply_budget(at).await
    }

    /// Looks at the instances of the waves until now whose step is `meant`. Returns whether each
    /// has answered that was asked.
    async fn recheck_step(
        &mut self,
        at: usize,
        ask: Recheck,
        patience: u8,
        meant: impl Fn(&Step) -> bool,
    ) -> bool {
        let mut steps: Vec<&mut Step> = self.plan.waves[..=at]
            .iter_mut()
            .flat_map(|w| &mut w.steps)
            .filter(|s| meant(s))
            .collect();
        let (tell, lost) = (&mut self.emit, &mut self.journal_failed);
        self.host
            .check(&mut steps, ask, (self.interrupts, patience), &mut |event| {
                *lost |= !tell(event)
            })
            .await
    }

    /// Holds the failures of the waves until now against the budget, and puts back who failed; past
    /// a budget that wants everything back, nobody is put back alone.
    async fn apply_budget(&mut self, at: usize) -> Result<(), Escalation> {
        loop {
            let failed = self.budget.update(self.plan);
            if failed.ids.is_empty() {
                return Ok(());
            }
            // A file that was away for one may have been read by others, which fail then.
            self.tolerate(at, failed).await?;
        }
    }

    /// Acts on failures that were not known before.
    async fn tolerate(&mut self, at: usize, failed: FailedInstances) -> Result<(), Escalation> {
        let stop = Abort::new(Verdict::Refused, failed.reason);
        let then = failed
            .then
            .map(|then| self.ensure_not_interrupted(at, then));
        if then == Some(OnFailure::Revert) {
            return Err(Escalation {
                abort: stop,
                action: OnFailure::Revert,
            });
        }
        if let Err(stop) = self.roll_back_failed(at, &failed.ids, &stop.reason).await {
            return Err(Escalation {
                abort: stop,
                action: self.strictest_action(at),
            });
        }
        match then {
            Some(OnFailure::Stop) => Err(Escalation {
                abort: stop,
                action: OnFailure::Stop,
            }),
            _ => {
                self.first_tolerated.get_or_insert(stop);
                Ok(())
            }
        }
    }

    /// What follows where a wave could not be ended: no config could be installed, the journal
    /// cannot be written, or the operator halted it.
    async fn abort_wave(&mut self, at: usize, stop: Abort) -> Escalation {
        let then = self.strictest_action(at);
        if then != OnFailure::Revert {
            // Nobody is left unproven, and no file where nobody runs it, that could be put back.
            let failed = self.budget.update(self.plan);
            let _ = self.roll_back_failed(at, &failed.ids, &stop.reason).await;
        }
        Escalation {
            abort: stop,
            action: then,
        }
    }

    /// What may follow where `then` is wanted.
    fn ensure_not_interrupted(&self, at: usize, then: OnFailure) -> OnFailure {
        if self.options.immediate || !self.has_rollback_content(at) {
            OnFailure::Stop
        } else {
            then
        }
    }

    /// What the strictest group of the waves until now wants where the run cannot go on.
    fn strictest_action(&self, at: usize) -> OnFailure {
        let members = self.plan.waves[..=at]
            .iter()
            .flat_map(|w| &w.steps)
            .flat_map(|s| &s.instances);
        let then = members
            .map(|m| m.group.rollout.on_failure)
            .max()
            .unwrap_or(OnFailure::Stop);
        self.ensure_not_interrupted(at, then.max(OnFailure::Stop))
    }

    async fn gates(&mut self, at: usize) -> Result<(), Escalation> {
        let number = self.plan.waves[at].number;
        for gate in self.plan.waves[at].gates.clone() {
            let members = || self.plan.waves[at].steps.iter().flat_map(|s| &s.instances);
            (self.emit)(Event::Phase {
                phase: Phase::Judging,
                done: 0,
                all: 0,
            });
            let instances: Vec<&Instance> = members().map(|m| &m.instance).collect();
            let said = self
                .host
                .gate(&gate, self.options.run, number, &instances, self.interrupts)
                .await;
            self.quiet_since = Instant::now();
            let wanted = members()
                .filter(|m| m.group.rollout.gate == gate)
                .map(|m| m.group.rollout.on_failure)
                .max();
            let then = self.ensure_not_interrupted(at, wanted.unwrap_or(OnFailure::Revert));
            let event = Event::Gate {
                wave: number,
                command: gate.clone(),
                exit: said.exit,
                output: said.output.clone(),
            };
            if said.exit != Some(0) {
                self.reason = Some(format!("the gate of wave {number} says no"));
            }
            self.run_gates.push(event.clone());
            self.emit_event(event);
            if *self.interrupts.borrow() > 0 {
                return Err(self.abort_wave(at, Abort::interrupted()).await);
            }
            match (said.exit, then) {
                (Some(0), _) => {}
                (_, OnFailure::Continue) => self.gate_failed = true,
                (exit, then) => {
                    let why =
                        exit.map_or(said.output, |code| format!("ended with exit status {code}"));
                    let why = format!(
                        "the gate of wave {number} says no: `{}` {}",
                        gate.join(" "),
                        why.lines().next().unwrap_or_default()
                    );
                    return Err(Escalation {
                        abort: Abort::new(Verdict::Refused, why),
                        action: then,
                    });
                }
            }
        }
        Ok(())
    }

    /// Puts back those of `failed` that may have been signalled, and every file of the wave that
    /// nobody is proven on. A file that others are proven on is there again when this returns: it
    /// was away only for those who failed.
    async fn roll_back_failed(
        &mut self,
        at: usize,
        failed: &BTreeSet<(i32, u64)>,
        why: &str,
    ) -> Result<(), Abort> {
        if self.options.immediate || *self.interrupts.borrow() > 1 {
            return Ok(());
        }
        let proven = |m: &PlannedInstance| {
            matches!(
                m.instance.outcome,
                Outcome::Confirmed | Outcome::Unconfirmed | Outcome::Unchanged
            )
        };
        let needed: BTreeSet<_> = self
            .plan
            .steps()
            .filter(|s| s.instances.iter().any(proven))
            .flat_map(|s| &s.changes)
            .map(|s| s.path.clone())
            .collect();
        let (mut undo, mut again): (Vec<Step>, Vec<TargetChange>) = (Vec::new(), Vec::new());
        for step in self.plan.waves[..=at].iter().flat_map(|w| &w.steps) {
            let others = step.changes.iter().any(|s| needed.contains(&s.path));
            // Who says itself that it kept the old config is where it was, as long as its file
            // stays for the others.
            let touched = |m: &&PlannedInstance| match m.instance.outcome {
                Outcome::Rejected => !others,
                _ => failed.contains(&m.id) && m.is_touched(),
            };
            let members: Vec<PlannedInstance> =
                step.instances.iter().filter(touched).cloned().collect();
            let here = !others
                && step.is_work()
                && step.changes.iter().any(|s| {
                    self.host.is_installed(&s.path)
                        && self.host.disk_digest(&s.path).as_ref() == Some(&s.to.sha256)
                });
            if members.is_empty() && !here {
                continue;
            }
            let Some(back) = (Step {
                changes: step.changes.clone(),
                instances: members,
                undo: false,
            })
            .flip() else {
                continue;
            };
            again.extend(
                step.changes
                    .iter()
                    .filter(|s| needed.contains(&s.path))
                    .cloned(),
            );
            undo.push(back);
        }
        if undo.is_empty() {
            return Ok(());
        }
        let number = self.plan.waves[at].number;
        let pids = undo
            .iter()
            .flat_map(|s| &s.instances)
            .map(|m| m.instance.pid)
            .collect();
        self.reason = Some(why.to_owned());
        self.emit_event(Event::RolledBack {
            pids,
            why: why.to_owned(),
        });
        // What could not be put back shows in the states, and in the digests that are read at the
        // end.
        let _ = commit(
            &mut undo,
            number,
            self.host,
            self.interrupts,
            self.emit,
            &mut self.journal_failed,
        )
        .await;
        self.plan.apply_outcomes(&undo);
        self.quiet_since = Instant::now();
        if again.is_empty() {
            return Ok(());
        }
        let paths: BTreeSet<PathBuf> = again.iter().map(|s| s.path.clone()).collect();
        let mut forth = [Step {
            changes: again,
            instances: Vec::new(),
            undo: false,
        }];
        // Neither a halt nor a lost journal must keep those from their file who run it.
        self.journal_failed |= !record_intent(&forth, number, self.emit);
        let (tell, lost) = (&mut self.emit, &mut self.journal_failed);
        self.host
            .commit(&mut forth, self.interrupts, &mut |event| {
                *lost |= !tell(event)
            })
            .await?;
        self.readers(at, &paths).await;
        Ok(())
    }

    /// Looks again at every reader of files that were away for an instance which went back alone.
    /// It may have read the old config meanwhile, and that instance the new one since. The answer
    /// of a `hello serve` speaks of every signal that it was sent; any other may be in a reload
    /// still, and is given as long as a reload may take.
    async fn readers(&mut self, at: usize, paths: &BTreeSet<PathBuf>) {
        let reads = |step: &Step| step.changes.iter().any(|s| paths.contains(&s.path));
        let steps = self.plan.waves[..=at]
            .iter()
            .flat_map(|w| &w.steps)
            .filter(|s| reads(s));
        let members = steps
            .flat_map(|s| &s.instances)
            .filter(|m| m.is_good() && m.group.speaks == Speaks::None);
        let wait = members.map(|m| m.timeout).max().unwrap_or_default();
        let patience = (*self.interrupts.borrow()).min(1);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            Ok(_) = self.interrupts.wait_for(|n| *n > patience) => {}
        }
        self.recheck_step(at, Recheck::All, patience, reads).await;
        self.quiet_since = Instant::now();
    }

    /// Everything goes back, newest first, and is proven.
    async fn roll_back_all(&mut self, at: usize, why: String) -> Verdict {
        let number = self.plan.waves[at].number;
        let begun: Vec<&Step> = self
            .plan
            .waves
            .iter()
            .rev()
            .filter(|w| self.options.recovering || w.number <= number)
            .flat_map(|w| &w.steps)
            .filter(|s| self.goes_back(s))
            .collect();
        let back: BTreeSet<&Path> = begun
            .iter()
            .flat_map(|s| &s.changes)
            .map(|s| s.path.as_path())
            .collect();
        // Who needed no signal, whether its wave has come or not, reads what goes back now all the
        // same.
        let others = self
            .plan
            .waves
            .iter()
            .rev()
            .flat_map(|w| &w.steps)
            .filter(|s| !begun.iter().any(|b| std::ptr::eq(*b, *s)));
        let readers = others
            .filter(|s| s.changes.iter().any(|s| back.contains(s.path.as_path())))
            .filter_map(Step::flip)
            .filter(|s| !s.instances.is_empty());
        let mut undo: Vec<Step> = readers
            .chain(begun.iter().filter_map(|s| s.flip()))
            .collect();
        self.reason = Some(why.clone());
        self.emit_event(Event::RollbackBegan { why });
        self.quiet_since = Instant::now();
        // What could not be put back shows in the states, and in the digests that are read below.
        let _ = commit(
            &mut undo,
            number,
            self.host,
            self.interrupts,
            self.emit,
            &mut self.journal_failed,
        )
        .await;
        self.plan.apply_outcomes(&undo);
        self.final_verdict(true).await
    }
}

fn has_work(wave: &Wave) -> bool {
    wave.steps.iter().any(Step::is_work)
}

fn journal_abort() -> Abort {
    Abort::new(Verdict::Failed, "the journal cannot be written")
}

/// Puts on the disk what is about to be done; answers whether the journal took it.
fn record_intent(steps: &[Step], wave: usize, tell: &mut impl FnMut(Event) -> bool) -> bool {
    let undo = steps.iter().any(|s| s.undo);
    let targets = steps
        .iter()
        .flat_map(|s| &s.changes)
        .map(|s| s.report(None))
        .collect();
    let signalled = steps
        .iter()
        .flat_map(|s| &s.instances)
        .map(|m| &m.instance)
        .filter(|i| i.outcome != Outcome::Unchanged);
    tell(Event::Intent {
        undo,
        wave,
        targets,
        pids: signalled.map(|i| (i.pid, i.started)).collect(),
    })
}

/// One batch: the intent is on the disk first. `lost` becomes whether the journal has missed
/// anything.
async fn commit(
    steps: &mut [Step],
    wave: usize,
    host: &mut Host,
    halts: &mut Interrupts,
    tell: &mut impl FnMut(Event) -> bool,
    lost: &mut bool,
) -> Result<(), Abort> {
    let undo = steps.iter().any(|s| s.undo);
    // Nobody is intended to be touched who will not be. An undo is only ended by the second halt.
    if *halts.borrow() > u8::from(undo) {
        return Err(Abort::interrupted());
    }
    let kept = record_intent(steps, wave, tell);
    *lost |= !kept;
    if !undo && !kept {
        return Err(journal_abort());
    }
    if !undo && *halts.borrow() > 0 {
        return Err(Abort::interrupted());
    }
    host.commit(steps, halts, &mut |event| *lost |= !tell(event))
        .await?;
    if !undo && *halts.borrow() > 0 {
        return Err(Abort::interrupted());
    }
    if *lost && !undo {
        return Err(journal_abort());
    }
    Ok(())
}
