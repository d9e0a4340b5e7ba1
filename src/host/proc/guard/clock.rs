//! Start times: the kernel counts them in clock ticks since boot.

use std::time::Duration;

use procfs::ticks_per_second;
use rustix::time::{ClockId, clock_gettime};

use crate::host::proc::kernel::Stat;

/// Ticks that a start time is moved back by, since the kernel rounds it: a process that started
/// after a file was changed may appear older than that, never younger.
const MARGIN: u64 = 2;

/// How long a process has run.
#[must_use]
pub(crate) fn age(pid: i32) -> Option<Duration> {
    let started = Stat::of(pid).ok()?.started;
    let up: f64 = std::fs::read_to_string("/proc/uptime")
        .ok()?
        .split(' ')
        .next()?
        .parse()
        .ok()?;
    Duration::try_from_secs_f64(up - started as f64 / ticks_per_second() as f64).ok()
}

/// The present time by the clock of start times, in its ticks.
#[must_use]
pub(crate) fn ticks() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    let nanos = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
    u64::try_from(nanos * i128::from(ticks_per_second()) / 1_000_000_000).unwrap_or_default()
}

/// The start time of a process in nanoseconds since 1970. If it is inexact, it is too early.
#[must_use]
pub(crate) fn start_time_ns(pid: i32) -> Option<i128> {
    let margin = Duration::from_secs(MARGIN).as_nanos() / u128::from(ticks_per_second());
    let before = age(pid)?.as_nanos() + margin;
    Some(jiff::Timestamp::now().as_nanosecond() - i128::try_from(before).ok()?)
}

/// Converts a start time in ticks since boot into nanoseconds since 1970, as [`start_time_ns`].
#[must_use]
pub(crate) fn started_at(started: u64) -> i128 {
    let per_tick = 1_000_000_000 / i128::from(ticks_per_second());
    let since_start = i128::from(ticks()) - i128::from(started) + i128::from(MARGIN);
    jiff::Timestamp::now().as_nanosecond() - since_start * per_tick
}
