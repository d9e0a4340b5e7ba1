//! Start times: the kernel counts them in clock ticks since boot.

use std::time::Duration;

use crate::kernel::Stat;
pub(crate) use crate::kernel::{tick_ns, ticks};

/// Ticks that a start time is moved back by, since the kernel rounds it: a process that started
/// after a file was changed may appear older than that, never younger.
const MARGIN: u64 = 2;

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
