//! Carries out a prepared plan, wave by wave. Who fails within the budget is put back alone, at once; past it the run reverts, stops or goes on.

use std::collections::BTreeSet;

use budget::Budget;

use crate::{
    event::{Event, Halts, Instance, State, Stop, Trouble, Verdict},
    fleet::OnFailure,
    host::Host,
    plan::Plan,
    step::{Member, Shift, Step},
};

mod budget;
#[cfg(test)]
mod tests;

/// How a plan is carried out.
#[derive(Debug, Clone, Copy)]
pub struct Conduct<'a> {
    /// The run's id, for the commands of gates.
    pub run: &'a str,
    /// No bake, no gate, and nothing goes back by itself.
    pub now: bool,
}

/// A failure that the budget does not bear, and what follows.
struct Past {
    stop: Stop,
    then: OnFailure,
}

struct Engine<'a, T> {
    plan: &'a mut Plan,
    host: &'a mut Host,
    conduct: Conduct<'a>,
    halts: &'a mut Halts,
    tell: &'a mut T,
    budget: Budget,
}

/// Runs a prepared plan; the verdict is what was seen, never what was hoped. `tell` reports an event and says whether the journal took it.
///
/// # Errors
/// The run ended before it had touched anything.
pub async fn run(plan: &mut Plan, host: &mut Host, conduct: Conduct<'_>, halts: &mut Halts, tell: &mut impl FnMut(Event) -> bool) -> Result<Verdict, Stop> {
    let budget = Budget::of(plan);
    Engine { plan, host, conduct, halts, tell, budget }.run().await
}

