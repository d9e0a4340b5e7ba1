//! Conditions that a process must meet before it is signalled.

use std::time::Duration;

use crate::{
    fleet::{Group, NoSignal, Reloads},
    host::{
        discover::found::Found,
        net::sockets::Listeners,
        probe::{answer::KernelError, limits::ProbeLimits, port_sharing},
        proc::{
            guard::{self, NotTaken},
            pidfd::permitted,
        },
    },
    refusal::Refusal,
};

/// Why a process must not be signalled. The text has no subject.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GuardReason {
    #[error(
        "shares its address with {}, which is not in the run: the kernel may give a probe to \
         either process",
        .0.join(", ")
    )]
    ForeignListener(Vec<String>),
    /// The foreign listeners on its address cannot be read.
    #[error("may share its address with a process outside the run, which cannot be checked: {0}")]
    Unknown(KernelError),
    #[error("is not declared to reload on {0}, and many programs exit on it")]
    Undeclared(String),
    /// Nothing reloads it.
    #[error("is reloaded by no signal: {0}")]
    NoSignal(String),
    #[error("may not be signalled by this user")]
    NotPermitted,
    #[error("is stopped")]
    Stopped,
    #[error(transparent)]
    NotTaken(#[from] NotTaken),
}

/// Why a process must not be signalled, and what helps.
pub(crate) type GuardRefusal = Refusal<GuardReason>;

/// Checks that no process outside the run listens at the endpoint of `found`.
///
/// # Errors
/// Fails with the foreign listeners, or if the kernel does not tell.
pub(crate) fn check_exclusive_address(
    found: &Found,
    endpoint: &str,
    listeners: &Listeners,
    limits: &ProbeLimits,
) -> Result<(), GuardRefusal> {
    if endpoint.starts_with("unix:") || found.endpoint.is_some() {
        return Ok(());
    }
    let foreign =
        port_sharing::foreign_listeners(found.pid, endpoint, listeners, limits).map_err(|why| {
            let hint = why.hint();
            GuardRefusal::from(GuardReason::Unknown(why)).with_hint(hint)
        })?;
    if foreign.is_empty() {
        return Ok(());
    }
    Err(GuardReason::ForeignListener(foreign).into())
}

/// Waits until the process takes the signal, at most for its handler's grace period.
///
/// # Errors
/// Fails if the process is stopped, or does not take the signal.
pub(crate) async fn check_takes_signal(
    group: &Group,
    pid: i32,
    timeout: Duration,
) -> Result<(), GuardRefusal> {
    check_not_stopped(pid)?;
    let limit = guard::handler_grace_period(pid, timeout);
    guard::wait_for_handler(pid, group, limit)
        .await
        .map_err(|why| GuardReason::from(why).into())
}

/// Checks that a group or kind declares what the program does on the signal.
///
/// # Errors
/// Fails if neither does.
pub(crate) fn check_declared(group: &Group) -> Result<(), GuardRefusal> {
    if let Some(NoSignal { why, instead }) = group.never_reloads() {
        let refusal = GuardRefusal::from(GuardReason::NoSignal(why.clone()));
        return Err(match instead {
            Some(instead) => refusal.with_hint(instead),
            None => refusal,
        });
    }
    if group.reloads != Reloads::No {
        return Ok(());
    }
    let why = GuardRefusal::from(GuardReason::Undeclared(group.trigger().to_string()));
    let name = &group.name;
    Err(why.with_hint(format!(
        "if it reloads, set `reloads = true` in group `{name}`"
    )))
}

/// Checks that this user may signal the process.
///
/// # Errors
/// Fails if it may not.
pub(crate) fn may_signal(pid: i32) -> Result<(), GuardRefusal> {
    if permitted(pid) {
        Ok(())
    } else {
        Err(GuardReason::NotPermitted.into())
    }
}

/// Checks that the process is not stopped: it would take a signal only when it continues.
///
/// # Errors
/// Fails if it is, or if it cannot be read.
pub(crate) fn check_not_stopped(pid: i32) -> Result<(), GuardRefusal> {
    if guard::is_stopped(pid)
        .map_err(NotTaken::from)
        .map_err(GuardReason::from)?
    {
        let why = GuardRefusal::from(GuardReason::Stopped);
        Err(why.with_hint(format!("continue it with `kill -CONT {pid}`")))
    } else {
        Ok(())
    }
}
