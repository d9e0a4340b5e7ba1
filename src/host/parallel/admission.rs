//! Waits for many instances at the same time, and limits how many of them have begun.

use std::{cell::RefCell, sync::Arc, time::Duration};

use futures_util::{StreamExt, stream};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::event::{Interrupts, interrupted};

/// Most instances that have begun and not given their slots back. These are signalled before any of
/// them is probed; each later one begins as a slot is given back, between the probes of others.
const MAX_BEGUN: usize = 1024;
/// Longest wait for a slot. As many more begin then, so that each instance gets its signal soon.
const STALL_TIMEOUT: Duration = Duration::from_millis(250);

/// The right of one instance to have begun.
#[derive(Debug, Default)]
pub(crate) struct Slot(RefCell<Option<OwnedSemaphorePermit>>);

impl Slot {
    /// Lets the next instance begin. An instance that takes longer than a probe or two, as a
    /// stopped one does, must not delay the signals of others.
    pub(crate) fn give_back(&self) {
        drop(self.0.take());
    }
}

/// Returns the next slot. After a stall it is empty, and there is nothing to give back.
async fn next(slots: &Arc<Semaphore>) -> Slot {
    let slot = timeout(STALL_TIMEOUT, slots.clone().acquire_owned()).await;
    if slot.is_err() {
        slots.add_permits(MAX_BEGUN);
    }
    Slot(RefCell::new(slot.ok().and_then(Result::ok)))
}

/// Waits for the future that `wait` makes of every item, for at most `limit` of them at the same
/// time, and hands each result to `each`. More than `patience` interrupts end the wait. Returns
/// whether every future has ended.
pub(crate) async fn run_admitted<T, W: Future>(
    items: impl Iterator<Item = T>,
    wait: impl Fn(T, Slot) -> W,
    limit: usize,
    interrupts: &mut Interrupts,
    patience: u8,
    mut each: impl FnMut(W::Output),
) -> bool {
    let slots = &Arc::new(Semaphore::new(MAX_BEGUN));
    let begun = stream::iter(items)
        .then(|item| async move { (item, next(slots).await) })
        .map(|(item, slot)| wait(item, slot));
    // Each instance holds a pidfd.
    let mut waits = std::pin::pin!(begun.buffer_unordered(limit));
    loop {
        let done = tokio::select! {
            biased;
            () = interrupted(interrupts, patience) => return false,
            done = waits.next() => done,
        };
        match done {
            Some(done) => each(done),
            None => return true,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// Returns how many of `many` items have begun and ended after `limit`. The first `stuck` of
    /// them never end; they give their slots back if `gives`.
    async fn begun(many: usize, stuck: usize, gives: bool, limit: Duration) -> (usize, usize) {
        let (begun, ended) = (Cell::new(0), Cell::new(0));
        let (_interrupt, mut interrupts) = tokio::sync::watch::channel(0);
        let wait = |item: usize, slot: Slot| {
            begun.set(begun.get() + 1);
            async move {
                tokio::task::yield_now().await;
                if item < stuck {
                    if gives {
                        slot.give_back();
                    }
                    std::future::pending::<()>().await;
                }
            }
        };
        let all = run_admitted(0..many, wait, usize::MAX, &mut interrupts, 0, |()| {
            ended.set(ended.get() + 1)
        });
        let _ = tokio::time::timeout(limit, all).await;
        (begun.get(), ended.get())
    }

    #[tokio::test(start_paused = true)]
    async fn a_limited_number_begins_and_slow_items_do_not_starve_the_others() {
        let many = MAX_BEGUN * 5;
        // Before the stall is noticed.
        assert_eq!(
            begun(many, MAX_BEGUN, false, STALL_TIMEOUT / 2).await,
            (MAX_BEGUN, 0)
        );
        // Items that give their slots back delay no others.
        assert_eq!(
            begun(many, MAX_BEGUN * 2, true, STALL_TIMEOUT / 2).await,
            (many, MAX_BEGUN * 3)
        );
        // Items that keep theirs delay the others until the stall is noticed.
        assert_eq!(
            begun(many, MAX_BEGUN, false, STALL_TIMEOUT * 2).await,
            (many, MAX_BEGUN * 4)
        );
        assert_eq!(begun(many, many, false, STALL_TIMEOUT * 5).await, (many, 0));
        assert_eq!(
            begun(many, 1, false, STALL_TIMEOUT * 3).await,
            (many, many - 1)
        );
    }

    #[tokio::test]
    async fn an_interrupt_ends_the_wait_and_no_further_item_begins() {
        let (interrupt, mut interrupts) = tokio::sync::watch::channel(0);
        let begun = Cell::new(0);
        let wait = |item: usize, _slot: Slot| {
            begun.set(begun.get() + 1);
            std::future::ready(item)
        };
        let all = run_admitted(0..MAX_BEGUN * 2, wait, 8, &mut interrupts, 0, |item| {
            if item == 100 {
                interrupt.send_replace(1);
            }
        });
        assert!(!all.await);
        assert!((101..MAX_BEGUN).contains(&begun.get()), "{begun:?}");
    }
}
