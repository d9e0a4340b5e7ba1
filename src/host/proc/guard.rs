//! Whether a process takes the reload signal: many processes die of it, some never see it. Read
//! from `/proc/PID/status` and `/proc/PID/fdinfo`.

mod clock;
mod presence;
mod view;

use std::{io, time::Duration};

use tokio::time::Instant;

pub(crate) use self::{
    clock::{age, start_time_ns, tick_ns, ticks},
    presence::{Presence, is_over, is_ready, is_same, presence},
    view::{KeptOpen, Namespace, View, keeps_directory_open, sees_the_same, shared, shares},
};
use crate::{
    fleet::{ExecutesItself, Group, Reloads, Signal, Trigger},
    host::proc::sigwait,
    kernel::{Stat, Status, bit, descriptors, is_gone, threads},
};

/// The age at which a process has certainly installed its handlers.
const YOUNG: Duration = Duration::from_secs(10);

/// Time for an old process that re-executes itself at this moment: that takes some milliseconds.
const REEXEC: Duration = Duration::from_millis(500);

/// Time for a process that blocks the signal, since it may be loading. For a port that is taken,
/// HAProxy tries for 2 s, nginx for 2.5 s.
const LOADING: Duration = Duration::from_secs(4);

/// Pause between two reads of the masks.
const PAUSE: Duration = Duration::from_millis(5);

/// The effect of a signal on a process, as the kernel shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disposition {
    /// A handler takes it.
    Caught,
    /// A signalfd waits for it.
    Awaited,
    /// It is dropped.
    Ignored,
    /// A thread waits for it in `sigwait`, and every other thread blocks it.
    InSigwait,
    /// It has a handler, and every thread blocks it: it stays pending until one does not.
    Blocked,
    /// It ends the process, unless a thread waits for it in `sigwait` and this user may not see
    /// that.
    Default,
}

/// Why a process does not take the signal of its group. The text has no subject.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTaken {
    #[error("cannot be looked at: {0}")]
    Unknown(#[from] io::Error),
    #[error("ignores {0} (started under nohup?)")]
    Ignored(&'static str),
    #[error("has no handler for {0} and would die of it")]
    NoHandler(&'static str),
    #[error("blocks {0} in every thread")]
    Blocked(&'static str),
}

/// Returns the effect that `signal` has on `pid` now.
///
/// # Errors
/// Fails if the process cannot be read.
pub(crate) fn disposition(pid: i32, signal: Signal) -> Result<Disposition, NotTaken> {
    let status = Status::of(pid)?;
    if status.ignores(signal) {
        return Ok(Disposition::Ignored);
    }
    // A signal that a thread does not block never comes to a signalfd.
    if status.catches(signal) && !status.blocks(signal) {
        return Ok(Disposition::Caught);
    }
    if has_signalfd(pid, bit(signal)) {
        return Ok(Disposition::Awaited);
    }
    if !status.catches(signal) {
        return Ok(if sigwait::waits(pid, signal) {
            Disposition::InSigwait
        } else {
            Disposition::Default
        });
    }
    // Any thread that does not block a signal to the process takes it.
    let is_open = |tid: &i32| Status::of(*tid).is_ok_and(|status| !status.blocks(signal));
    Ok(if threads(pid).is_ok_and(|tids| tids.iter().any(is_open)) {
        Disposition::Caught
    } else {
        Disposition::Blocked
    })
}

/// Returns why `pid` does not take the signal of its group now; none if it does, or if a command
/// makes it reload.
#[must_use]
pub(crate) fn not_taking(pid: i32, group: &Group) -> Option<NotTaken> {
    match group.trigger() {
        Trigger::Signal(signal) => why_not(disposition(pid, signal), group),
        Trigger::Command(_) => None,
    }
}

fn why_not(disposition: Result<Disposition, NotTaken>, group: &Group) -> Option<NotTaken> {
    let name = group.signal.name();
    match disposition {
        Err(why) => Some(why),
        Ok(Disposition::Ignored) => Some(NotTaken::Ignored(name)),
        // The operator declares that the process waits in `sigwait`, which shows in no mask.
        Ok(_) if group.reloads == Reloads::Unchecked => None,
        Ok(Disposition::Caught | Disposition::Awaited | Disposition::InSigwait) => None,
        // A pending signal is lost only if the process executes itself before it takes it.
        Ok(Disposition::Blocked) if group.executes_itself == ExecutesItself::No => None,
        Ok(Disposition::Default) => Some(NotTaken::NoHandler(name)),
        Ok(Disposition::Blocked) => Some(NotTaken::Blocked(name)),
    }
}

/// Tells whether a signalfd of the process waits for the signal.
fn has_signalfd(pid: i32, bit: u64) -> bool {
    let mut found = false;
    // If the listing fails half-way, the descriptors before that count.
    let _ = descriptors(pid, |fd, link| {
        if !found && link.is_ok_and(|link| link == b"anon_inode:[signalfd]") {
            let info =
                std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{}", fd.to_string_lossy()))
                    .unwrap_or_default();
            let mask = info
                .lines()
                .find_map(|line| line.strip_prefix("sigmask:"))
                .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
            found = mask.is_some_and(|mask| mask & bit != 0);
        }
    });
    found
}

/// Waits at most `limit` until the process takes the signal, if its group has one. A process that
/// has just started or re-executes itself has no handler for a moment. One that blocks the signal
/// gets the time of a load: HAProxy discards a signal that comes before its load is over.
///
/// # Errors
/// Fails if the process does not take the signal in time, with the reason.
pub(crate) async fn wait_for_handler(
    pid: i32,
    group: &Group,
    limit: Duration,
) -> Result<(), NotTaken> {
    let Trigger::Signal(signal) = group.trigger() else {
        return Ok(());
    };
    let began = Instant::now();
    loop {
        let disposition = disposition(pid, signal);
        let is_blocked = matches!(disposition, Ok(Disposition::Blocked));
        let Some(why) = why_not(disposition, group) else {
            return Ok(());
        };
        // The thread that blocked it a moment ago may not block it any more.
        let loads = is_blocked || blocks(pid, signal);
        let limit = if loads { limit.max(LOADING) } else { limit };
        if began.elapsed() >= limit || has_ended(pid) {
            return Err(why);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn has_ended(pid: i32) -> bool {
    match Stat::of(pid) {
        Ok(stat) => !stat.lives(),
        Err(e) => is_gone(&e),
    }
}

fn blocks(pid: i32, signal: Signal) -> bool {
    Status::of(pid).is_ok_and(|status| status.blocks(signal))
}

/// Returns how long to wait for the handler of a process: until it is older than [`YOUNG`].
#[must_use]
pub(crate) fn handler_grace_period(pid: i32, limit: Duration) -> Duration {
    let age = age(pid).unwrap_or_default();
    limit.min(YOUNG.saturating_sub(age).max(REEXEC))
}

/// Tells whether the signal was sent to `pid` and not taken yet. A process that cannot be read may
/// have it pending; one that has ended has not.
#[must_use]
pub(crate) fn may_be_pending(pid: i32, signal: Signal) -> bool {
    Status::of(pid).map_or_else(|e| !is_gone(&e), |status| status.is_pending(signal))
}

/// Tells whether `pid` is stopped, by a signal or a tracer: it takes the signal only once it is
/// continued. A process that has ended is not stopped.
///
/// # Errors
/// Fails if the process cannot be read.
pub(crate) fn is_stopped(pid: i32) -> io::Result<bool> {
    match Status::of(pid) {
        Ok(status) => Ok(status.is_stopped()),
        Err(e) if is_gone(&e) => Ok(false),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests;
