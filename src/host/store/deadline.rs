//! The deadline of a request, and the pause between two.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::error::{Fault, Outcome};
use crate::fleet::Key;

/// Waits for a request, from its connection to its last byte.
pub(super) async fn in_time<T>(key: &Key, request: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let limit = key.access.timeout;
    timeout(limit, request)
        .await
        .unwrap_or_else(|_| Err(Fault::Late(limit).into()))
}

/// Returns the pause before the next reading, up to a fifth shorter than its store sets: hosts that
/// poll one store spread over it.
pub(super) fn pause_until(key: &Key, until: Instant) -> Duration {
    let poll = key.access.poll.mul_f64(1.0 - fastrand::f64() / 5.0);
    poll.min(until.saturating_duration_since(Instant::now()))
}
