//! The fourth verb: whether what was proven is so still, without a signal.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    event::{Event, Failure, FailureKind, Interrupts, Outcome},
    host::{
        local::{commit::failed_event, host::LocalHost},
        parallel::{admission::run_admitted, par_map::par_map},
        probe::{
            confirm::{confirm, foreign_listeners_in, sharing_text},
            limits::ProbeLimits,
            lost_listeners,
        },
        proc::{
            guard::{Presence, is_over, presence, sees_the_same},
            pidfd::{SignalError, SignalledProcess, hold},
        },
        reload::{
            context::ProofContext,
            prove::expected_after,
            successor::{self},
        },
    },
    step::{PlannedInstance, Step, TargetChange},
};

/// Which instances a look asks anew, and reads the files of; all others must only live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recheck {
    /// Each that was seen on the config that its state speaks of.
    All,
    /// Each that was seen on it before this moment.
    SeenBefore(Instant),
    /// The same at the end of a run, which reads the files itself.
    AtTheEnd(Instant),
}

impl Recheck {
    pub(crate) fn covers(self, member: &PlannedInstance) -> bool {
        match self {
            Self::All => true,
            Self::SeenBefore(moment) | Self::AtTheEnd(moment) => {
                member.proven_at.is_none_or(|at| at < moment)
            }
        }
    }
}

/// Why one whose process is not there any more proves nothing, where no other was looked for in its
/// place.
const GONE: &str = "it ended, or is another process by now, and the run was interrupted before \
                    its successor was looked for";

impl LocalHost {
    pub(crate) async fn check(
        &mut self,
        steps: &mut [&mut Step],
        ask: Recheck,
        (halts, patience): (&mut Interrupts, u8),
        tell: &mut impl FnMut(Event),
    ) -> bool {
        let (lanes, since, surveyed, begun, targets, openings) = (
            &self.limits,
            &self.since,
            &self.surveyed,
            &RefCell::default(),
            &self.targets,
            &self.openings,
        );
        let backs: Vec<Vec<TargetChange>> = steps.iter().map(|step| back(step)).collect();
        let all = steps.iter_mut().zip(&backs).flat_map(|(step, back)| {
            let shifts = step.changes.as_slice();
            step.instances.iter_mut().map(move |m| {
                (
                    if m.instance.outcome == Outcome::Reverted {
                        back.as_slice()
                    } else {
                        shifts
                    },
                    m,
                )
            })
        });
        let all: Vec<(&[TargetChange], &mut PlannedInstance)> =
            all.filter(|(_, m)| claims_config(m)).collect();
        // Their files are read when they have answered; at the end of a run it reads them itself.
        let reads = !matches!(ask, Recheck::AtTheEnd(_));
        let looked: BTreeSet<(i32, u64)> = all
            .iter()
            .filter(|(_, m)| reads && ask.covers(m))
            .map(|(_, m)| m.id)
            .collect();
        let there = par_map(
            &all.iter().map(|(_, m)| &m.instance).collect::<Vec<_>>(),
            |i| presence(i.pid, i.started, &i.exe),
        );
        let is_same = |there: &Presence| matches!(there, Presence::Same(_));
        let asked: Vec<_> = all
            .into_iter()
            .zip(there)
            .filter(|((_, m), there)| !is_same(there) || (shows_config(m) && ask.covers(m)))
            .collect();
        let mut gone: BTreeSet<(i32, u64)> = asked
            .iter()
            .filter(|(_, there)| !is_same(there))
            .map(|((_, m), _)| m.id)
            .collect();
        let nothing = asked.is_empty();
        let wait = |((shifts, member), _), turn| async move {
            let member: &mut PlannedInstance = member;
            let id = member.id;
            let fresh = ProofContext {
                changes: shifts,
                since,
                surveyed,
                undo: member.instance.outcome == Outcome::Reverted,
                slot: &turn,
                mark_signalled: begun,
                targets,
                openings,
            };
            let seen = recheck(Box::new(member.clone()), fresh, lanes).await;
            let is_new = !claims_config(&seen) || seen.instance.pid != member.instance.pid;
            *member = *seen;
            (id, is_new.then(|| Event::of(&member.instance)))
        };
        let each = |(id, new): (_, Option<Event>)| {
            gone.remove(&id);
            new.into_iter().for_each(&mut *tell);
        };
        // None of them is signalled, so one that is not waited for any more is what it was, if it
        // is there.
        let is_whole = run_admitted(
            asked.into_iter(),
            wait,
            self.parallel_reloads,
            halts,
            patience,
            each,
        )
        .await
            || nothing;
        for member in steps
            .iter_mut()
            .flat_map(|step| &mut step.instances)
            .filter(|m| gone.contains(&m.id))
        {
            tell(mark_lost(
                member,
                Failure {
                    kind: Outcome::TimedOut.into(),
                    text: GONE.into(),
                },
            ));
        }
        self.foreign_listeners(steps, tell);
        if looked.is_empty() {
            return is_whole;
        }
        // Last, so that a change between the reading of a file and the proofs is seen. Many read
        // the same one.
        let mut stands: BTreeMap<&Path, bool> = BTreeMap::new();
        for Step {
            changes: shifts,
            instances: members,
            ..
        } in steps.iter_mut().map(|step| &mut **step)
        {
            let other = shifts.iter().find(|s| {
                let is = || {
                    self.targets
                        .get(&s.path)
                        .is_none_or(|target| target.holds(&s.to))
                };
                !*stands.entry(&s.path).or_insert_with(is)
            });
            for member in members.iter_mut().filter(|m| {
                shows_config(m) && m.instance.outcome != Outcome::Reverted && looked.contains(&m.id)
            }) {
                let i = &member.instance;
                let text = match (
                    other,
                    i.targets.iter().find(|path| !sees_the_same(i.pid, path)),
                ) {
                    (Some(shift), _) => format!(
                        "`{}` was changed by another program since",
                        shift.path.display()
                    ),
                    // One that has ended sees nothing.
                    (None, Some(_)) if is_over(i.pid, i.started, &i.exe) => {
                        tell(mark_lost(
                            member,
                            Failure {
                                kind: Outcome::Died.into(),
                                text: "the process ended".into(),
                            },
                        ));
                        continue;
                    }
                    (None, Some(path)) => format!(
                        "sees another file at `{}` than this host does",
                        path.display()
                    ),
                    (None, None) => continue,
                };
                tell(mark_lost(
                    member,
                    Failure {
                        kind: Outcome::TimedOut.into(),
                        text,
                    },
                ));
            }
        }
        is_whole
    }

