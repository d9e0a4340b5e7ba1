//! Does what only waits for the kernel on every core: a thousand looks into `/proc` are no work for
//! one. The threads stay: one that has just begun often shares the core of whoever began it, for
//! milliseconds.

use std::{
    sync::OnceLock,
    thread::{self, ThreadId},
};

use rayon::{
    ThreadPoolBuilder,
    iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator},
};

/// Below so many another core costs more than it saves.
const WORTH: usize = 32;

/// Of more the kernel's own locks have the most.
const MOST: usize = 16;

/// The only thread that asks for anything, where there is one.
static ONLY: OnceLock<ThreadId> = OnceLock::new();
/// Whether there are threads; where none is to be had, whoever asks does all of it.
static THERE: OnceLock<bool> = OnceLock::new();

/// From now on only this thread asks for anything: it is one of those that do it, and what it does
/// lies in its own memory.
pub(crate) fn use_calling_thread() {
    let _ = ONLY.set(thread::current().id());
}

/// Begun when they are needed first.
fn pool_ready() -> bool {
    may_submit()
        && *THERE.get_or_init(|| {
            // Said as a number, the environment does not say it.
            let pool = ThreadPoolBuilder::new().num_threads(
                thread::available_parallelism()
                    .map_or(1, usize::from)
                    .min(MOST),
            );
            let pool = if ONLY.get().is_some() {
                pool.use_current_thread()
            } else {
                pool
            };
            pool.build_global().is_ok()
        })
}

/// Of a pool that only one thread belongs to, another one would wait for ever.
fn may_submit() -> bool {
    ONLY.get()
        .is_none_or(|only| *only == thread::current().id())
}

/// What `each` answers of every one of `items`, in their order.
pub(crate) fn par_map<T: Sync, R: Send>(
    items: &[T],
    each: impl Fn(&T) -> R + Sync + Send,
) -> Vec<R> {
    if items.len() <= WORTH || !pool_ready() {
        return items.iter().map(each).collect();
    }
    items.par_iter().with_min_len(WORTH / 2).map(each).collect()
}

/// What both answer; neither waits for the other where there are threads already.
pub(crate) fn join<A: Send, B: Send>(
    one: impl FnOnce() -> A + Send,
    other: impl FnOnce() -> B + Send,
) -> (A, B) {
    if may_submit() && THERE.get() == Some(&true) {
        rayon::join(one, other)
    } else {
        (one(), other())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_one_is_answered_in_order() {
        for many in [0, 1, WORTH, WORTH * 2 + 1, WORTH * 40 + 7] {
            let items: Vec<usize> = (0..many).collect();
            assert_eq!(
                par_map(&items, |at| at * 2),
                items.iter().map(|at| at * 2).collect::<Vec<_>>()
            );
        }
        assert_eq!(join(|| 1, || 2), (1, 2));
    }
}
