//! The clock of start times.

use rustix::{
    param::clock_ticks_per_second,
    time::{ClockId, clock_gettime},
};

/// Returns the nanoseconds of a tick.
#[must_use]
pub(crate) fn tick_ns() -> i128 {
    1_000_000_000 / i128::from(clock_ticks_per_second())
}

/// The present time by the clock of start times, in its ticks.
#[must_use]
pub(crate) fn ticks() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let nanos = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
    u64::try_from(nanos / tick_ns()).unwrap_or_default()
}
