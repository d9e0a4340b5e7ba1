//! The fourth verb: whether what was proven is so still, without a signal.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    event::{Event, Halts, State, Trouble, TroubleKind},
    host::{
        local::{commit::failed, host::LocalHost},
        parallel::{at_once::at_once, turns::all_of},
        probe::{
            confirm::{confirm, shares, strangers_in},
            lanes::Lanes,
            lost,
        },
        proc::{
            guard::{Presence, is_over, presence, sees_the_same},
            pidfd::{Hung, NotHung, hold},
        },
        reload::{
            fresh::Fresh,
            prove::still,
            successor::{self},
        },
    },
    step::{Member, Shift, Step},
};

/// Which instances a look asks anew, and reads the files of; all others must only live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// Each that was seen on the config that its state speaks of.
    All,
    /// Each that was seen on it before this moment.
    SeenBefore(Instant),
    /// The same at the end of a run, which reads the files itself.
    AtTheEnd(Instant),
}

impl Ask {
    pub(crate) fn means(self, member: &Member) -> bool {
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
        ask: Ask,
        (halts, patience): (&mut Halts, u8),
        tell: &mut impl FnMut(Event),
    ) -> bool {
        let (lanes, since, surveyed, begun, targets, openings) = (
            &self.lanes,
            &self.since,
            &self.surveyed,
            &RefCell::default(),
            &self.targets,
            &self.openings,
        );
        let backs: Vec<Vec<Shift>> = steps.iter().map(|step| back(step)).collect();
        let all = steps.iter_mut().zip(&backs).flat_map(|(step, back)| {
            let shifts = step.shifts.as_slice();
            step.members.iter_mut().map(move |m| {
                (
                    if m.instance.state == State::Reverted {
                        back.as_slice()
                    } else {
                        shifts
                    },
                    m,
                )
            })
        });
        let all: Vec<(&[Shift], &mut Member)> = all.filter(|(_, m)| claims(m)).collect();
        // Their files are read when they have answered; at the end of a run it reads them itself.
        let reads = !matches!(ask, Ask::AtTheEnd(_));
        let looked: BTreeSet<(i32, u64)> = all
            .iter()
            .filter(|(_, m)| reads && ask.means(m))
            .map(|(_, m)| m.id)
            .collect();
        let there = at_once(
            &all.iter().map(|(_, m)| &m.instance).collect::<Vec<_>>(),
            |i| presence(i.pid, i.started, &i.exe),
        );
        let is_same = |there: &Presence| matches!(there, Presence::Same(_));
        let asked: Vec<_> = all
            .into_iter()
            .zip(there)
            .filter(|((_, m), there)| !is_same(there) || (shows(m) && ask.means(m)))
            .collect();
        let mut gone: BTreeSet<(i32, u64)> = asked
            .iter()
            .filter(|(_, there)| !is_same(there))
            .map(|((_, m), _)| m.id)
            .collect();
        let nothing = asked.is_empty();
        let wait = |((shifts, member), _), turn| async move {
            let member: &mut Member = member;
            let id = member.id;
            let fresh = Fresh {
                shifts,
                since,
                surveyed,
                undo: member.instance.state == State::Reverted,
                turn: &turn,
                begun,
                targets,
                openings,
            };
            let seen = again(Box::new(member.clone()), fresh, lanes).await;
            let is_new = !claims(&seen) || seen.instance.pid != member.instance.pid;
            *member = *seen;
            (id, is_new.then(|| Event::of(&member.instance)))
        };
        let each = |(id, new): (_, Option<Event>)| {
            gone.remove(&id);
            new.into_iter().for_each(&mut *tell);
        };
        // None of them is signalled, so one that is not waited for any more is what it was, if it
        // is there.
        let is_whole =
            all_of(asked.into_iter(), wait, self.at_once, halts, patience, each).await || nothing;
        for member in steps
            .iter_mut()
            .flat_map(|step| &mut step.members)
            .filter(|m| gone.contains(&m.id))
        {
            tell(lose(
                member,
                Trouble {
                    kind: State::TimedOut.into(),
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
            shifts, members, ..
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
                shows(m) && m.instance.state != State::Reverted && looked.contains(&m.id)
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
                        tell(lose(
                            member,
                            Trouble {
                                kind: State::Died.into(),
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
                tell(lose(
                    member,
                    Trouble {
                        kind: State::TimedOut.into(),
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
        let Ok(listeners) = self.lanes.listeners(Duration::ZERO) else {
            return;
        };
        for member in steps
            .iter_mut()
            .flat_map(|step| &mut step.members)
            .filter(|m| shows(m))
        {
            let others = strangers_in(member, &listeners, &self.lanes);
            if !others.is_empty() {
                tell(lose(
                    member,
                    Trouble {
                        kind: TroubleKind::Stranger,
                        text: shares(&others),
                    },
                ));
            }
        }
    }
}

/// Ends the claim of an instance that has none any more, for this reason; answers its new state.
pub(crate) fn lose(member: &mut Member, trouble: Trouble) -> Event {
    let state = if member.instance.state == State::Reverted {
        State::RevertFailed
    } else {
        State::TimedOut
    };
    member.instance.proof = None;
    member.fail(state, no_longer(trouble));
    Event::of(&member.instance)
}

/// What a step installs on the way back, where an instance of it went back; else nothing.
fn back(step: &Step) -> Vec<Shift> {
    let went_back = step
        .members
        .iter()
        .any(|m| m.instance.state == State::Reverted);
    if went_back {
        step.shifts_back().unwrap_or_default()
    } else {
        Vec::new()
    }
}

/// Whether its state says that it lives.
fn claims(member: &Member) -> bool {
    shows(member) || member.instance.state == State::Rejected
}

/// Whether its state says what it runs, or that nothing is wrong with it.
fn shows(member: &Member) -> bool {
    matches!(
        member.instance.state,
        State::Confirmed | State::Unconfirmed | State::Unchanged | State::Reverted
    )
}

fn no_longer(trouble: Trouble) -> Trouble {
    Trouble {
        text: format!("no longer proven: {}", trouble.text),
        ..trouble
    }
}

/// Asks one that was proven once more; answers it as it was, or with its trouble, or its successor.
async fn again(mut member: Box<Member>, fresh: Fresh<'_>, lanes: &Lanes) -> Box<Member> {
    let Err(trouble) = proves(&mut member, fresh, lanes).await else {
        member.proven_at = Some(Instant::now());
        return member;
    };
    // Only few need it, and every one that is waited for would have its size.
    Box::new(Box::pin(failed(*member, no_longer(trouble), fresh, lanes)).await)
}

async fn proves(member: &mut Member, fresh: Fresh<'_>, lanes: &Lanes) -> Result<(), Trouble> {
    let trouble = |kind: State, text| Trouble {
        kind: kind.into(),
        text,
    };
    let pidfd = hold(&member.instance).map_err(|e| match e {
        NotHung::Gone(text) => trouble(State::Died, text),
        NotHung::Refused(text) => trouble(State::TimedOut, text),
    })?;
    if !shows(member) {
        return Ok(());
    }
    if member.instance.state == State::Unconfirmed
        && let Some(fault) = lost::fault(member, lanes)
    {
        return Err(fault);
    }
    if member.instance.successor_of.is_some() {
        fresh.turn.give_back();
        // What comparing facts compare with is the other one's.
        return Box::pin(successor::proven(member, fresh, member.timeout, lanes))
            .await
            .map(drop);
    }
    let Some(wanted) = still(member, fresh.shifts, fresh.undo)? else {
        return Ok(());
    };
    let when = member.signalled.unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let hung = Hung {
        pid: member.instance.pid,
        started: member.instance.started,
        pidfd,
        at: Instant::now(),
        when,
    };
    confirm(&hung, member, &wanted, lanes, fresh.turn, None)
        .await
        .map(drop)
}