    /// Fails every instance on whose address a process outside of the run listens by now. What was
    /// seen of it is older than this look.
    fn foreign_listeners(&self, steps: &mut [&mut Step], tell: &mut impl FnMut(Event)) {
        let Ok(listeners) = self.limits.listeners(Duration::ZERO) else {
            return;
        };
        for member in steps
            .iter_mut()
            .flat_map(|step| &mut step.instances)
            .filter(|m| shows_config(m))
        {
            let others = foreign_listeners_in(member, &listeners, &self.limits);
            if !others.is_empty() {
                tell(mark_lost(
                    member,
                    Failure {
                        kind: FailureKind::ForeignListener,
                        text: sharing_text(&others),
                    },
                ));
            }
        }
    }
}

/// Ends the claim of an instance that has none any more, for this reason; answers its new state.
pub(crate) fn mark_lost(member: &mut PlannedInstance, trouble: Failure) -> Event {
    let state = if member.instance.outcome == Outcome::Reverted {
        Outcome::RevertFailed
    } else {
        Outcome::TimedOut
    };
    member.instance.proof = None;
    member.fail(state, no_longer_failure(trouble));
    Event::of(&member.instance)
}

/// What a step installs on the way back, where an instance of it went back; else nothing.
fn back(step: &Step) -> Vec<TargetChange> {
    let went_back = step
        .instances
        .iter()
        .any(|m| m.instance.outcome == Outcome::Reverted);
    if went_back {
        step.changes_back().unwrap_or_default()
    } else {
        Vec::new()
    }
}

/// Whether its state says that it lives.
fn claims_config(member: &PlannedInstance) -> bool {
    shows_config(member) || member.instance.outcome == Outcome::Rejected
}

/// Whether its state says what it runs, or that nothing is wrong with it.
fn shows_config(member: &PlannedInstance) -> bool {
    matches!(
        member.instance.outcome,
        Outcome::Confirmed | Outcome::Unconfirmed | Outcome::Unchanged | Outcome::Reverted
    )
}

fn no_longer_failure(trouble: Failure) -> Failure {
    Failure {
        text: format!("no longer proven: {}", trouble.text),
        ..trouble
    }
}

/// Asks one that was proven once more; answers it as it was, or with its trouble, or its successor.
async fn recheck(
    mut member: Box<PlannedInstance>,
    fresh: ProofContext<'_>,
    lanes: &ProbeLimits,
) -> Box<PlannedInstance> {
    let Err(trouble) = proves(&mut member, fresh, lanes).await else {
        member.proven_at = Some(Instant::now());
        return member;
    };
    // Only few need it, and every one that is waited for would have its size.
    Box::new(
        Box::pin(failed_event(
            *member,
            no_longer_failure(trouble),
            fresh,
            lanes,
        ))
        .await,
    )
}

async fn proves(
    member: &mut PlannedInstance,
    fresh: ProofContext<'_>,
    lanes: &ProbeLimits,
) -> Result<(), Failure> {
    let trouble = |kind: Outcome, text| Failure {
        kind: kind.into(),
        text,
    };
    let pidfd = hold(&member.instance).map_err(|e| match e {
        SignalError::Gone(text) => trouble(Outcome::Died, text),
        SignalError::Refused(text) => trouble(Outcome::TimedOut, text),
    })?;
    if !shows_config(member) {
        return Ok(());
    }
    if member.instance.outcome == Outcome::Unconfirmed
        && let Some(fault) = lost_listeners::fault(member, lanes)
    {
        return Err(fault);
    }
    if member.instance.successor_of.is_some() {
        fresh.slot.give_back();
        // What comparing facts compare with is the other one's.
        return Box::pin(successor::proven(member, fresh, member.timeout, lanes))
            .await
            .map(drop);
    }
    let Some(wanted) = expected_after(member, fresh.changes, fresh.undo)? else {
        return Ok(());
    };
    let when = member.signalled.unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let hung = SignalledProcess {
        pid: member.instance.pid,
        started: member.instance.started,
        pidfd,
        at: Instant::now(),
        when,
    };
    confirm(&hung, member, &wanted, lanes, fresh.slot, None)
        .await
        .map(drop)
}
