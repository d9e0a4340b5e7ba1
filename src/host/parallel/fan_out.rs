//! Waits for many at the same time, on every core: a thousand questions are no work for one thread.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    thread,
};

use futures_util::{Stream, StreamExt, stream};
use tokio::sync::mpsc;

use crate::runtime;

/// Below so many a thread costs more than it saves.
const WORTH: usize = 64;

/// What comes out of all that is waited for, in any order; whoever drops it waits for nobody any
/// more, and nobody goes on.
pub(crate) struct FanOut<S, R> {
    mine: S,
    /// None once the others are done.
    others: Option<mpsc::UnboundedReceiver<R>>,
    threads: Vec<thread::JoinHandle<()>>,
}

/// Waits for the future that `each` makes of every item, for at most `at_once` of them at the same
/// time: here, and on a thread for every other core, each of which takes the next one as soon as it
/// has room for it.
pub(crate) fn fan_out<T, F, R>(
    items: Vec<T>,
    at_once: usize,
    each: impl Fn(T) -> F + Clone + Send + 'static,
) -> FanOut<impl Stream<Item = R> + Unpin, R>
where
    T: Send + 'static,
    F: Future<Output = R>,
    R: Send + 'static,
{
    let cores = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(items.len() / WORTH)
        .max(1);
    let at_once = at_once.div_ceil(cores);
    let items = Arc::new(Mutex::new(items.into_iter()));
    // No panic can come between the lock and its end.
    let next = move || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    let (tell, others) = mpsc::unbounded_channel();
    let others_do = || {
        let (next, each, tell) = (next.clone(), each.clone(), tell.clone());
        // Where there is no thread, or nothing to wait with, this one takes it all.
        thread::Builder::new().spawn(move || {
            drop(runtime::run(move || {
                work(
                    stream::iter(std::iter::from_fn(next))
                        .map(each)
                        .buffer_unordered(at_once),
                    tell,
                )
            }))
        })
    };
    let threads = (1..cores).filter_map(|_| others_do().ok()).collect();
    FanOut {
        mine: stream::iter(std::iter::from_fn(next))
            .map(each)
            .buffer_unordered(at_once)
            .boxed_local(),
        others: Some(others),
        threads,
    }
}

/// Hands over what comes out of `all`, as long as somebody listens.
async fn work<R>(all: impl Stream<Item = R>, tell: mpsc::UnboundedSender<R>) {
    let all = all.for_each(|one| {
        // Whoever does not listen any more has ended this as well.
        let _ = tell.send(one);
        std::future::ready(())
    });
    tokio::select! {
        biased;
        () = tell.closed() => {}
        () = all => {}
    }
}

impl<S: Stream<Item = R> + Unpin, R> Stream for FanOut<S, R> {
    type Item = R;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<R>> {
        let others = match self.others.as_mut().map(|others| others.poll_recv(context)) {
            Some(Poll::Ready(Some(one))) => return Poll::Ready(Some(one)),
            Some(Poll::Pending) => Poll::Pending,
            Some(Poll::Ready(None)) | None => {
                self.others = None;
                Poll::Ready(None)
            }
        };
        match self.mine.poll_next_unpin(context) {
            Poll::Ready(None) => others,
            said => said,
        }
    }
}

impl<S, R> Drop for FanOut<S, R> {
    fn drop(&mut self) {
        // They see that nobody listens any more.
        self.others = None;
        for thread in self.threads.drain(..) {
            if let Err(panic) = thread.join()
                && !thread::panicking()
            {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::{
        collections::BTreeSet,
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use super::*;

    #[tokio::test]
    async fn everybody_is_waited_for_once() {
        for many in [0, 1, WORTH, WORTH * 2 + 1, WORTH * 20 + 7] {
            let waited = fan_out((0..many).collect(), 10, |at| async move {
                tokio::time::sleep(Duration::from_micros(at as u64 % 7)).await;
                at
            });
            let all: Vec<usize> = waited.collect().await;
            assert_eq!(
                (all.len(), all.into_iter().collect::<BTreeSet<_>>()),
                (many, (0..many).collect())
            );
        }
    }

    #[tokio::test]
    async fn nobody_goes_on_where_nobody_waits_any_more() {
        let (begun, many) = (Arc::new(AtomicUsize::new(0)), WORTH * 4);
        let count = begun.clone();
        let mut all = fan_out((0..many).collect(), many / 2, move |at| {
            count.fetch_add(1, Ordering::SeqCst);
            async move {
                if at > 0 {
                    std::future::pending::<()>().await;
                }
            }
        });
        assert_eq!(all.next().await, Some(()));
        drop(all);
        let then = begun.load(Ordering::SeqCst);
        assert!(then < many, "only so many at once");
        // Every thread has ended: nobody is left who could hold what it counts with.
        assert_eq!(
            (Arc::strong_count(&begun), begun.load(Ordering::SeqCst)),
            (1, then)
        );
    }
}
