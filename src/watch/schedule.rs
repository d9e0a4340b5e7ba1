//! When a group is due for a run: after a change that has settled, after a failure, or at once.

use std::time::{Duration, Instant};

use super::observed::Observed;
use crate::event::Verdict;

/// The longest wait for steady writes to end, in debounce times.
const PATIENCE: u32 = 10;

/// The wait before the first retry. It doubles with each further failure.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// The longest wait before a retry.
const LAST_RETRY: Duration = Duration::from_secs(300);

/// The wait after a failure until other instances may cause a run. It limits the runs over a
/// process that ends again and again.
const BREATH: Duration = Duration::from_secs(5);

/// Why a group is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Start,
    Change,
    Retry,
    /// Other instances run than at the last attempt, which failed.
    Instances,
    /// SIGHUP to `hello watch`.
    Reload,
}

/// A change that is not settled yet.
#[derive(Debug, Clone, Copy)]
struct Unsettled {
    first: Instant,
    last: Instant,
}

/// The state of one group.
#[derive(Debug)]
pub(super) struct Schedule {
    debounce: Duration,
    /// The content that was last seen.
    seen: Observed,
    /// The content of the last attempt; none before the first one.
    attempted: Option<Observed>,
    unsettled: Option<Unsettled>,
    /// True if the last attempt did not converge.
    failed: bool,
    /// Successive failures that touched nothing.
    failures: u32,
    retry: Option<(Instant, Cause)>,
    /// The end of the last attempt.
    ended: Option<Instant>,
}

impl Schedule {
    pub(super) fn new(debounce: Duration) -> Self {
        Self {
            debounce,
            seen: Observed::default(),
            attempted: None,
            unsettled: None,
            failed: false,
            failures: 0,
            retry: None,
            ended: None,
        }
    }

    /// Tells whether the last attempt did not converge.
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Returns the content that was last seen.
    pub(super) fn seen(&self) -> &Observed {
        &self.seen
    }

    /// Takes the content that is seen now.
    pub(super) fn see(&mut self, seen: Observed, now: Instant) {
        if seen == self.seen {
            return;
        }
        let first = self.unsettled.map_or(now, |unsettled| unsettled.first);
        self.unsettled = Some(Unsettled { first, last: now });
        self.seen = seen;
    }

    /// Makes the group due at the next opportunity.
    pub(super) fn demand(&mut self, now: Instant) {
        self.failures = 0;
        self.retry = Some((now, Cause::Reload));
    }

    /// Takes note that other instances run now. It matters after a failure.
    pub(super) fn instances_changed(&mut self, now: Instant) {
        if !self.failed {
            return;
        }
        self.failures = 0;
        let at = self.ended.map_or(now, |ended| now.max(ended + BREATH));
        if self.retry.is_none_or(|(retry, _)| retry > at) {
            self.retry = Some((at, Cause::Instances));
        }
    }

    /// Returns why the group is due now, if it is.
    pub(super) fn due(&self, now: Instant) -> Option<Cause> {
        if self.attempted.is_none() {
            return Some(Cause::Start);
        }
        if self.next() > Some(now) {
            return None;
        }
        match (self.unsettled, self.retry) {
            (Some(_), _) if self.differs() => Some(Cause::Change),
            (_, Some((at, cause))) if at <= now => Some(cause),
            _ => None,
        }
    }

    /// Forgets a change that has settled on the content of the last attempt.
    pub(super) fn settle(&mut self, now: Instant) {
        if self.unsettled.is_some_and(|u| self.settles(u) <= now) && !self.differs() {
            self.unsettled = None;
        }
    }

    /// Returns when the group is due next; none if only an event makes it due.
    pub(super) fn next(&self) -> Option<Instant> {
        let retry = self.retry.map(|(at, _)| at);
        // A run in the middle of a change would be repeated after it.
        self.unsettled.map(|u| self.settles(u)).or(retry)
    }

    fn settles(&self, unsettled: Unsettled) -> Instant {
        let latest = unsettled.first + self.debounce * PATIENCE;
        latest.min(unsettled.last + self.debounce)
    }

    fn differs(&self) -> bool {
        self.attempted
            .as_ref()
            .is_none_or(|attempted| self.seen.differs_from(attempted))
    }

    /// Takes note that an attempt with the present content begins.
    pub(super) fn begin(&mut self) {
        self.attempted = Some(self.seen.clone());
        self.unsettled = None;
        self.retry = None;
        self.failed = false;
    }

    /// Takes note of the end of an attempt. `jitter` is between 0 and 1.
    pub(super) fn end(&mut self, verdict: Verdict, now: Instant, jitter: f64) {
        self.failed = verdict != Verdict::Converged;
        self.ended = Some(now);
        if !self.failed {
            self.failures = 0;
            return;
        }
        if touches(verdict) {
            return;
        }
        let wait = FIRST_RETRY * (1 << self.failures.min(16));
        let wait = wait.min(LAST_RETRY).mul_f64(0.75 + jitter / 2.0);
        self.failures += 1;
        self.retry = Some((now + wait, Cause::Retry));
    }

    /// Takes `left` as the content of the last attempt: the run itself has left it.
    pub(super) fn leave(&mut self, left: Observed) {
        self.attempted = Some(left.clone());
        self.seen = left;
        self.unsettled = None;
    }

    /// Returns the content of the last attempt.
    pub(super) fn attempted(&self) -> Option<&Observed> {
        self.attempted.as_ref()
    }

    /// Returns the wait until the next retry.
    pub(super) fn retries_in(&self, now: Instant) -> Option<Duration> {
        self.retry.map(|(at, _)| at.saturating_duration_since(now))
    }
}

/// Tells whether a run with this verdict has signalled instances. Content that failed there is not
/// sent to them again until it changes.
pub(super) fn touches(verdict: Verdict) -> bool {
    matches!(
        verdict,
        Verdict::Reverted | Verdict::Mixed | Verdict::Partial | Verdict::Unproven
    )
}

#[cfg(test)]
mod tests;