impl<T: FnMut(Event) -> bool> Engine<'_, T> {
    async fn run(mut self) -> Result<Verdict, Stop> {
        for at in 0..self.plan.waves.len() {
            if !self.plan.waves[at].steps.iter().any(|s| s.is_work() || self.host.lags(s)) {
                continue;
            }
            let Err(Past { stop, then }) = self.wave(at).await else { continue };
            let installed = self.plan.targets().iter().any(|s| self.host.is_installed(&s.path));
            if !installed && !self.plan.steps().flat_map(|s| &s.members).any(Member::is_touched) {
                return Err(stop);
            }
            let begun = self.plan.waves[..=at].iter().flat_map(|w| &w.steps).filter(|s| s.is_work());
            // Without it nobody has the bytes of before: what is there stays as it is, and is named.
            let way_back = begun.flat_map(|s| &s.shifts).all(|s| s.from.is_some());
            match then {
                _ if *self.halts.borrow() > 1 => return Ok(Verdict::Mixed),
                OnFailure::Continue if way_back => {}
                OnFailure::Revert if way_back => return Ok(self.revert(at, stop.reason).await),
                _ => {
                    (self.tell)(Event::Stopped { why: stop.reason });
                    let verdict = self.seen(false).await;
                    return Ok(if way_back { verdict } else { Verdict::Mixed });
                }
            }
        }
        Ok(self.seen(false).await)
    }

    /// One wave: commit, bake, gate. Unless everything goes back, who failed is where it was when this returns.
    async fn wave(&mut self, at: usize) -> Result<(), Past> {
        let wave = &mut self.plan.waves[at];
        let (number, bake) = (wave.number, wave.bake);
        if let Err(stop) = commit(&mut wave.steps, number, self.host, self.halts, self.tell).await {
            return Err(self.cut_short(at, stop).await);
        }
        self.judge(at).await?;
        if self.conduct.now {
            return Ok(());
        }
        if !bake.is_zero() {
            (self.tell)(Event::Baking { wave: number, seconds: bake.as_secs_f64() });
            tokio::select! {
                () = tokio::time::sleep(bake) => {}
                Ok(_) = self.halts.wait_for(|n| *n > 0) => {}
            }
            if *self.halts.borrow() > 0 {
                return Err(self.cut_short(at, halted()).await);
            }
            let mut steps: Vec<&mut Step> = self.plan.waves[..=at].iter_mut().flat_map(|w| &mut w.steps).collect();
            let tell = &mut self.tell;
            self.host
                .check(&mut steps, self.halts, &mut |event| {
                    tell(event);
                })
                .await;
            if *self.halts.borrow() > 0 {
                return Err(self.cut_short(at, halted()).await);
            }
            self.judge(at).await?;
            let instances = self.plan.instances().filter(|i| i.state == State::Confirmed).count();
            (self.tell)(Event::Held { wave: number, instances });
        }
        self.gates(at).await
    }

    /// Holds the failures of the waves until now against the budget, and puts back who failed; past a budget that wants everything back, nobody is put
    /// back alone.
    async fn judge(&mut self, at: usize) -> Result<(), Past> {
        let failed = self.budget.take(self.plan);
        if failed.ids.is_empty() {
            return Ok(());
        }
        let then = if self.conduct.now { failed.then.map(|_| OnFailure::Stop) } else { failed.then };
        let stop = Stop::new(Verdict::Refused, failed.reason);
        match then {
            Some(OnFailure::Revert) => {}
            _ => self.put_back(at, &failed.ids, &stop.reason).await.map_err(|e| Past { stop: e, then: self.then(at, OnFailure::Stop) })?,
        }
        then.map_or(Ok(()), |then| Err(Past { stop, then }))
    }

    /// What follows where a wave could not be ended: no config could be installed, the journal cannot be written, or the operator halted it.
    async fn cut_short(&mut self, at: usize, stop: Stop) -> Past {
        let then = self.then(at, OnFailure::Stop);
        if then != OnFailure::Revert {
            // Nobody is left unproven, and no file where nobody runs it, that could be put back.
            let failed = self.budget.take(self.plan);
            let _ = self.put_back(at, &failed.ids, &stop.reason).await;
        }
        Past { stop, then }
    }

    /// What the strictest group of the waves until now wants past the budget, at least `least`.
    fn then(&self, at: usize, least: OnFailure) -> OnFailure {
        if self.conduct.now {
            return OnFailure::Stop;
        }
        let members = self.plan.waves[..=at].iter().flat_map(|w| &w.steps).flat_map(|s| &s.members);
        members.map(|m| m.group.rollout.on_failure).max().unwrap_or(least).max(least)
    }

    async fn gates(&mut self, at: usize) -> Result<(), Past> {
        let wave = &self.plan.waves[at];
        for gate in &wave.gates {
            let instances: Vec<&Instance> = wave.steps.iter().flat_map(|s| &s.members).map(|m| &m.instance).collect();
            let said = self.host.gate(gate, self.conduct.run, wave.number, &instances, self.halts).await;
            let good = said.exit == Some(0);
            let told = said.exit.map_or_else(|| said.output.clone(), |code| format!("ended with exit status {code}"));
            (self.tell)(Event::Gate { wave: wave.number, command: gate.clone(), exit: said.exit, output: said.output });
            if *self.halts.borrow() > 0 {
                return Err(self.cut_short(at, halted()).await);
            }
            if !good {
                let members = wave.steps.iter().flat_map(|s| &s.members).filter(|m| m.group.rollout.gate == *gate);
                let then = members.map(|m| m.group.rollout.on_failure).max().unwrap_or(OnFailure::Revert);
                let stop = Stop::new(Verdict::Refused, format!("the gate of wave {} says no: `{}` {told}", wave.number, gate.join(" ")));
                return Err(Past { stop, then });
            }
        }
        Ok(())
    }

    /// Puts back those of `failed` that may have been signalled, and every file of the wave that nobody is proven on. A file that others are proven on
    /// is there again when this returns: it was away only for those who failed.
    async fn put_back(&mut self, at: usize, failed: &BTreeSet<(i32, u64)>, why: &str) -> Result<(), Stop> {
        if self.conduct.now || *self.halts.borrow() > 1 {
            return Ok(());
        }
        let proven = |m: &Member| matches!(m.instance.state, State::Confirmed | State::Unconfirmed | State::Unchanged);
        let needed: BTreeSet<_> = self.plan.steps().filter(|s| s.members.iter().any(proven)).flat_map(|s| &s.shifts).map(|s| s.path.clone()).collect();
        let (mut undo, mut again): (Vec<Step>, Vec<Shift>) = (Vec::new(), Vec::new());
        for step in self.plan.waves[..=at].iter().flat_map(|w| &w.steps) {
            let others = step.shifts.iter().any(|s| needed.contains(&s.path));
            // Who says itself that it kept the old config is where it was; its file stays for the others.
            let touched = |m: &&Member| failed.contains(&m.id) && m.is_touched() && !(others && m.instance.state == State::Rejected);
            let members: Vec<Member> = step.members.iter().filter(touched).cloned().collect();
            let here = !others
                && step.is_work()
                && step.shifts.iter().any(|s| self.host.is_installed(&s.path) && self.host.reads(&s.path).as_ref() == Some(&s.to.sha256));
            if members.is_empty() && !here {
                continue;
            }
            let Some(back) = (Step { shifts: step.shifts.clone(), members, undo: false }).flip() else { continue };
            again.extend(step.shifts.iter().filter(|s| needed.contains(&s.path)).cloned());
            undo.push(back);
        }
        if undo.is_empty() {
            return Ok(());
        }
        let number = self.plan.waves[at].number;
        let pids = undo.iter().flat_map(|s| &s.members).map(|m| m.instance.pid).collect();
        (self.tell)(Event::PutBack { pids, why: why.to_owned() });
        // What could not be put back shows in the states, and in the digests that are read at the end.
        let _ = commit(&mut undo, number, self.host, self.halts, self.tell).await;
        self.plan.settle(&undo);
        if again.is_empty() {
            return Ok(());
        }
        let mut forth = [Step { shifts: again, members: Vec::new(), undo: false }];
        intend(&forth, number, self.tell);
        // A halt must not keep those from their file who run it.
        self.host
            .commit(&mut forth, self.halts, &mut |event| {
                (self.tell)(event);
            })
            .await
    }

    /// Everything goes back, newest first, and is proven.
    async fn revert(&mut self, at: usize, why: String) -> Verdict {
        let number = self.plan.waves[at].number;
        // Whom an earlier run has brought there goes back as well, whether its turn has come or not.
        let (begun, later) = self.plan.waves.split_at(at + 1);
        let later = later.iter().rev().flat_map(|w| &w.steps).filter(|s| s.members.iter().any(|m| m.brought));
        let mut undo: Vec<Step> = later.chain(begun.iter().rev().flat_map(|w| &w.steps)).filter_map(Step::flip).collect();
        (self.tell)(Event::UndoBegan { why });
        // What could not be put back shows in the states, and in the digests that are read below.
        let _ = commit(&mut undo, number, self.host, self.halts, self.tell).await;
        self.plan.settle(&undo);
        self.seen(true).await
    }

    /// The verdict of what is there: who came meanwhile, the states, and every target read back once more, because a file that somebody changed
    /// meanwhile proves nothing.
    async fn seen(&mut self, undone: bool) -> Verdict {
        for member in self.plan.waves.iter_mut().flat_map(|w| &mut w.steps).flat_map(|s| &mut s.members) {
            if member.brought && member.instance.state == State::Untouched {
                let text = "an earlier run may have signalled it, and this one ended before its turn".into();
                member.fail(State::TimedOut, Trouble { kind: State::TimedOut.into(), text });
            }
        }
        // What each target is now, where that is one of the two that it can be, and whether the new config stands on any.
        let (mut stands, mut known, mut new) = (Vec::new(), true, false);
        for step in self.plan.steps() {
            let forth = Step { shifts: step.shifts.clone(), members: Vec::new(), undo: false };
            let is = |step: &Step| step.shifts.iter().all(|s| self.host.reads(&s.path).as_ref() == Some(&s.to.sha256));
            let proven = step.members.iter().any(|m| matches!(m.instance.state, State::Confirmed | State::Unconfirmed));
            match forth.flip() {
                _ if !undone && is(&forth) => {
                    new |= step.is_work();
                    stands.push(forth);
                }
                // Who is proven on the new config would read another file by now.
                Some(back) if is(&back) && !proven => stands.push(back),
                back => {
                    known &= !step.is_work();
                    stands.push(back.filter(|_| undone).unwrap_or(forth));
                }
            }
        }
        let tell = &mut self.tell;
        let mut told = |event| {
            tell(event);
        };
        // Who is unproven when the run ends is named; nothing of it was touched that could be put back.
        let refs: Vec<&Step> = stands.iter().collect();
        let newcomers = self.host.newcomers(&refs, undone, self.halts, &mut told).await;
        self.plan.newcomers = newcomers;
        let verdict = Verdict::of(self.plan.instances().map(|i| i.state), undone);
        match verdict {
            _ if !known => Verdict::Mixed,
            // Nobody runs it, but it is there: the next start of one would.
            Verdict::Reverted if !undone && new => Verdict::Partial,
            verdict => verdict,
        }
    }
}

