//! Carries out a prepared plan, wave by wave. Who fails within the budget is put back alone, at
//! once; past it the run reverts, stops or goes on.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Instant,
};

use budget::{Budget, Failed};

use crate::{
    event::{Event, Halts, Instance, Phase, State, Stop, Verdict},
    fleet::{OnFailure, Speaks},
    host::{Host, local::check::Ask},
    plan::{Plan, Wave},
    step::{Member, Shift, Step},
};

mod budget;
mod end;
#[cfg(test)]
mod tests;

/// How a plan is carried out.
#[derive(Debug, Clone, Copy)]
pub struct Conduct<'a> {
    /// The run's id, for the commands of gates.
    pub run: &'a str,
    /// No bake, no gate, and nothing goes back by itself.
    pub now: bool,
    /// It goes on with a run that may have begun any of its steps.
    pub goes_on: bool,
}

/// A failure that ends the run, and what follows: `Stop` or `Revert`.
struct Past {
    stop: Stop,
    then: OnFailure,
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
    conduct: Conduct<'a>,
    halts: &'a mut Halts,
    tell: &'a mut T,
    budget: Budget,
    /// The journal has missed something.
    lost: bool,
    /// See [`RunEnd`].
    reason: Option<String>,
    gates: Vec<Event>,
    /// The first failure that the run went on after.
    borne: Option<Stop>,
    /// A gate said no, and the run went on.
    warned: bool,
    /// When something ended last that took its time: a bake, a gate, a rollback. A proof from
    /// before that is old.
    settled: Instant,
}

/// Runs a prepared plan; the verdict is what was seen, never what was hoped. `tell` reports an
/// event and says whether the journal took it.
///
/// # Errors
/// The run ended before it had touched anything.
pub async fn run(
    plan: &mut Plan,
    host: &mut Host,
    conduct: Conduct<'_>,
    halts: &mut Halts,
    tell: &mut impl FnMut(Event) -> bool,
) -> Result<RunEnd, Stop> {
    let budget = Budget::of(plan);
    let mut engine = Engine {
        plan,
        host,
        conduct,
        halts,
        tell,
        budget,
        lost: false,
        reason: None,
        gates: Vec::new(),
        borne: None,
        warned: false,
        settled: Instant::now(),
    };
    let verdict = engine.run().await?;
    Ok(RunEnd {
        verdict,
        reason: engine.reason,
        gates: engine.gates,
    })
}

