//! The fourth verb: whether what was proven is so still, without a signal.

use std::{collections::BTreeMap, path::Path, time::Instant};

use crate::{
    event::{Event, Halts, State, Trouble},
    host::{
        LocalHost,
        commit::{failed, still},
        confirm::confirm,
        guard::sees_the_same,
        hangup::{Hung, NotHung, hold},
        http::Lanes,
        successor::{self, Fresh},
        turns::all_of,
    },
    step::{Member, Step},
};

impl LocalHost {
    pub(super) async fn check(&mut self, steps: &mut [&mut Step], halts: &mut Halts, tell: &mut impl FnMut(Event)) {
        let (lanes, since, surveyed) = (&self.lanes, &self.since, &self.surveyed);
        let all = steps.iter_mut().flat_map(|step| {
            let shifts = step.shifts.as_slice();
            step.members.iter_mut().map(move |m| (shifts, m))
        });
        let wait = |(shifts, member), turn| async move {
            let member: &mut Member = member;
            let fresh = Fresh { shifts, since, surveyed, undo: false, turn: &turn };
            let seen = again(Box::new(member.clone()), fresh, lanes).await;
            let is_new = !is_proven(&seen) || seen.instance.pid != member.instance.pid;
            *member = *seen;
            is_new.then(|| Event::of(&member.instance))
        };
        // Nobody was touched, so whoever is not waited for any more is what it was.
        all_of(all.filter(|(_, m)| is_proven(m)), wait, self.at_once, halts, 0, |new| new.into_iter().for_each(&mut *tell)).await;
        // Last, so that nobody can change a file between its reading and the proofs. Many read the same one.
        let mut stands: BTreeMap<&Path, bool> = BTreeMap::new();
        for Step { shifts, members, .. } in steps.iter_mut().map(|step| &mut **step) {
            let other = shifts.iter().find(|s| {
                let is = || self.targets.get(&s.path).is_none_or(|target| target.digest().as_ref() == Some(&s.to.sha256));
                !*stands.entry(&s.path).or_insert_with(is)
            });
            for member in members.iter_mut().filter(|m| is_proven(m)) {
                let i = &member.instance;
                let text = match (other, i.targets.iter().find(|path| !sees_the_same(i.pid, path))) {
                    (Some(shift), _) => format!("`{}` was changed by somebody else since", shift.path.display()),
                    (None, Some(path)) => format!("sees another file at `{}` than this host does", path.display()),
                    (None, None) => continue,
                };
                member.instance.proof = None;
                member.fail(State::TimedOut, no_longer(Trouble { kind: State::TimedOut.into(), text }));
                tell(Event::of(&member.instance));
            }
        }
    }
}

/// Whether it was proven, or can only be seen to live.
fn is_proven(member: &Member) -> bool {
    matches!(member.instance.state, State::Confirmed | State::Unconfirmed)
}

fn no_longer(trouble: Trouble) -> Trouble {
    Trouble { text: format!("no longer proven: {}", trouble.text), ..trouble }
}

/// Asks one that was proven once more; answers it as it was, or with its trouble, or who has taken its place.
async fn again(mut member: Box<Member>, fresh: Fresh<'_>, lanes: &Lanes) -> Box<Member> {
    let Err(trouble) = proves(&mut member, fresh, lanes).await else { return member };
    // Only few need it, and every one that is waited for would have its size.
    Box::new(Box::pin(failed(*member, no_longer(trouble), fresh, lanes)).await)
}

async fn proves(member: &mut Member, fresh: Fresh<'_>, lanes: &Lanes) -> Result<(), Trouble> {
    let trouble = |kind: State, text| Trouble { kind: kind.into(), text };
    let pidfd = hold(&member.instance).map_err(|e| match e {
        NotHung::Gone(text) => trouble(State::Died, text),
        NotHung::Refused(text) => trouble(State::TimedOut, text),
    })?;
    if member.instance.state == State::Unconfirmed {
        return Ok(());
    }
    if member.instance.successor_of.is_some() {
        fresh.turn.give_back();
        // What comparing facts compare with is the other one's.
        return Box::pin(successor::proven(member, fresh, member.timeout, lanes)).await.map(drop);
    }
    let Some(wanted) = still(member, fresh.shifts)? else { return Ok(()) };
    let when = member.signalled.unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let hung = Hung { pid: member.instance.pid, started: member.instance.started, pidfd, at: Instant::now(), when };
    confirm(&hung, member, &wanted, lanes, fresh.turn, None).await.map(drop)
}
