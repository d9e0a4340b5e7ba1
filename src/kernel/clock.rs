//! The clock of start times.

use std::time::Duration;

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
    let nanos = i128::try_from(since_boot().as_nanos()).unwrap_or_default();
    u64::try_from(nanos / tick_ns()).unwrap_or_default()
}

/// Returns the time since the boot of this machine. It goes on while the machine is suspended.
#[must_use]
pub(crate) fn since_boot() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    Duration::try_from(now).unwrap_or_default()
}
