//! Holds exactly the process that was surveyed.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::AsFd;
use std::{os::fd::OwnedFd, time::Instant};
use tokio::io::unix::AsyncFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open, test_kill_process};

use crate::{
    event::Instance,
    host::proc::guard::{Presence, presence},
};

/// A process held by its pidfd, from just before its signal, or from when it is looked at again.
#[derive(Debug)]
pub(crate) struct SignalledProcess {
    /// Process number.
    pub(crate) pid: i32,
    /// Start time in ticks.
    pub(crate) started: u64,
    /// Readable once the process has ended; can never name another process.
    pub(crate) pidfd: OwnedFd,
    /// Since when its proof is waited for: just before the signal was sent.
    pub(crate) at: Instant,
    /// When it was signalled, by the clock on the wall, which other programs' stamps are from.
    pub(crate) when: jiff::Timestamp,
}

/// Why no signal was sent.
#[derive(Debug)]
pub(crate) enum SignalError {
    /// The process is gone, or the pid is another process now.
    Gone(String),
    /// It does not take the signal.
    Refused(String),
}

/// Whether this user may signal `pid`.
#[must_use]
pub(crate) fn permitted(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|p| test_kill_process(p).is_ok())
}

const OTHER: &str = "ended, or is another process than the one surveyed";

pub(crate) fn gone(why: &str) -> SignalError {
    SignalError::Gone(why.to_owned())
}

/// Holds exactly the process that was surveyed: whoever has its pid later is not taken for it.
///
/// # Errors
/// When it is another process by now, or this user may not hold it.
pub(crate) fn hold(i: &Instance) -> Result<OwnedFd, SignalError> {
    let pidfd = open(i)?;
    there(i)?;
    Ok(pidfd)
}

/// Passes the process that was surveyed.
pub(crate) fn there(i: &Instance) -> Result<(), SignalError> {
    match presence(i.pid, i.started, &i.exe) {
        Presence::Same(_) => Ok(()),
        Presence::Gone => Err(gone(OTHER)),
        Presence::Unknown(e) => Err(SignalError::Refused(format!("cannot be looked at: {e}"))),
    }
}

/// Holds whoever has the pid now.
pub(crate) fn open(i: &Instance) -> Result<OwnedFd, SignalError> {
    let raw = Pid::from_raw(i.pid).ok_or_else(|| gone("is no process"))?;
    match pidfd_open(raw, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(pidfd),
        Err(rustix::io::Errno::SRCH) => Err(gone("ended")),
        Err(e) => Err(SignalError::Refused(format!("cannot be held: {e}"))),
    }
}

/// Ends when the process behind `pidfd` does.
pub(crate) async fn end_of(pidfd: &OwnedFd) {
    #[expect(
        deprecated,
        reason = "what is borrowed stays open, and the replacement is unsafe to call"
    )]
    match AsyncFd::new(pidfd.as_fd()) {
        Ok(fd) => drop(fd.readable().await),
        // Nothing more can be watched: the polls still see a silent process.
        Err(_) => std::future::pending().await,
    }
}

/// Whether the process behind `pidfd` has ended by now.
pub(crate) fn has_ended(pidfd: &OwnedFd) -> bool {
    // An error of the call says nothing about the process.
    poll(
        &mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)],
        PollTimeout::ZERO,
    )
    .is_ok_and(|ready| ready > 0)
}
