//! Faults of a process that lives: it is stopped, or it listens nowhere any more. Of an instance of
//! which nothing is proven, these can be seen all the same.

use std::time::Duration;

use crate::{
    event::{Failure, Outcome},
    host::{
        probe::{confirm::LOOK_AGAIN, limits::ProbeLimits},
        proc::guard,
    },
    step::PlannedInstance,
};

/// Tells whether the instance or a descendant of it listens anywhere. False where the kernel does
/// not tell.
pub(crate) fn listens(member: &PlannedInstance, lanes: &ProbeLimits) -> bool {
    addresses(member, lanes, LOOK_AGAIN).is_some_and(|many| many > 0)
}

/// The fault of an instance that lives and is not proven; none where it is as it was before its
/// signal.
pub(crate) fn fault(member: &PlannedInstance, lanes: &ProbeLimits) -> Option<Failure> {
    let trouble = |text: &str| {
        Some(Failure {
            kind: Outcome::TimedOut.into(),
            text: text.into(),
        })
    };
    if guard::is_stopped(member.instance.pid) {
        return trouble("it is stopped since its signal");
    }
    // A socket that was opened a moment ago is in a new look only.
    let is_deaf = |old| addresses(member, lanes, old) == Some(0);
    if member.listened && is_deaf(LOOK_AGAIN) && is_deaf(Duration::ZERO) {
        return trouble("it listened before its signal, and listens nowhere now");
    }
    None
}

/// The number of its addresses in a look of at most this age; none where the kernel does not tell.
fn addresses(member: &PlannedInstance, lanes: &ProbeLimits, old: Duration) -> Option<usize> {
    Some(
        lanes
            .listeners(old)
            .ok()?
            .addresses(member.instance.pid)
            .ok()?
            .len(),
    )
}
