//! Conditions that a process must meet before it is signalled.

use std::time::Duration;

use crate::{
    fleet::{Group, Reloads},
    host::{
        discover::found::Found,
        net::sockets::Listeners,
        probe::{limits::ProbeLimits, port_sharing},
        proc::{guard, pidfd::permitted},
    },
};

/// Checks that no process outside the run listens at the endpoint of `found`.
///
/// # Errors
/// Fails with a sentence that names the foreign listeners.
pub(crate) fn check_exclusive_address(
    found: &Found,
    endpoint: &str,
    listeners: &Listeners,
    limits: &ProbeLimits,
) -> Result<(), String> {
    if endpoint.starts_with("unix:") || found.endpoint.is_some() {
        return Ok(());
    }
    let foreign = port_sharing::foreign_listeners(found.pid, endpoint, listeners, limits);
    if foreign.is_empty() {
        return Ok(());
    }
    Err(format!(
        "shares its address with {}, which is not in the run: the kernel may give a probe to \
         either process",
        foreign.join(", ")
    ))
}

/// Waits until the process takes the signal, at most for its handler's grace period.
///
/// # Errors
/// Fails with a sentence if the process is stopped, or does not take the signal.
pub(crate) async fn check_takes_signal(
    group: &Group,
    pid: i32,
    timeout: Duration,
) -> Result<(), String> {
    check_not_stopped(pid)?;
    guard::wait_for_handler(pid, group, guard::handler_grace_period(pid, timeout)).await
}

/// Checks that a group or kind declares what the program does on the signal.
///
/// # Errors
/// Fails with a sentence that names the group and the missing key.
pub(crate) fn check_declared(group: &Group) -> Result<(), String> {
    if group.reloads != Reloads::No {
        return Ok(());
    }
    Err(format!(
        "is not declared to reload on {}, and many programs exit on it; if it reloads, set \
         `reloads = true` in group `{}`",
        group.signal.name(),
        group.name
    ))
}

/// Checks that this user may signal the process.
///
/// # Errors
/// Fails with a sentence if it may not.
pub(crate) fn may_signal(pid: i32) -> Result<(), String> {
    if permitted(pid) {
        Ok(())
    } else {
        Err("may not be signalled by this user".into())
    }
}

/// Checks that the process is not stopped: it would take a signal only when it continues.
///
/// # Errors
/// Fails with a sentence if it is.
pub(crate) fn check_not_stopped(pid: i32) -> Result<(), String> {
    if guard::is_stopped(pid) {
        Err(format!("is stopped; continue it with `kill -CONT {pid}`"))
    } else {
        Ok(())
    }
}
