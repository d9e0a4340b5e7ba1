//! The third verb: install, hang up, confirm. An undo is the same over flipped steps.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{Duration, Instant},
};

use crate::{
    event::{Abort, Event, Failure, INTERRUPTED, Instance, Interrupts, Outcome, Proof, Verdict},
    fleet::Speaks,
    host::{
        local::{host::LocalHost, survey::install_abort},
        parallel::admission::run_admitted,
        probe::limits::ProbeLimits,
        proc::snapshot::ProcessSnapshot,
        reload::{
            context::ProofContext,
            opened::Opened,
            prove::{Proven, prove},
            restart_command::{self, restart_command},
            successor::{self},
        },
        target::install::sync_names,
    },
    step::{PlannedInstance, Step, TargetChange},
};

/// Why an instance is not proven on the old config.
const UNSEEN: &str = "nothing that can be seen of it shows that it went back";

impl LocalHost {
    pub(crate) async fn commit(
        &mut self,
        steps: &mut [Step],
        halts: &mut Interrupts,
        tell: &mut impl FnMut(Event),
    ) -> Result<(), Abort> {
        let undo = steps.iter().any(|s| s.undo);
        let stuck = self.install(steps, tell)?;
        // What changes behind a target from now on may or may not be read.
        for path in steps
            .iter()
            .flat_map(|step| &step.changes)
            .map(|shift| &shift.path)
        {
            if let Some(follow) = self.follows.get_mut(path) {
                follow.look(path);
            }
        }
        // Whoever would read a file that could not be put back is left as it is, and named;
        // everybody else goes back.
        for step in steps.iter_mut() {
            let Some(stop) = step.changes.iter().find_map(|s| stuck.get(&s.path)) else {
                continue;
            };
            for member in &mut step.instances {
                let text = format!("its config could not be put back: {}", stop.reason);
                let state = if member.instance.outcome == Outcome::Died {
                    Outcome::Died
                } else {
                    Outcome::RevertFailed
                };
                member.fail(
                    state,
                    Failure {
                        kind: state.into(),
                        text,
                    },
                );
                tell(Event::of(&member.instance));
            }
        }
        let is_free = |step: &Step| !step.changes.iter().any(|s| stuck.contains_key(&s.path));
        // One that speaks our protocol tells the digest of what it has read.
        let is_watched = |m: &PlannedInstance| {
            m.group.speaks == Speaks::None && m.instance.outcome != Outcome::Unchanged
        };
        self.openings.mark(
            steps
                .iter()
                .filter(|step| step.instances.iter().any(is_watched))
                .flat_map(|step| &step.changes),
        );
        let (lanes, since, surveyed, targets, openings) = (
            &self.limits,
            &self.since,
            &self.surveyed,
            &self.targets,
            &self.openings,
        );
        let free = steps
            .iter_mut()
            .enumerate()
            .filter(|(_, step)| is_free(step));
        let begun = &RefCell::new(BTreeSet::new());
        let all = free.flat_map(|(at, step)| {
            let shifts = step.changes.as_slice();
            step.instances
                .iter_mut()
                .enumerate()
                .map(move |(place, m)| (at, place, shifts, m))
        });
        let signalled = all.filter(|(.., m)| m.instance.outcome != Outcome::Unchanged);
        let wait = |(at, place, shifts, member), turn| async move {
            let member: &mut PlannedInstance = member;
            let fresh = ProofContext {
                changes: shifts,
                since,
                surveyed,
                undo,
                slot: &turn,
                mark_signalled: begun,
                targets,
                openings,
            };
            // Whoever is not waited for to the end stays what it was.
            let (seen, not_opened) =
                reload_and_confirm(Box::new(member.clone()), fresh, lanes).await;
            *member = *seen;
            (at, place, Event::of(&member.instance), not_opened)
        };
        let (mut ended, mut not_opened) = (BTreeSet::new(), BTreeMap::new());
        // The halt of the operator: no new signal, and nobody is waited for any more.
        let finished = run_admitted(
            signalled,
            wait,
            self.parallel_reloads
                .saturating_sub(self.held.now / 2)
                .max(16),
            halts,
            u8::from(undo),
            |(at, place, event, other)| {
                if let (Some(path), Event::Instance { group, pid, .. }) = (other, &event) {
                    not_opened
                        .entry((group.clone(), path))
                        .or_insert((*pid, 0))
                        .1 += 1;
                }
                tell(event);
                ended.insert((at, place));
            },
        )
        .await;
        for ((group, path), (pid, instances)) in not_opened {
            let event = Event::NotOpened {
                group,
                pid,
                instances,
                path,
            };
            self.notes.push(event.clone());
            tell(event);
        }
        if !finished {
            let state = if undo {
                Outcome::RevertFailed
            } else {
                Outcome::TimedOut
            };
            let begun = begun.take();
            // Perhaps signalled, and their proof was not waited for: they count as touched. The
            // others are what they were.
            for (at, step) in steps
                .iter_mut()
                .enumerate()
                .filter(|(_, step)| is_free(step))
            {
                let open = step.instances.iter_mut().enumerate().filter(|(place, m)| {
                    !ended.contains(&(at, *place)) && m.instance.outcome != Outcome::Unchanged
                });
                let open = open.filter(|(_, m)| undo || begun.contains(&m.id));
                open.for_each(|(_, member)| {
                    member.signalled.get_or_insert_with(jiff::Timestamp::now);
                    member.fail(
                        state,
                        Failure {
                            kind: state.into(),
                            text: INTERRUPTED.into(),
                        },
                    );
                });
            }
        }
        stuck.into_values().next().map_or(Ok(()), Err)
    }

