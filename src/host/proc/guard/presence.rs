//! Whether a process that was found is still the same one.

use std::{io, path::Path};

use crate::{
    fleet::Signal,
    kernel::{Stat, is_gone, strip_deleted},
};

/// The state of a process that was found earlier.
#[derive(Debug)]
pub(crate) enum Presence {
    /// It lives, though another program may be at the path of its executable by now.
    Same(Stat),
    /// It has ended, or its pid is another process, or it executes another program.
    Gone,
    /// This program could not read it: nothing is known of the process.
    Unknown(io::Error),
}

/// Returns the state of the process that was found as `pid`.
pub(crate) fn presence(pid: i32, started: u64, exe: &Path) -> Presence {
    // The order counts: a process whose start time is `started` now had the pid when the executable
    // was read, too.
    let read = || -> io::Result<Option<Stat>> {
        let now = std::fs::read_link(format!("/proc/{pid}/exe"))?;
        if strip_deleted(&now) != strip_deleted(exe) {
            return Ok(None);
        }
        Ok(Some(Stat::of(pid)?).filter(|stat| stat.started == started && stat.lives()))
    };
    match read() {
        Ok(Some(stat)) => Presence::Same(stat),
        Ok(None) => Presence::Gone,
        Err(e) if is_gone(&e) => Presence::Gone,
        Err(e) => Presence::Unknown(e),
    }
}

/// Tells whether `pid` is certainly the process that was found.
#[must_use]
pub(crate) fn is_same(pid: i32, started: u64, exe: &Path) -> bool {
    matches!(presence(pid, started, exe), Presence::Same(_))
}

/// Tells whether the process that was found as `pid` is certainly gone.
#[must_use]
pub(crate) fn is_over(pid: i32, started: u64, exe: &Path) -> bool {
    matches!(presence(pid, started, exe), Presence::Gone)
}

/// Tells whether `pid` is the process that was found, and its first thread takes `signal` by a
/// handler. Only a process for which this is false needs a closer look.
#[must_use]
pub(crate) fn is_ready(pid: i32, started: u64, exe: &Path, signal: Signal) -> bool {
    matches!(presence(pid, started, exe), Presence::Same(stat) if stat.takes(signal))
}