impl<T: FnMut(Event) -> bool> Engine<'_, T> {
    async fn run(&mut self) -> Result<Verdict, Stop> {
        for at in 0..self.plan.waves.len() {
            if !is_work(&self.plan.waves[at])
                && !self.plan.waves[at].steps.iter().any(|s| self.host.lags(s))
            {
                continue;
            }
            let Err(Past { stop, then }) = self.wave(at).await else {
                continue;
            };
            if !self.plan.steps().any(|s| self.has_begun(s)) {
                return Err(stop);
            }
            let way_back = self.has_way_back(at);
            return Ok(match then {
                _ if *self.halts.borrow() > 1 => {
                    self.stopped(format!("{}, and left at once", stop.reason));
                    self.last_look().await;
                    Verdict::Mixed
                }
                OnFailure::Revert => self.revert(at, stop.reason).await,
                _ => {
                    self.stopped(stop.reason);
                    match self.seen(false).await {
                        _ if !way_back => Verdict::Mixed,
                        // It was stopped before it had seen all that it should.
                        Verdict::Converged | Verdict::Unproven => Verdict::Partial,
                        verdict => verdict,
                    }
                }
            });
        }
        if let Some(stop) = self
            .borne
            .take()
            .filter(|_| !self.plan.steps().any(|s| self.has_begun(s)))
        {
            return Err(stop);
        }
        match self.seen(false).await {
            Verdict::Converged | Verdict::Unproven if self.warned => Ok(Verdict::Partial),
            verdict => Ok(verdict),
        }
    }

    /// Says that nothing else is signalled, and why.
    fn stopped(&mut self, why: String) {
        self.reason = Some(why.clone());
        self.say(Event::Stopped { why });
    }

    fn say(&mut self, event: Event) {
        self.lost |= !(self.tell)(event);
    }

    /// Whether anybody of it was touched, or anything of it replaced.
    fn has_begun(&self, step: &Step) -> bool {
        step.members.iter().any(Member::is_touched)
            || step.shifts.iter().any(|s| self.host.is_installed(&s.path))
    }

    /// Whether it goes back when everything does: it has begun, or the run that this one goes on
    /// with may have begun it.
    fn counts(&self, step: &Step) -> bool {
        self.conduct.goes_on || self.has_begun(step)
    }

    /// Whether somebody has the bytes of before of everything that was begun; without it what is
    /// there stays as it is, and is named.
    fn has_way_back(&self, at: usize) -> bool {
        let begun = self.plan.waves[..=at]
            .iter()
            .flat_map(|w| &w.steps)
            .filter(|s| s.is_work() && self.has_begun(s));
        begun.flat_map(|s| &s.shifts).all(|s| s.from.is_some())
    }

    /// One wave: commit, bake, gate. Unless everything goes back, who failed is where it was when
    /// this returns.
    async fn wave(&mut self, at: usize) -> Result<(), Past> {
        let wave = &mut self.plan.waves[at];
        let (number, bake) = (wave.number, wave.bake);
        let begun = Instant::now();
        if let Err(stop) = commit(
            &mut wave.steps,
            number,
            self.host,
            self.halts,
            self.tell,
            &mut self.lost,
        )
        .await
        {
            return Err(self.cut_short(at, stop).await);
        }
        self.judge(at).await?;
        self.written(at).await?;
        if self.conduct.now {
            return Ok(());
        }
        if !bake.is_zero() {
            self.say(Event::Baking {
                wave: number,
                seconds: bake.as_secs_f64(),
            });
            tokio::select! {
                () = tokio::time::sleep(bake) => {}
                Ok(_) = self.halts.wait_for(|n| *n > 0) => {}
            }
            self.settled = Instant::now();
            self.look_again(at, Ask::All).await?;
            let instances = self
                .plan
                .instances()
                .filter(|i| i.state == State::Confirmed)
                .count();
            self.say(Event::Held {
                wave: number,
                instances,
            });
        }
        self.written(at).await?;
        self.gates(at).await?;
        if !self.plan.waves[at + 1..].iter().any(is_work) {
            // The verdict speaks of every wave, so each is looked at after the last thing that took
            // its time.
            let moment = self.old().max(begun);
            self.look_again(at, Ask::SeenBefore(moment)).await?;
        }
        self.written(at).await
    }

    /// A journal that has missed something is a halt.
    async fn written(&mut self, at: usize) -> Result<(), Past> {
        if self.lost {
            Err(self.cut_short(at, unwritten()).await)
        } else {
            Ok(())
        }
    }

    /// Every instance of the waves until now must still show what it has shown, and every one that
    /// needs no signal must still run what it ran.
    async fn look_again(&mut self, at: usize, ask: Ask) -> Result<(), Past> {
        if *self.halts.borrow() == 0 {
            self.look(at, ask, 0, |_| true).await;
        }
        if *self.halts.borrow() > 0 {
            return Err(self.cut_short(at, Stop::halted()).await);
        }
        self.judge(at).await
    }

    /// Looks at the instances of the waves until now whose step is `meant`. Returns whether each
    /// has answered that was asked.
    async fn look(
        &mut self,
        at: usize,
        ask: Ask,
        patience: u8,
        meant: impl Fn(&Step) -> bool,
    ) -> bool {
        let mut steps: Vec<&mut Step> = self.plan.waves[..=at]
            .iter_mut()
            .flat_map(|w| &mut w.steps)
            .filter(|s| meant(s))
            .collect();
        let (tell, lost) = (&mut self.tell, &mut self.lost);
        self.host
            .check(&mut steps, ask, (self.halts, patience), &mut |event| {
                *lost |= !tell(event)
            })
            .await
    }

    /// Holds the failures of the waves until now against the budget, and puts back who failed; past
    /// a budget that wants everything back, nobody is put back alone.
    async fn judge(&mut self, at: usize) -> Result<(), Past> {
        loop {
            let failed = self.budget.take(self.plan);
            if failed.ids.is_empty() {
                return Ok(());
            }
            // A file that was away for one may have been read by others, which fail then.
            self.bear(at, failed).await?;
        }
    }

    /// Acts on failures that were not known before.
    async fn bear(&mut self, at: usize, failed: Failed) -> Result<(), Past> {
        let stop = Stop::new(Verdict::Refused, failed.reason);
        let then = failed.then.map(|then| self.allowed(at, then));
        if then == Some(OnFailure::Revert) {
            return Err(Past {
                stop,
                then: OnFailure::Revert,
            });
        }
        if let Err(stop) = self.put_back(at, &failed.ids, &stop.reason).await {
            return Err(Past {
                stop,
                then: self.strictest(at),
            });
        }
        match then {
            Some(OnFailure::Stop) => Err(Past {
                stop,
                then: OnFailure::Stop,
            }),
            _ => {
                self.borne.get_or_insert(stop);
                Ok(())
            }
        }
    }

    /// What follows where a wave could not be ended: no config could be installed, the journal
    /// cannot be written, or the operator halted it.
    async fn cut_short(&mut self, at: usize, stop: Stop) -> Past {
        let then = self.strictest(at);
        if then != OnFailure::Revert {
            // Nobody is left unproven, and no file where nobody runs it, that could be put back.
            let failed = self.budget.take(self.plan);
            let _ = self.put_back(at, &failed.ids, &stop.reason).await;
        }
        Past { stop, then }
    }

    /// What may follow where `then` is wanted.
    fn allowed(&self, at: usize, then: OnFailure) -> OnFailure {
        if self.conduct.now || !self.has_way_back(at) {
            OnFailure::Stop
        } else {
            then
        }
    }

    /// What the strictest group of the waves until now wants where the run cannot go on.
    fn strictest(&self, at: usize) -> OnFailure {
        let members = self.plan.waves[..=at]
            .iter()
            .flat_map(|w| &w.steps)
            .flat_map(|s| &s.members);
        let then = members
            .map(|m| m.group.rollout.on_failure)
            .max()
            .unwrap_or(OnFailure::Stop);
        self.allowed(at, then.max(OnFailure::Stop))
    }

    async fn gates(&mut self, at: usize) -> Result<(), Past> {
        let number = self.plan.waves[at].number;
        for gate in self.plan.waves[at].gates.clone() {
            let members = || self.plan.waves[at].steps.iter().flat_map(|s| &s.members);
            (self.tell)(Event::Phase {
                phase: Phase::Judging,
                done: 0,
                all: 0,
            });
            let instances: Vec<&Instance> = members().map(|m| &m.instance).collect();
            let said = self
                .host
                .gate(&gate, self.conduct.run, number, &instances, self.halts)
                .await;
            self.settled = Instant::now();
            let wanted = members()
                .filter(|m| m.group.rollout.gate == gate)
                .map(|m| m.group.rollout.on_failure)
                .max();
            let then = self.allowed(at, wanted.unwrap_or(OnFailure::Revert));
            let event = Event::Gate {
                wave: number,
                command: gate.clone(),
                exit: said.exit,
                output: said.output.clone(),
            };
            if said.exit != Some(0) {
                self.reason = Some(format!("the gate of wave {number} says no"));
            }
            self.gates.push(event.clone());
            self.say(event);
            if *self.halts.borrow() > 0 {
                return Err(self.cut_short(at, Stop::halted()).await);
            }
            match (said.exit, then) {
                (Some(0), _) => {}
                (_, OnFailure::Continue) => self.warned = true,
                (exit, then) => {
                    let why =
                        exit.map_or(said.output, |code| format!("ended with exit status {code}"));
                    let why = format!(
                        "the gate of wave {number} says no: `{}` {}",
                        gate.join(" "),
                        why.lines().next().unwrap_or_default()
                    );
                    return Err(Past {
                        stop: Stop::new(Verdict::Refused, why),
                        then,
                    });
                }
            }
        }
        Ok(())
    }

    /// Puts back those of `failed` that may have been signalled, and every file of the wave that
    /// nobody is proven on. A file that others are proven on is there again when this returns: it
    /// was away only for those who failed.
    async fn put_back(
        &mut self,
        at: usize,
        failed: &BTreeSet<(i32, u64)>,
        why: &str,
    ) -> Result<(), Stop> {
        if self.conduct.now || *self.halts.borrow() > 1 {
            return Ok(());
        }
        let proven = |m: &Member| {
            matches!(
                m.instance.state,
                State::Confirmed | State::Unconfirmed | State::Unchanged
            )
        };
        let needed: BTreeSet<_> = self
            .plan
            .steps()
            .filter(|s| s.members.iter().any(proven))
            .flat_map(|s| &s.shifts)
            .map(|s| s.path.clone())
            .collect();
        let (mut undo, mut again): (Vec<Step>, Vec<Shift>) = (Vec::new(), Vec::new());
        for step in self.plan.waves[..=at].iter().flat_map(|w| &w.steps) {
            let others = step.shifts.iter().any(|s| needed.contains(&s.path));
            // Who says itself that it kept the old config is where it was, as long as its file
            // stays for the others.
            let touched = |m: &&Member| match m.instance.state {
                State::Rejected => !others,
                _ => failed.contains(&m.id) && m.is_touched(),
            };
            let members: Vec<Member> = step.members.iter().filter(touched).cloned().collect();
            let here = !others
                && step.is_work()
                && step.shifts.iter().any(|s| {
                    self.host.is_installed(&s.path)
                        && self.host.reads(&s.path).as_ref() == Some(&s.to.sha256)
                });
            if members.is_empty() && !here {
                continue;
            }
            let Some(back) = (Step {
                shifts: step.shifts.clone(),
                members,
                undo: false,
            })
            .flip() else {
                continue;
            };
            again.extend(
                step.shifts
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
            .flat_map(|s| &s.members)
            .map(|m| m.instance.pid)
            .collect();
        self.reason = Some(why.to_owned());
        self.say(Event::PutBack {
            pids,
            why: why.to_owned(),
        });
        // What could not be put back shows in the states, and in the digests that are read at the
        // end.
        let _ = commit(
            &mut undo,
            number,
            self.host,
            self.halts,
            self.tell,
            &mut self.lost,
        )
        .await;
        self.plan.settle(&undo);
        self.settled = Instant::now();
        if again.is_empty() {
            return Ok(());
        }
        let paths: BTreeSet<PathBuf> = again.iter().map(|s| s.path.clone()).collect();
        let mut forth = [Step {
            shifts: again,
            members: Vec::new(),
            undo: false,
        }];
        // Neither a halt nor a lost journal must keep those from their file who run it.
        self.lost |= !intend(&forth, number, self.tell);
        let (tell, lost) = (&mut self.tell, &mut self.lost);
        self.host
            .commit(&mut forth, self.halts, &mut |event| *lost |= !tell(event))
            .await?;
        self.readers(at, &paths).await;
        Ok(())
    }

    /// Looks again at every reader of files that were away for an instance which went back alone.
    /// It may have read the old config meanwhile, and that instance the new one since. The answer
    /// of a `hello serve` speaks of every signal that it was sent; any other may be in a reload
    /// still, and is given as long as a reload may take.
    async fn readers(&mut self, at: usize, paths: &BTreeSet<PathBuf>) {
        let reads = |step: &Step| step.shifts.iter().any(|s| paths.contains(&s.path));
        let steps = self.plan.waves[..=at]
            .iter()
            .flat_map(|w| &w.steps)
            .filter(|s| reads(s));
        let members = steps
            .flat_map(|s| &s.members)
            .filter(|m| m.is_good() && m.group.speaks == Speaks::None);
        let wait = members.map(|m| m.timeout).max().unwrap_or_default();
        let patience = (*self.halts.borrow()).min(1);
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            Ok(_) = self.halts.wait_for(|n| *n > patience) => {}
        }
        self.look(at, Ask::All, patience, reads).await;
        self.settled = Instant::now();
    }

    /// Everything goes back, newest first, and is proven.
    async fn revert(&mut self, at: usize, why: String) -> Verdict {
        let number = self.plan.waves[at].number;
        let begun: Vec<&Step> = self
            .plan
            .waves
            .iter()
            .rev()
            .filter(|w| self.conduct.goes_on || w.number <= number)
            .flat_map(|w| &w.steps)
            .filter(|s| self.counts(s))
            .collect();
        let back: BTreeSet<&Path> = begun
            .iter()
            .flat_map(|s| &s.shifts)
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
            .filter(|s| s.shifts.iter().any(|s| back.contains(s.path.as_path())))
            .filter_map(Step::flip)
            .filter(|s| !s.members.is_empty());
        let mut undo: Vec<Step> = readers
            .chain(begun.iter().filter_map(|s| s.flip()))
            .collect();
        self.reason = Some(why.clone());
        self.say(Event::UndoBegan { why });
        self.settled = Instant::now();
        // What could not be put back shows in the states, and in the digests that are read below.
        let _ = commit(
            &mut undo,
            number,
            self.host,
            self.halts,
            self.tell,
            &mut self.lost,
        )
        .await;
        self.plan.settle(&undo);
        self.seen(true).await
    }
}

