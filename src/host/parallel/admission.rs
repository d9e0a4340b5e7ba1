//! Waits for many at the same time, and begins only so many of them at once: what one needs while
//! it is waited for, few of ten thousand have.

use std::{cell::RefCell, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::event::Interrupts;

/// So many begin together, and as many more once all of these have ended or given their turn back:
/// where everybody is signalled before anybody is asked, a signal between the questions to others
/// would cost both.
const BEGUN: usize = 1024;
/// When nobody has for so long, as many more begin all the same: every one gets its signal soon.
const STALLED: Duration = Duration::from_millis(250);

/// The place of one among those that are begun at once.
#[derive(Debug, Default)]
pub(crate) struct Slot(RefCell<Option<OwnedSemaphorePermit>>);

impl Slot {
    /// Somebody else begins: this one takes longer than a look or two, as a stopped one does, and
    /// must hold up nobody.
    pub(crate) fn give_back(&self) {
        drop(self.0.take());
    }
}

/// The turns of all who are waited for.
struct Admission {
    all: Arc<Semaphore>,
    /// Those of the next ones, nobody's yet.
    taken: RefCell<Option<OwnedSemaphorePermit>>,
}

impl Admission {
    fn new() -> Self {
        Self {
            all: Arc::new(Semaphore::new(BEGUN)),
            taken: RefCell::default(),
        }
    }

    /// The next, once one is there.
    async fn next(&self) -> Slot {
        let mut free = self.all.available_permits();
        loop {
            if let Some(one) = self
                .taken
                .borrow_mut()
                .as_mut()
                .and_then(|taken| taken.split(1))
            {
                return Slot(RefCell::new(Some(one)));
            }
            match tokio::time::timeout(STALLED, self.all.clone().acquire_many_owned(BEGUN as u32))
                .await
            {
                Ok(Ok(taken)) => drop(self.taken.replace(Some(taken))),
                // Nobody closes it.
                Ok(Err(_)) => return Slot::default(),
                Err(_) => {
                    let before = std::mem::replace(&mut free, self.all.available_permits());
                    if free == before {
                        self.all.add_permits(BEGUN);
                    }
                }
            }
        }
    }
}

/// Waits for what `wait` makes of all `items`, each with what it needs as many descriptors for as
/// there are at most, and hands over what comes out; a halt past `patience` ends it. Answers
/// whether all have ended.
pub(crate) async fn run_admitted<T, W: Future>(
    items: impl Iterator<Item = T>,
    wait: impl Fn(T, Slot) -> W,
    at_once: usize,
    halts: &mut Interrupts,
    patience: u8,
    mut each: impl FnMut(W::Output),
) -> bool {
    let turns = &Admission::new();
    let begun = stream::iter(items)
        .then(|item| async move { (item, turns.next().await) })
        .map(|(item, turn)| wait(item, turn));
    // Each holds a pidfd.
    let mut waits = std::pin::pin!(begun.buffer_unordered(at_once));
    loop {
        let done = tokio::select! {
            biased;
            () = halted(halts, patience) => return false,
            done = waits.next() => done,
        };
        match done {
            Some(done) => each(done),
            None => return true,
        }
    }
}

async fn halted(halts: &mut Interrupts, patience: u8) {
    // The sender lives as long as the command; without one nobody can halt.
    if halts.wait_for(|n| *n > patience).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// How many of `many` were begun when the first `stuck` of them never end, and for how long;
    /// those give their turn back if `gives`.
    async fn begun(many: usize, stuck: usize, gives: bool, limit: Duration) -> (usize, usize) {
        let (begun, ended) = (Cell::new(0), Cell::new(0));
        let (_halt, mut halts) = tokio::sync::watch::channel(0);
        let wait = |at: usize, turn: Slot| {
            begun.set(begun.get() + 1);
            async move {
                tokio::task::yield_now().await;
                if at < stuck {
                    if gives {
                        turn.give_back();
                    }
                    std::future::pending::<()>().await;
                }
            }
        };
        let all = run_admitted(0..many, wait, usize::MAX, &mut halts, 0, |()| {
            ended.set(ended.get() + 1)
        });
        let _ = tokio::time::timeout(limit, all).await;
        (begun.get(), ended.get())
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_are_begun_and_those_that_take_long_starve_nobody() {
        let many = BEGUN * 5;
        // Before anybody was found to be stuck.
        assert_eq!(begun(many, BEGUN, false, STALLED / 2).await, (BEGUN, 0));
        // Who gives the turn back holds nobody up at all.
        assert_eq!(
            begun(many, BEGUN * 2, true, STALLED / 2).await,
            (many, BEGUN * 3)
        );
        // Nor does one that cannot, for long.
        assert_eq!(
            begun(many, BEGUN, false, STALLED * 2).await,
            (many, BEGUN * 4)
        );
        assert_eq!(begun(many, many, false, STALLED * 5).await, (many, 0));
        assert_eq!(begun(many, 1, false, STALLED * 3).await, (many, many - 1));
    }

    #[tokio::test]
    async fn a_halt_ends_it_and_nobody_begins_any_more() {
        let (halt, mut halts) = tokio::sync::watch::channel(0);
        let begun = Cell::new(0);
        let wait = |at: usize, _turn: Slot| {
            begun.set(begun.get() + 1);
            std::future::ready(at)
        };
        let all = run_admitted(0..BEGUN * 2, wait, 8, &mut halts, 0, |at| {
            if at == 100 {
                halt.send_replace(1);
            }
        });
        assert!(
            !all.await && (101..BEGUN).contains(&begun.get()),
            "{begun:?}"
        );
    }
}
