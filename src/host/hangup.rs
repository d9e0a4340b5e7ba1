//! Signals exactly the process that was surveyed, and only while it takes the signal and sees the file that was installed.

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal, test_kill_process};

use crate::{
    event::Instance,
    fleet::Signal,
    host::{
        guard::{Presence, is_ready, not_taking, presence, sees_the_same, takes},
        renewal,
    },
    step::Member,
};

/// A process held by its pidfd, from just before its signal, or from when it is looked at again.
#[derive(Debug)]
pub(super) struct Hung {
    /// Process number.
    pub(super) pid: i32,
    /// Start time in ticks.
    pub(super) started: u64,
    /// Readable once the process has ended; can never name another process.
    pub(super) pidfd: OwnedFd,
    /// Since when its proof is waited for: just before the signal was sent.
    pub(super) at: Instant,
    /// When it was signalled, by the clock on the wall, which other programs' stamps are from.
    pub(super) when: jiff::Timestamp,
}

/// Why no signal was sent.
#[derive(Debug)]
pub(super) enum NotHung {
    /// The process is gone, or the pid is another process now.
    Gone(String),
    /// It does not take the signal.
    Refused(String),
}

/// Whether this user may signal `pid`.
#[must_use]
pub(super) fn permitted(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|p| test_kill_process(p).is_ok())
}

const OTHER: &str = "ended, or is another process than the one surveyed";

fn gone(why: &str) -> NotHung {
    NotHung::Gone(why.to_owned())
}

/// Holds exactly the process that was surveyed: whoever has its pid later is not taken for it.
///
/// # Errors
/// When it is another process by now, or this user may not hold it.
pub(super) fn hold(i: &Instance) -> Result<OwnedFd, NotHung> {
    let pidfd = open(i)?;
    there(i)?;
    Ok(pidfd)
}

/// Passes the process that was surveyed.
fn there(i: &Instance) -> Result<(), NotHung> {
    match presence(i.pid, i.started, &i.exe) {
        Presence::Same(_) => Ok(()),
        Presence::Gone => Err(gone(OTHER)),
        Presence::Unknown(e) => Err(NotHung::Refused(format!("cannot be looked at: {e}"))),
    }
}

/// Holds whoever has the pid now.
fn open(i: &Instance) -> Result<OwnedFd, NotHung> {
    let raw = Pid::from_raw(i.pid).ok_or_else(|| gone("is no process"))?;
    match pidfd_open(raw, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(pidfd),
        Err(rustix::io::Errno::SRCH) => Err(gone("ended")),
        Err(e) => Err(NotHung::Refused(format!("cannot be held: {e}"))),
    }
}

/// Opens the pidfd, looks again at who it is and whether it takes the signal, then sends it.
/// A process that was stopped after the survey is signalled all the same: the signal waits for it, and so does the proof.
/// One without the handler may be re-executing itself: it is waited for, never signalled blindly. Before that, `waits` is told.
///
/// # Errors
/// When it is another process by now, or still does not take the signal at the end of `limit`.
pub(super) async fn hang_up(member: &Member, limit: Duration, waits: impl FnOnce()) -> Result<Hung, NotHung> {
    let i = &member.instance;
    let pidfd = open(i)?;
    if !is_ready(i.pid, i.started, &i.exe, member.group.signal) {
        let taken = if not_taking(i.pid, &member.group).is_none() {
            Ok(())
        } else {
            // Another process is not waited for.
            there(i)?;
            waits();
            takes(i.pid, &member.group, limit).await
        };
        // Only now: what took the signal just now must be the one that is held, and who ended meanwhile has refused nothing.
        there(i)?;
        taken.map_err(NotHung::Refused)?;
    }
    if let Some(path) = i.targets.iter().find(|path| !sees_the_same(i.pid, path)) {
        // One that has ended sees nothing.
        there(i)?;
        return Err(NotHung::Refused(format!("sees another file at `{}` than this host does", path.display())));
    }
    let now = renewal::of(&member.identity, &member.group, &i.exe, &member.args);
    if let Some(why) = renewal::refuses(&now, &member.group) {
        return Err(NotHung::Refused(why));
    }
    if now != member.identity.renewal {
        return Err(NotHung::Refused("would execute another program than the one that has validated its config; run hello again".into()));
    }
    let signal = match member.group.signal {
        Signal::Hup => rustix::process::Signal::HUP,
        Signal::Usr1 => rustix::process::Signal::USR1,
        Signal::Usr2 => rustix::process::Signal::USR2,
    };
    // Taken before it is sent: a quick program has loaded its config before this one goes on.
    let (at, when) = (Instant::now(), jiff::Timestamp::now());
    pidfd_send_signal(&pidfd, signal).map_err(|e| gone(&format!("took no signal: {e}")))?;
    Ok(Hung { pid: i.pid, started: i.started, pidfd, at, when })
}