    /// Makes every target what its step wants, and reads it back. On the way back, it goes on with
    /// every one that it can put back, and answers the others.
    fn install(
        &mut self,
        steps: &[Step],
        tell: &mut impl FnMut(Event),
    ) -> Result<BTreeMap<PathBuf, Abort>, Abort> {
        let mut exchanged = BTreeMap::new();
        let mut stuck = self.exchange(steps, &mut exchanged);
        if exchanged.is_empty() {
            return stuck;
        }
        // One look at who is there by now and one sync serve them all.
        let since = ProcessSnapshot::now().unwrap_or_else(|_| ProcessSnapshot::unseen());
        let synced = sync_names(exchanged.keys().filter_map(|path| self.targets.get(*path)))
            .map_err(install_abort);
        for (path, shift) in exchanged {
            self.since.insert(path.clone(), since.clone());
            match (&synced, &mut stuck) {
                (Ok(()), Ok(stuck)) if stuck.contains_key(path) => {}
                (Ok(()), _) => tell(Event::Installed {
                    path: path.clone(),
                    sha256: shift.to.sha256.clone(),
                }),
                (Err(stop), Ok(stuck)) if steps.iter().any(|s| s.undo) => {
                    stuck
                        .entry(path.clone())
                        .or_insert_with(|| Abort::new(stop.verdict, stop.reason.clone()));
                }
                (Err(_), _) => {}
            }
        }
        match synced {
            Err(stop) if !steps.iter().any(|s| s.undo) => stuck.and(Err(stop)),
            _ => stuck,
        }
    }

    fn exchange<'a>(
        &mut self,
        steps: &'a [Step],
        exchanged: &mut BTreeMap<&'a PathBuf, &'a TargetChange>,
    ) -> Result<BTreeMap<PathBuf, Abort>, Abort> {
        let run = self.run.clone();
        let mut stuck = BTreeMap::new();
        for (step, shift) in steps
            .iter()
            .flat_map(|step| step.changes.iter().map(move |shift| (step, shift)))
        {
            let Some(from) = &shift.from else { continue };
            let Some(target) = self.targets.get_mut(&shift.path) else {
                continue;
            };
            let is_held = self.held.now < self.held.most;
            target.hold(is_held);
            let said = target
                .install(&from.sha256, &shift.to, &run)
                .map_err(install_abort);
            if matches!(said, Ok(true)) {
                exchanged.insert(&shift.path, shift);
                if !target.is_directory() {
                    *(if is_held {
                        &mut self.held.now
                    } else {
                        &mut self.held.not
                    }) += 1;
                }
            }
            let said = match said {
                Ok(_) if !target.holds(&shift.to) => Err(Abort::new(
                    Verdict::Refused,
                    format!(
                        "`{}` does not hold what was installed",
                        shift.path.display()
                    ),
                )),
                said => said,
            };
            match said {
                Ok(_) => drop(stuck.remove(&shift.path)),
                Err(stop) if step.undo => drop(stuck.entry(shift.path.clone()).or_insert(stop)),
                Err(stop) => return Err(stop),
            }
        }
        Ok(stuck)
    }
}

