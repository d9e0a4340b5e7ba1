//! Readings of the kernel: one worker a line, `PID:START`, with ` listens` for a worker that may
//! still accept connections.

/// Marks a worker that existed before the new config did and runs the old one: on a rollback it may
/// stay.
pub(crate) const KEPT: &str = " kept";

/// Returns the name of the worker that a line of a reading is about.
#[must_use]
pub(crate) fn worker_name(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

/// The suffix of the line of a worker that may still accept connections.
pub(crate) const LISTENS: &str = " listens";

/// Tells whether the worker of a line may still accept connections.
#[must_use]
pub(crate) fn listens(line: &str) -> bool {
    line.ends_with(LISTENS)
}

/// Tells whether `reading` has the worker of `line`.
fn has_worker(reading: &str, line: &str) -> bool {
    reading
        .lines()
        .any(|other| worker_name(other) == worker_name(line))
}

/// Tells whether the workers of the reading `before` were replaced by the reading `now`.
///
/// A new worker must be there, and no old one may listen, except those marked ` kept`. If an old
/// one listened, a new one must listen too. If none did, no old one may be left, because any child
/// that the process starts for another purpose is new as well.
pub(super) fn replaced(before: &str, now: &str) -> bool {
    let listened = before.lines().any(listens);
    let is_new = |line: &str| !has_worker(before, line) && (listens(line) || !listened);
    let is_left = |line: &str| {
        let is_old = has_worker(before, line);
        is_old && !is_kept(before, line) && (listens(line) || !listened)
    };
    // Without an old worker nothing could be replaced.
    !before.is_empty() && now.lines().any(is_new) && !now.lines().any(is_left)
}

/// Tells whether the worker of `line` is marked in the reading `before` as one that may stay.
#[must_use]
pub(crate) fn is_kept(before: &str, line: &str) -> bool {
    before
        .lines()
        .any(|old| worker_name(old) == worker_name(line) && old.contains(KEPT))
}

/// Returns the workers of `before` that still listen, if a new one listens too.
#[must_use]
pub(crate) fn old_workers(before: &str, now: &str) -> Vec<String> {
    let listening: Vec<&str> = now.lines().filter(|line| listens(line)).collect();
    let is_old = |line: &&&str| {
        before
            .lines()
            .any(|old| worker_name(old) == worker_name(line) && !old.contains(KEPT))
    };
    let old: Vec<String> = listening
        .iter()
        .filter(is_old)
        .map(|line| worker_name(line).to_owned())
        .collect();
    if old.len() == listening.len() {
        Vec::new()
    } else {
        old
    }
}
