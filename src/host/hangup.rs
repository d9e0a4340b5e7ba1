//! Sends SIGHUP to exactly the process that was surveyed, and only while it takes the signal.

use std::{
    os::fd::OwnedFd,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal, test_kill_process};

use crate::host::discover::{is_same, not_taking_the_signal};

/// A process held by its pidfd, from just before its signal.
#[derive(Debug)]
pub struct Hung {
    /// Process number.
    pub pid: i32,
    /// Start time in ticks.
    pub started: u64,
    /// Readable once the process has ended; can never name another process.
    pub pidfd: OwnedFd,
    /// When the signal was sent.
    pub at: Instant,
    /// The instance's attempt number before the signal.
    pub seq: u64,
}

/// Why no signal was sent.
#[derive(Debug)]
pub enum NotHung {
    /// The process is gone, or the pid is another process now.
    Gone(String),
    /// It does not take the signal.
    Refused(String),
}

/// Whether this user may signal `pid`.
#[must_use]
pub fn permitted(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|p| test_kill_process(p).is_ok())
}

/// Opens the pidfd, looks again at who it is and whether it takes the signal, then sends it.
/// A process that was stopped after the survey is signalled all the same: the signal waits for it, and so does the proof.
/// One without the handler may be re-executing itself: it is waited for, never signalled blindly.
///
/// # Errors
/// When it is another process by now, or still does not take the signal at the end of `limit`.
pub async fn hang_up(pid: i32, started: u64, exe: &Path, seq: u64, limit: Duration) -> Result<Hung, NotHung> {
    let gone = |why: &str| NotHung::Gone(format!("pid {pid} {why}"));
    let raw = Pid::from_raw(pid).ok_or_else(|| gone("is no process"))?;
    let pidfd = pidfd_open(raw, PidfdFlags::empty()).map_err(|_| gone("ended"))?;
    if !is_same(pid, started, exe) {
        return Err(gone("is another process than the one surveyed"));
    }
    let deadline = Instant::now() + limit;
    while let Some(why) = not_taking_the_signal(pid) {
        if !is_same(pid, started, exe) {
            return Err(gone("ended"));
        }
        if Instant::now() >= deadline || why.starts_with("ignores") {
            return Err(NotHung::Refused(why));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    pidfd_send_signal(&pidfd, Signal::HUP).map_err(|e| gone(&format!("took no signal: {e}")))?;
    Ok(Hung { pid, started, pidfd, at: Instant::now(), seq })
}
