//! How many are named, and how.

use crate::screen;

/// Above this many instances, successes are counted and failures grouped.
pub(super) const LISTED: usize = 20;
/// So many of one group of failures are named.
pub(super) const NAMED: usize = 10;

pub(super) fn instances(n: usize) -> String {
    screen::counted(n, "instance")
}

/// The first few, and how many more.
pub(crate) fn named(pids: &[i32]) -> String {
    let all: Vec<String> = pids.iter().take(NAMED).map(i32::to_string).collect();
    all.join(", ") + &and_more(pids.len().saturating_sub(NAMED))
}

/// ` and 2 more`; nothing where there are none.
pub(super) fn and_more(more: usize) -> String {
    match more {
        0 => String::new(),
        more => format!(" and {more} more"),
    }
}
