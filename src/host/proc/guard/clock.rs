//! Start times: the kernel counts them in clock ticks since boot.

use std::time::Duration;

use rustix::{
    param::clock_ticks_per_second,
    time::{ClockId, clock_gettime},
};

use crate::kernel::Stat;

/// Ticks that a start time is moved back by, since the kernel rounds it: a process that started
/// after a file was changed may appear older than that, never younger.
const MARGIN: u64 = 2;

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

/// How long a process has run.
#[must_use]
pub(crate) fn age(pid: i32) -> Option<Duration> {
    let ran = i128::from(ticks()) - i128::from(Stat::of(pid).ok()?.started);
    u64::try_from(ran * tick_ns())
        .ok()
        .map(Duration::from_nanos)
}

/// Converts a start time in ticks since boot into nanoseconds since 1970. If it is inexact, it is
/// too early.
#[must_use]
pub(crate) fn start_time_ns(started: u64) -> i128 {
    let since_start = i128::from(ticks()) - i128::from(started) + i128::from(MARGIN);
    jiff::Timestamp::now().as_nanosecond() - since_start * tick_ns()
}
