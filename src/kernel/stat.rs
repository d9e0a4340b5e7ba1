//! `/proc/PID/stat`.

use std::{fs::File, io};

use super::read::{bit, read_proc_file, unexpected_format};
use crate::fleet::Signal;

/// The fields of `/proc/PID/stat` that a run needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stat {
    pub(crate) pid: i32,
    /// The kernel's name of the process, at most 15 bytes.
    pub(crate) comm: String,
    /// One letter of `RSDZTtXI`.
    pub(crate) state: char,
    pub(crate) parent: i32,
    /// `PF_*` of the kernel.
    pub(crate) flags: u32,
    /// How many threads have not ended: more than one if the first thread has ended before the
    /// others.
    pub(super) threads: u32,
    /// In clock ticks since boot.
    pub(crate) started: u64,
    /// Signals of the first thread. The kernel writes only the bits of an `i32` here; every reload
    /// signal is among them.
    pub(super) blocked: u64,
    pub(super) ignored: u64,
    pub(super) caught: u64,
    /// The address of the arguments that it was started with; 0 if this user may not see it.
    pub(crate) arguments: u64,
    /// The address behind its environment, which follows the arguments; 0 as above.
    pub(crate) environment_end: u64,
}

impl Stat {
    /// Reads the file of the process, or the thread, `pid`.
    ///
    /// # Errors
    /// Fails if there is no such process.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        Self::parse(&read_proc_file(File::open(format!("/proc/{pid}/stat"))?)?)
            .ok_or_else(unexpected_format)
    }

    pub(super) fn parse(raw: &[u8]) -> Option<Self> {
        // The name may hold any byte, brackets too: it ends at the last bracket.
        let open = raw.iter().position(|b| *b == b'(')?;
        let close = raw.iter().rposition(|b| *b == b')')?;
        let pid = std::str::from_utf8(&raw[..open]).ok()?.trim_ascii_end();
        let comm = String::from_utf8_lossy(raw.get(open + 1..close)?).into_owned();
        // The next field is the third, as proc(5) counts them.
        let mut fields = std::str::from_utf8(raw.get(close + 1..)?)
            .ok()?
            .split_ascii_whitespace();
        Some(Self {
            pid: pid.parse().ok()?,
            comm,
            state: fields.next()?.chars().next()?,
            parent: fields.next()?.parse().ok()?,
            flags: fields.nth(4)?.parse().ok()?,
            threads: fields.nth(10)?.parse().ok()?,
            started: fields.nth(1)?.parse().ok()?,
            blocked: fields.nth(9)?.parse().ok()?,
            ignored: fields.next()?.parse().ok()?,
            caught: fields.next()?.parse().ok()?,
            arguments: fields.nth(13)?.parse().ok()?,
            environment_end: fields.nth(2)?.parse().ok()?,
        })
    }

    /// Tells whether the first thread of the process takes the signal by a handler.
    #[must_use]
    pub(crate) fn takes(&self, signal: Signal) -> bool {
        self.caught & !self.blocked & !self.ignored & bit(signal) != 0
    }

    /// Tells whether the process is there and has not ended. While another thread than the first
    /// one executes a program, the first thread has ended, and the process has not.
    #[must_use]
    pub(crate) fn lives(&self) -> bool {
        !matches!(self.state, 'Z' | 'X') || self.threads > 1
    }
}

/// Tells whether the process of this pid and start time is there and has not ended. It is false if
/// the process cannot be read.
#[must_use]
pub(crate) fn is_alive(pid: i32, started: u64) -> bool {
    Stat::of(pid).is_ok_and(|stat| stat.started == started && stat.lives())
}
