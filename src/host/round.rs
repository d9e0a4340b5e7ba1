//! Does one thing with many members of a run at the same time. Nobody is copied: each is lent, and comes back however that ends.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    pin::pin,
    sync::{
        Arc,
        mpsc::{Sender, channel},
    },
    time::Duration,
};

use futures_util::StreamExt;

use crate::{
    event::{Event, Halts},
    host::{
        LocalHost,
        crew::{Turn, crew},
        http::Lanes,
        successor::{Fresh, Since},
    },
    step::{Member, Shift, Step},
};

/// So many are begun before the first of them is done: what one that is waited for needs is not needed for all of a large fleet.
const TURNS: usize = 1024;
/// Whoever takes longer keeps nobody else from beginning.
const TURN: Duration = Duration::from_secs(1);

/// One that was lent.
#[derive(Debug)]
struct Back {
    at: usize,
    place: usize,
    member: Box<Member>,
    /// Whether it came to its end.
    done: bool,
}

/// Sends it home where it is dropped.
#[derive(Debug)]
struct Lent {
    back: Option<Back>,
    home: Sender<Back>,
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(back) = self.back.take() {
            // Home waits for everybody.
            let _ = self.home.send(back);
        }
    }
}

/// What all of a round share.
#[derive(Debug)]
struct Terms {
    /// By step.
    shifts: Vec<Vec<Shift>>,
    since: BTreeMap<PathBuf, Since>,
    surveyed: Since,
    undo: bool,
    lanes: Arc<Lanes>,
}

impl Terms {
    fn fresh(&self, at: usize) -> Fresh<'_> {
        Fresh { shifts: &self.shifts[at], since: &self.since, surveyed: &self.surveyed, undo: self.undo }
    }
}

impl LocalHost {
    /// Does `each` with every member of `steps` that is picked, and tells the event that it answers; a halt past `patience` ends it. Answers those who
    /// were not done with by then, by step and place.
    pub(super) async fn round<E>(
        &self,
        steps: &mut [&mut Step],
        undo: bool,
        picks: impl Fn(&Step, &Member) -> bool,
        each: E,
        (halts, patience): (&mut Halts, u8),
        tell: &mut impl FnMut(Event),
    ) -> Vec<(usize, usize)>
    where
        E: AsyncFn(&mut Member, Fresh<'_>, &Lanes) -> Option<Event> + Clone + Send + 'static,
    {
        let shifts = steps.iter().map(|step| step.shifts.clone()).collect();
        let terms = Arc::new(Terms { shifts, since: self.since.clone(), surveyed: self.surveyed.clone(), undo, lanes: self.lanes.clone() });
        let (home, returned) = channel();
        let (mut lent, mut places) = (Vec::new(), Vec::new());
        for (at, step) in steps.iter_mut().enumerate() {
            let picked: Vec<bool> = step.members.iter().map(|member| picks(step, member)).collect();
            let all = std::mem::take(&mut step.members).into_iter().zip(picked).enumerate();
            places.push(
                all.map(|(place, (member, picked))| {
                    if !picked {
                        return Some(member);
                    }
                    lent.push(Lent { back: Some(Back { at, place, member: Box::new(member), done: false }), home: home.clone() });
                    None
                })
                .collect::<Vec<Option<Member>>>(),
            );
        }
        drop(home);
        let mut all = crew(lent, TURNS, self.at_once, move |mut lent: Lent, turn: Turn| {
            let (terms, each) = (terms.clone(), each.clone());
            async move {
                let back = lent.back.as_mut()?;
                let event = {
                    let mut end = pin!(each(&mut back.member, terms.fresh(back.at), &terms.lanes));
                    tokio::select! {
                        biased;
                        event = &mut end => event,
                        () = tokio::time::sleep(TURN) => {
                            drop(turn);
                            end.await
                        }
                    }
                };
                back.done = true;
                event
            }
        });
        loop {
            let event = tokio::select! {
                biased;
                () = halted(halts, patience) => break,
                event = all.next() => event,
            };
            match event {
                Some(event) => event.into_iter().for_each(&mut *tell),
                None => break,
            }
        }
        // Whoever was not done with comes back now.
        drop(all);
        let mut undone = Vec::new();
        for Back { at, place, member, done } in returned {
            places[at][place] = Some(*member);
            undone.extend((!done).then_some((at, place)));
        }
        for (step, all) in steps.iter_mut().zip(places) {
            step.members = all.into_iter().flatten().collect();
        }
        undone
    }
}

async fn halted(halts: &mut Halts, patience: u8) {
    // The sender lives as long as the command; without one nobody can halt.
    if halts.wait_for(|n| *n > patience).await.is_err() {
        std::future::pending::<()>().await;
    }
}
