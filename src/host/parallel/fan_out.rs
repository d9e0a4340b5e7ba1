//! Waits for many probes on every core: one thread is too slow for a thousand of them.

use std::{
    panic::resume_unwind,
    sync::{Arc, Mutex, PoisonError},
    thread::Builder,
};

use futures_util::{StreamExt, stream};
use tokio::sync::oneshot;

use super::cores::cores;
use crate::runtime;

/// Fewest items that a thread is started for: starting it takes as long as waiting for them.
const MIN_ITEMS: usize = 64;

/// Waits for the future that `each` makes of every item, for at most `limit` of them at the same
/// time: on this thread, and on one more for every other core. Each takes the next item as soon as
/// it has room. Returns the results, in any order. Dropping it ends
/// all of them soon after: each thread ends at its next wait.
pub(crate) async fn fan_out<T, F, R>(
    items: Vec<T>,
    limit: usize,
    each: impl Fn(T) -> F + Clone + Send + 'static,
) -> Vec<R>
where
    T: Send + 'static,
    F: Future<Output = R>,
    R: Send + 'static,
{
    let cores = cores().min(items.len() / MIN_ITEMS).max(1);
    let limit = limit.div_ceil(cores);
    let items = Arc::new(Mutex::new(items.into_iter()));
    let next = move || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    let share = move || {
        stream::iter(std::iter::from_fn(next))
            .map(each)
            .buffer_unordered(limit)
            .collect::<Vec<R>>()
    };
    let start = || {
        let (share, (mut give, taken)) = (share.clone(), oneshot::channel());
        let work = move || async move {
            tokio::select! {
                biased;
                () = give.closed() => {}
                all = share() => drop(give.send(all)),
            }
        };
        let thread = Builder::new().spawn(move || drop(runtime::run(work)));
        Some((thread.ok()?, taken))
    };
    // Without a thread, or a runtime on it, the others take its items.
    let others: Vec<_> = (1..cores).filter_map(|_| start()).collect();
    let mut all = share().await;
    for (thread, taken) in others {
        match taken.await {
            Ok(share) => all.extend(share),
            Err(_) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::{
        collections::BTreeSet,
        sync::atomic::{AtomicUsize, Ordering},
        time::{Duration, Instant},
    };

    use super::*;

    #[tokio::test]
    async fn every_item_is_waited_for_once() {
        for many in [0, 1, MIN_ITEMS, MIN_ITEMS * 2 + 1, MIN_ITEMS * 20 + 7] {
            let waited = fan_out((0..many).collect(), 10, |item| async move {
                tokio::time::sleep(Duration::from_micros(item as u64 % 7)).await;
                item
            });
            let all: Vec<usize> = waited.await;
            assert_eq!(
                (all.len(), all.into_iter().collect::<BTreeSet<_>>()),
                (many, (0..many).collect())
            );
        }
    }

    #[tokio::test]
    async fn no_item_goes_on_after_the_wait_is_dropped() {
        let (begun, many) = (Arc::new(AtomicUsize::new(0)), MIN_ITEMS * 4);
        let count = begun.clone();
        let all = fan_out((0..many).collect(), many / 2, move |item| {
            count.fetch_add(1, Ordering::SeqCst);
            async move {
                if item > 0 {
                    std::future::pending::<()>().await;
                }
            }
        });
        let limit = Duration::from_millis(50);
        assert!(tokio::time::timeout(limit, all).await.is_err());
        // Every thread has ended once the last holder of the counter is this test.
        let deadline = Instant::now() + Duration::from_secs(10);
        while Arc::strong_count(&begun) > 1 {
            assert!(Instant::now() < deadline, "a thread goes on");
            tokio::task::yield_now().await;
        }
        assert!(
            (1..many).contains(&begun.load(Ordering::SeqCst)),
            "{begun:?}"
        );
    }
}
