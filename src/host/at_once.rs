//! Does what only waits for the kernel on every core: a thousand looks into `/proc` are no work for one.

use rayon::iter::{IndexedParallelIterator, IntoParallelRefIterator, ParallelIterator};

/// Below so many another core costs more than it saves.
const WORTH: usize = 32;

/// What `each` answers of every one of `items`, in their order.
pub(super) fn at_once<T: Sync, R: Send>(items: &[T], each: impl Fn(&T) -> R + Sync + Send) -> Vec<R> {
    if items.len() <= WORTH {
        return items.iter().map(each).collect();
    }
    // The threads stay: one that has just begun often shares the core of whoever began it, for milliseconds.
    items.par_iter().with_min_len(WORTH / 2).map(each).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_one_is_answered_in_order() {
        for many in [0, 1, WORTH, WORTH * 2 + 1, WORTH * 40 + 7] {
            let items: Vec<usize> = (0..many).collect();
            assert_eq!(at_once(&items, |at| at * 2), items.iter().map(|at| at * 2).collect::<Vec<_>>());
        }
    }
}
