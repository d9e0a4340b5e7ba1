//! Divides short reads of the kernel among the cores: one core is too slow for those of a thousand
//! processes.

use std::{
    panic::resume_unwind,
    sync::{Mutex, PoisonError},
    thread::{Builder, scope},
};

use super::cores::cores;

/// Fewest items that a thread is started for: starting it takes as long as reading them.
const MIN_ITEMS: usize = 32;

/// Items that a thread takes at once. A new thread often waits milliseconds for a core, and the
/// others take over its share.
const CHUNK: usize = 16;

/// Most threads: more of them only wait for the kernel's own locks.
const MAX_THREADS: usize = 16;

/// Returns the answer of `each` for every item, in the order of the items.
pub(crate) fn par_map<T: Sync, R: Send>(items: &[T], each: impl Fn(&T) -> R + Sync) -> Vec<R> {
    par_chunks(items, |chunk| chunk.iter().map(&each).collect())
}

/// Returns the answers of `each` for chunks of the items, in the order of the items.
pub(crate) fn par_chunks<T: Sync, R: Send>(
    items: &[T],
    each: impl Fn(&[T]) -> Vec<R> + Sync,
) -> Vec<R> {
    let threads = cores().min(MAX_THREADS).min(items.len() / MIN_ITEMS);
    let chunks = Mutex::new(items.chunks(CHUNK).enumerate());
    let take = || {
        let next = || chunks.lock().unwrap_or_else(PoisonError::into_inner).next();
        std::iter::from_fn(next)
            .map(|(number, chunk)| (number, each(chunk)))
            .collect::<Vec<(usize, Vec<R>)>>()
    };
    let mut all = scope(|scope| {
        // Without a thread the others take its share.
        let others: Vec<_> = (1..threads)
            .filter_map(|_| Builder::new().spawn_scoped(scope, take).ok())
            .collect();
        let mut all = take();
        for other in others {
            all.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        all
    });
    all.sort_unstable_by_key(|(number, _)| *number);
    all.into_iter().flat_map(|(_, answers)| answers).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_in_the_order_of_the_items() {
        for many in [0, 1, MIN_ITEMS, MIN_ITEMS * 2 + 1, MIN_ITEMS * 40 + 7] {
            let items: Vec<usize> = (0..many).collect();
            assert_eq!(
                par_map(&items, |item| item * 2),
                items.iter().map(|item| item * 2).collect::<Vec<_>>()
            );
        }
    }
}