fn is_work(wave: &Wave) -> bool {
    wave.steps.iter().any(Step::is_work)
}

fn unwritten() -> Stop {
    Stop::new(Verdict::Failed, "the journal cannot be written")
}

/// Puts on the disk what is about to be done; answers whether the journal took it.
fn intend(steps: &[Step], wave: usize, tell: &mut impl FnMut(Event) -> bool) -> bool {
    let undo = steps.iter().any(|s| s.undo);
    let targets = steps
        .iter()
        .flat_map(|s| &s.shifts)
        .map(|s| s.report(None))
        .collect();
    let signalled = steps
        .iter()
        .flat_map(|s| &s.members)
        .map(|m| &m.instance)
        .filter(|i| i.state != State::Unchanged);
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
    halts: &mut Halts,
    tell: &mut impl FnMut(Event) -> bool,
    lost: &mut bool,
) -> Result<(), Stop> {
    let undo = steps.iter().any(|s| s.undo);
    // Nobody is intended to be touched who will not be. An undo is only ended by the second halt.
    if *halts.borrow() > u8::from(undo) {
        return Err(Stop::halted());
    }
    let kept = intend(steps, wave, tell);
    *lost |= !kept;
    if !undo && !kept {
        return Err(unwritten());
    }
    if !undo && *halts.borrow() > 0 {
        return Err(Stop::halted());
    }
    host.commit(steps, halts, &mut |event| *lost |= !tell(event))
        .await?;
    if !undo && *halts.borrow() > 0 {
        return Err(Stop::halted());
    }
    if *lost && !undo {
        return Err(unwritten());
    }
    Ok(())
}