/// Signals an instance and waits for its end; answers a target that it was not seen to open as
/// well. What only few need is kept apart: of ten thousand that are waited for, each has all of
/// this.
async fn reload_and_confirm(
    mut member: Box<PlannedInstance>,
    fresh: ProofContext<'_>,
    lanes: &ProbeLimits,
) -> (Box<PlannedInstance>, Option<PathBuf>) {
    let ProofContext {
        changes: shifts,
        undo,
        slot: turn,
        ..
    } = fresh;
    member.instance.opened = None;
    if member.unresponsive || member.instance.outcome == Outcome::Died {
        turn.give_back();
    }
    let said = match member.instance.outcome {
        // Only the old config is there again.
        Outcome::Died if undo && !member.group.revive.is_empty() => {
            match Box::pin(restart_command(&member, fresh, lanes)).await {
                Ok(new) => return (Box::new(new), None),
                Err(trouble) => {
                    // Why it died stays first; why it is not there again is what the operator
                    // needs.
                    if let Some(first) = &mut member.instance.failure {
                        first.text = format!("{}; {}", first.text, trouble.text);
                    }
                    Err(trouble)
                }
            }
        }
        _ => prove(&mut member, fresh, lanes).await,
    };
    let not_opened = match &said {
        Ok(shown) => wait_for_opening(&mut member, shown, fresh).await,
        Err(_) => None,
    };
    match said {
        // It may run what another file says.
        Ok(Proven::Config(..))
            if let Some(path) = not_opened
                .as_ref()
                .filter(|path| member.assumed.contains(path)) =>
        {
            let path = path.display();
            let text = format!(
                "it was not seen to open `{path}`, and its command line does not say for certain \
                 that it reads that: say in its group which `config` it reads"
            );
            let state = if undo {
                Outcome::RevertFailed
            } else {
                Outcome::Unconfirmed
            };
            (member.instance.proof, member.proven_at) = (Some(Proof::None), Some(Instant::now()));
            member.fail(
                state,
                Failure {
                    kind: Outcome::Unconfirmed.into(),
                    text,
                },
            );
        }
        Ok(Proven::Config(proof, took)) => {
            member.instance.outcome = if undo {
                Outcome::Reverted
            } else {
                Outcome::Confirmed
            };
            (member.instance.proof, member.proven_at) = (Some(proof), Some(Instant::now()));
            member.signal_may_be_pending = false;
            member.instance.took_us = u64::try_from(took.as_micros()).ok();
            let is_known = !undo || !member.is_back_by_answers_alone();
            member.instance.after = shifts
                .first()
                .filter(|_| is_known)
                .map(|s| s.to.sha256.clone());
        }
        Ok(Proven::Life) if !undo => {
            (member.instance.outcome, member.instance.proof) =
                (Outcome::Unconfirmed, Some(Proof::None));
            member.proven_at = Some(Instant::now());
        }
        Ok(Proven::Life) => member.fail(
            Outcome::RevertFailed,
            Failure {
                kind: Outcome::Unconfirmed.into(),
                text: UNSEEN.into(),
            },
        ),
        Err(trouble) => {
            return (
                Box::new(Box::pin(failed_event(*member, trouble, fresh, lanes)).await),
                None,
            );
        }
    }
    (member, not_opened)
}

/// Takes down whether an instance has opened its targets since its signal; answers one that it was
/// not seen to open.
async fn wait_for_opening(
    member: &mut PlannedInstance,
    shown: &Proven,
    fresh: ProofContext<'_>,
) -> Option<PathBuf> {
    let left = if let Proven::Config(_, took) = shown {
        member.timeout.saturating_sub(*took)
    } else {
        Duration::ZERO
    };
    let said = if member.group.speaks == Speaks::None {
        fresh.openings.of(member, left).await
    } else {
        Opened::Unknown
    };
    let (opened, path) = match said {
        Opened::Each => (Some(true), None),
        Opened::Not(path) => (Some(false), Some(path)),
        Opened::Unknown => (None, None),
    };
    member.instance.opened = opened;
    path
}

/// One that proves nothing; or who has taken its place, if that is why.
pub(crate) async fn failed_event(
    mut member: PlannedInstance,
    trouble: Failure,
    fresh: ProofContext<'_>,
    lanes: &ProbeLimits,
) -> PlannedInstance {
    fresh.slot.give_back();
    let state = match (fresh.undo, trouble.kind.outcome()) {
        (_, Outcome::Died) => Outcome::Died,
        (true, _) => Outcome::RevertFailed,
        (false, state) => state,
    };
    if state == Outcome::Died
        && let Some(new) = succeeded_event(&member, fresh, lanes).await
    {
        return new;
    }
    if matches!(
        (state, member.instance.outcome),
        (Outcome::Died, _) | (_, Outcome::Died)
    ) {
        member.instance.start = restart_command::command(&member);
    }
    member.instance.proof = None;
    // Its first trouble stays; why the way back failed as well is what the operator needs next.
    if let (true, Some(first)) = (
        fresh.undo && state == Outcome::RevertFailed,
        &mut member.instance.failure,
    ) && first.text != trouble.text
    {
        first.text = format!("{}; after the rollback: {}", first.text, trouble.text);
    }
    member.fail(state, trouble);
    member
}

/// Who took its place, where somebody did: proven, or named with what it does not prove.
async fn succeeded_event(
    member: &PlannedInstance,
    fresh: ProofContext<'_>,
    lanes: &ProbeLimits,
) -> Option<PlannedInstance> {
    let found = successor::find_successor(member, fresh.surveyed, lanes).await?;
    let mut new = match successor::prove(&found, member, fresh, member.timeout, lanes).await {
        Ok(new) => new,
        // Nobody is there, as without it.
        Err(trouble) if trouble.kind.outcome() == Outcome::Died => return None,
        Err(trouble) => {
            let instance = Instance {
                wave: member.instance.wave,
                ..found.instance(&member.instance.group)
            };
            let mut new = PlannedInstance {
                instance,
                identity: found.identity(&member.group),
                attempt_seq: 0,
                ..member.clone()
            };
            new.fail(
                if fresh.undo {
                    Outcome::RevertFailed
                } else {
                    Outcome::TimedOut
                },
                trouble,
            );
            new
        }
    };
    new.instance.successor_of = Some(member.instance.pid);
    Some(new)
}
