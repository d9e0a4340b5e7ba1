//! Faults of a process that lives: it is stopped, or it no longer listens. They can be seen even of
//! an instance of which nothing is proven.

use std::time::Duration;

use crate::{
    event::{Failure, Outcome},
    host::{
        probe::limits::{LISTENERS_MAX_AGE, ProbeLimits},
        proc::guard,
    },
    step::PlannedInstance,
};

/// Tells whether the instance or a descendant of it listens on any address. Returns false if the
/// kernel does not tell.
pub(crate) fn listens(member: &PlannedInstance, limits: &ProbeLimits) -> bool {
    addresses(member, limits, LISTENERS_MAX_AGE).is_some_and(|count| count > 0)
}

/// Returns the fault of an instance that lives and is not proven, or `None` if it is as it was
/// before its signal.
pub(crate) fn fault(member: &PlannedInstance, limits: &ProbeLimits) -> Option<Failure> {
    let failure = |text: &str| {
        Some(Failure {
            kind: Outcome::TimedOut.into(),
            text: text.into(),
        })
    };
    if guard::is_stopped(member.instance.pid) {
        return failure("it is stopped since its signal");
    }
    // A socket that was opened a moment ago is only in a fresh read of the tables.
    let is_deaf = |max_age| addresses(member, limits, max_age) == Some(0);
    if member.listened && is_deaf(LISTENERS_MAX_AGE) && is_deaf(Duration::ZERO) {
        return failure("it listened before its signal, and does not listen now");
    }
    None
}

/// Returns the number of its addresses in socket tables of at most this age, or `None` if the
/// kernel does not tell.
fn addresses(member: &PlannedInstance, limits: &ProbeLimits, max_age: Duration) -> Option<usize> {
    let listeners = limits.listeners(max_age).ok()?;
    Some(listeners.addresses(member.instance.pid).ok()?.len())
}
