//! The endpoint of an instance after its signal: whether it moved, whether it is still the
//! instance's own, and which other processes listen there.

use std::time::Duration;

use crate::{
    event::{Failure, FailureKind, Outcome},
    fleet::{Listed, Speaks},
    host::{
        net::sockets::Listeners,
        probe::{
            answer::KernelError,
            expected::{Expected, WaitUntil},
            limits::{LISTENERS_MAX_AGE, ProbeLimits},
            old_workers, port_sharing,
        },
    },
    step::PlannedInstance,
};

/// The end of the message where the foreign listeners on an address cannot be read.
pub(crate) const WHETHER_SHARED: &str = "whether another process listens on its address";
/// The end of the message where the sockets of the old workers cannot be read.
pub(super) const WHETHER_OLD_WORKER: &str = "whether an old worker still listens";

/// Returns why the answers may come from another process or from an old worker. If nothing is
/// proven (`WaitUntil::Deadline`), an old worker is no fault.
pub(super) fn other_speaker(
    member: &PlannedInstance,
    expected: &Expected,
    limits: &ProbeLimits,
) -> Option<Failure> {
    match endpoint_still_owned(member, limits) {
        Ok(true) => {}
        Ok(false) => {
            return Some(Failure {
                kind: Outcome::TimedOut.into(),
                text: "another process listens on its endpoint now".into(),
            });
        }
        Err(why) => return Some(why.cannot_tell("whether its endpoint is still its own")),
    }
    let foreign = match foreign_listeners(member, limits) {
        Ok(foreign) => foreign,
        Err(why) => return Some(why.cannot_tell(WHETHER_SHARED)),
    };
    if !foreign.is_empty() {
        return Some(Failure {
            kind: FailureKind::ForeignListener,
            text: sharing_text(&foreign),
        });
    }
    if matches!(expected.until, WaitUntil::Deadline) {
        return None;
    }
    match old_workers::listening(member, limits) {
        Ok(old) => old.map(|pid| Failure {
            kind: FailureKind::ForeignListener,
            text: old_worker_text(pid),
        }),
        Err(why) => Some(why.cannot_tell(WHETHER_OLD_WORKER)),
    }
}

/// Tells whether the endpoint that has answered is still the instance's. An instance that speaks
/// our protocol has named itself in its answer. An endpoint from `fleet.toml` is not checked.
///
/// # Errors
/// Fails if the kernel does not tell.
fn endpoint_still_owned(
    member: &PlannedInstance,
    limits: &ProbeLimits,
) -> Result<bool, KernelError> {
    let instance = &member.instance;
    let group = &member.group;
    let holds = |max_age| {
        let listeners = limits.listeners(max_age)?;
        Ok(listeners.holds(instance.pid, &instance.endpoint, group)?)
    };
    if group.speaks == Speaks::Hello || !finds_endpoint(member) {
        return Ok(true);
    }
    // A socket that was opened a moment ago is only in a fresh read of the tables.
    match holds(LISTENERS_MAX_AGE) {
        Ok(true) => Ok(true),
        _ => holds(Duration::ZERO),
    }
}

/// Returns the message about an old worker that still listens.
pub(super) fn old_worker_text(pid: impl std::fmt::Display) -> String {
    format!("pid {pid}, an old worker, still listens")
}

/// Returns the message about foreign listeners on the address of an instance.
pub(crate) fn sharing_text(foreign: &[String]) -> String {
    format!(
        "{} listens there too, and is not in the run",
        foreign.join(", ")
    )
}

/// Returns the foreign listeners on the address of the instance. They are not searched for if
/// `fleet.toml` gives the endpoint, which may be anywhere.
///
/// # Errors
/// Fails if the kernel does not tell.
pub(crate) fn foreign_listeners(
    member: &PlannedInstance,
    limits: &ProbeLimits,
) -> Result<Vec<String>, KernelError> {
    foreign_listeners_in(member, &*limits.listeners(LISTENERS_MAX_AGE)?, limits)
}

/// Returns the same as [`foreign_listeners`], from these tables.
///
/// # Errors
/// Fails if the kernel does not tell.
pub(crate) fn foreign_listeners_in(
    member: &PlannedInstance,
    listeners: &Listeners,
    limits: &ProbeLimits,
) -> Result<Vec<String>, KernelError> {
    let instance = &member.instance;
    // An endpoint that `fleet.toml` gives need not be one of the instance's own sockets.
    if instance.endpoint.starts_with("unix:") || endpoint_is_given(member) {
        return Ok(Vec::new());
    }
    port_sharing::foreign_listeners(instance.pid, &instance.endpoint, listeners, limits)
}

/// Looks up where the instance listens now. Returns whether that is another address, which is
/// probed from then on.
pub(crate) fn follow_moved_endpoint(member: &mut PlannedInstance, limits: &ProbeLimits) -> bool {
    if !finds_endpoint(member) {
        return false;
    }
    let found = limits.listeners(LISTENERS_MAX_AGE).ok();
    let found = found.and_then(|listeners| {
        listeners
            .endpoint(member.instance.pid, &member.args, &member.group)
            .ok()
    });
    // An instance that listens nowhere, or on the old and the new address, shows no move.
    let Some(new) = found.filter(|new| *new != member.instance.endpoint) else {
        return false;
    };
    let instance = &mut member.instance;
    let old = std::mem::replace(&mut instance.endpoint, new);
    let from = instance.moved_from.take().unwrap_or(old);
    // An instance that returned to its address of the survey has not moved. Neither has one that
    // had no address.
    instance.moved_from = (from != instance.endpoint && !from.is_empty()).then_some(from);
    true
}

/// Tells whether the endpoint is searched for: the instance is probed there, and `fleet.toml` does
/// not give it.
fn finds_endpoint(member: &PlannedInstance) -> bool {
    member.group.needs_endpoint() && !endpoint_is_given(member)
}

/// Tells whether `fleet.toml` gives the endpoint of the instance.
fn endpoint_is_given(member: &PlannedInstance) -> bool {
    let gives = |listed: &Listed| listed.pid == member.instance.pid && listed.endpoint.is_some();
    member.group.instances.iter().any(gives)
}
