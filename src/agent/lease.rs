//! How long a session waits for its coordinator, by the clock since boot: it goes on while the host
//! is suspended, and no change of the time of day moves it.

use std::{cell::Cell, time::Duration};

use crate::kernel::since_boot;

/// The time since the last frame of the coordinator.
#[derive(Debug)]
pub(super) struct Lease {
    length: Duration,
    heard: Cell<Duration>,
}

impl Lease {
    pub(super) fn new(length: Duration) -> Self {
        Self {
            length,
            heard: Cell::new(since_boot()),
        }
    }

    /// Notes that the coordinator is there.
    pub(super) fn renew(&self) {
        self.heard.set(since_boot());
    }

    /// Returns the time since the coordinator was heard.
    pub(super) fn silence(&self) -> Duration {
        since_boot().saturating_sub(self.heard.get())
    }

    /// Returns the time that is left.
    pub(super) fn left(&self) -> Duration {
        self.length.saturating_sub(self.silence())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_over_after_its_time_without_a_frame() {
        let lease = Lease::new(Duration::from_millis(20));
        while lease.silence() < Duration::from_millis(20) {
            std::thread::yield_now();
        }
        assert_eq!(lease.left(), Duration::ZERO);
    }

    #[test]
    fn a_frame_renews_a_lease() {
        let lease = Lease::new(Duration::from_secs(3600));
        lease.heard.set(Duration::ZERO);
        let before = lease.left();
        lease.renew();
        assert!(lease.left() > before);
    }
}
