//! Does what only waits for the kernel on every core: a thousand looks into `/proc` are no work for one.

use std::thread;

/// Below so many a thread costs more than it saves.
const WORTH: usize = 32;

/// What `each` answers of every one of `items`, in their order.
pub(super) fn at_once<T: Sync, R: Send>(items: &[T], each: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let cores = thread::available_parallelism().map_or(1, usize::from).min(items.len() / WORTH).max(1);
    let (mine, others) = items.split_at(items.len().div_ceil(cores));
    if others.is_empty() {
        return mine.iter().map(each).collect();
    }
    let each = &each;
    thread::scope(|scope| {
        let chunk = mine.len();
        let threads: Vec<_> =
            others.chunks(chunk).map(|part| (part, thread::Builder::new().spawn_scoped(scope, move || part.iter().map(each).collect::<Vec<R>>()))).collect();
        let mut all: Vec<R> = mine.iter().map(each).collect();
        for (part, thread) in threads {
            match thread.map(thread::ScopedJoinHandle::join) {
                Ok(Ok(said)) => all.extend(said),
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                // No thread is to be had: it is done here.
                Err(_) => all.extend(part.iter().map(each)),
            }
        }
        all
    })
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
