//! Pidfds: each holds exactly the process that was surveyed.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;
use std::{os::fd::OwnedFd, time::Instant};
use tokio::io::unix::AsyncFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open, test_kill_process};

use crate::{
    event::Instance,
    host::proc::guard::{Presence, presence},
};

/// A process that is held by its pidfd, from just before its signal, or from its next probe on.
#[derive(Debug)]
pub(crate) struct SignalledProcess {
    pub(crate) pid: i32,
    /// Start time in ticks.
    pub(crate) started: u64,
    /// Readable once the process has ended; can never name another process.
    pub(crate) pidfd: OwnedFd,
    /// The time from which its proof is awaited: just before the signal was sent.
    pub(crate) at: Instant,
    /// The time of the signal by the wall clock, which the time stamps of other programs follow.
    pub(crate) when: jiff::Timestamp,
}

/// The reason why no signal was sent; the texts have no subject.
#[derive(Debug)]
pub(crate) enum SignalError {
    /// The process is gone, or its pid is another process by now.
    Gone(String),
    /// The process does not take the signal, or cannot be held.
    Refused(String),
}

/// Tells whether this user may signal `pid`.
#[must_use]
pub(crate) fn permitted(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid).is_ok())
}

/// The text for a process that is not the surveyed one.
const OTHER: &str = "ended, or is another process than the one surveyed";

pub(crate) fn gone(why: &str) -> SignalError {
    SignalError::Gone(why.to_owned())
}

/// Opens a pidfd of exactly the process that was surveyed. The identity is read after the pidfd is
/// open, so that a later process with the same pid is never taken for it.
///
/// # Errors
/// Fails if the pid is another process by now, or if this user may not hold it.
pub(crate) fn hold(instance: &Instance) -> Result<OwnedFd, SignalError> {
    let pidfd = open(instance)?;
    there(instance)?;
    Ok(pidfd)
}

/// Checks that the pid is still the process that was surveyed.
///
/// # Errors
/// Fails if it is not, or if it cannot be read.
pub(crate) fn there(instance: &Instance) -> Result<(), SignalError> {
    match presence(instance.pid, instance.started, &instance.exe) {
        Presence::Same(_) => Ok(()),
        Presence::Gone => Err(gone(OTHER)),
        Presence::Unknown(e) => Err(SignalError::Refused(format!("cannot be looked at: {e}"))),
    }
}

/// Opens a pidfd of the process that has the pid now.
///
/// # Errors
/// Fails if there is none, or if this user may not hold it.
pub(crate) fn open(instance: &Instance) -> Result<OwnedFd, SignalError> {
    let pid = Pid::from_raw(instance.pid).ok_or_else(|| gone("is no process"))?;
    match pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(pidfd),
        Err(rustix::io::Errno::SRCH) => Err(gone("ended")),
        Err(e) => Err(SignalError::Refused(format!("cannot be held: {e}"))),
    }
}

/// Waits until the process of `pidfd` ends.
pub(crate) async fn end_of(pidfd: &OwnedFd) {
    #[expect(
        deprecated,
        reason = "the borrowed descriptor stays open, and the replacement is unsafe to call"
    )]
    match AsyncFd::new(pidfd.as_fd()) {
        Ok(fd) => drop(fd.readable().await),
        // The descriptor cannot be watched: the probes still notice a process that is gone.
        Err(_) => std::future::pending().await,
    }
}

/// Tells whether the process of `pidfd` has ended by now.
pub(crate) fn has_ended(pidfd: &OwnedFd) -> bool {
    // An error of the call says nothing of the process.
    poll(
        &mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)],
        PollTimeout::ZERO,
    )
    .is_ok_and(|ready| ready > 0)
}