fn halted() -> Stop {
    Stop::new(Verdict::Failed, "halted by the operator")
}

/// Puts on the disk what is about to be done; answers whether the journal took it.
fn intend(steps: &[Step], wave: usize, tell: &mut impl FnMut(Event) -> bool) -> bool {
    let undo = steps.iter().any(|s| s.undo);
    let targets = steps.iter().flat_map(|s| &s.shifts).map(|s| s.report(None)).collect();
    let signalled = steps.iter().flat_map(|s| &s.members).map(|m| &m.instance).filter(|i| i.state != State::Unchanged);
    tell(Event::Intent { undo, wave, targets, pids: signalled.map(|i| (i.pid, i.started)).collect() })
}

/// One batch: the intent is on the disk first.
async fn commit(steps: &mut [Step], wave: usize, host: &mut Host, halts: &mut Halts, tell: &mut impl FnMut(Event) -> bool) -> Result<(), Stop> {
    let undo = steps.iter().any(|s| s.undo);
    let kept = intend(steps, wave, tell);
    if !undo && !kept {
        return Err(Stop::new(Verdict::Failed, "the journal cannot be written"));
    }
    if !undo && *halts.borrow() > 0 {
        return Err(halted());
    }
    let mut lost = false;
    host.commit(steps, halts, &mut |event| lost |= !tell(event)).await?;
    if !undo && *halts.borrow() > 0 {
        return Err(halted());
    }
    if lost && !undo {
        return Err(Stop::new(Verdict::Failed, "the journal cannot be written"));
    }
    Ok(())
}
