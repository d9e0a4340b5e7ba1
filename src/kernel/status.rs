//! `/proc/PID/status`.

use std::{fs::File, io};

use super::read::{bit, read_proc_file, unexpected_format};
use crate::{fleet::Signal, identity::Credentials};

/// The fields of `/proc/PID/status` that a run needs, without the credentials.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// The process that a thread belongs to; the pid itself of a process.
    pub(crate) leader: i32,
    /// Real user.
    pub(crate) ruid: u32,
    /// Effective user.
    pub(crate) euid: u32,
    pub(super) pending: u64,
    pub(super) blocked: u64,
    pub(super) ignored: u64,
    pub(super) caught: u64,
    /// Its effective capabilities, as bits.
    pub(crate) effective: u64,
    stopped: bool,
}

impl Status {
    /// Reads the file of the process, or the thread, `pid`.
    ///
    /// # Errors
    /// Fails if there is no such process.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        Self::parse(&read_proc_file(File::open(format!("/proc/{pid}/status"))?)?)
            .ok_or_else(unexpected_format)
    }

    pub(super) fn parse(raw: &[u8]) -> Option<Self> {
        let mut status = Self::default();
        let mut seen = 0;
        for (key, value) in fields(raw) {
            let mask = || u64::from_str_radix(value, 16).ok();
            match key {
                b"State" => status.stopped = value.starts_with(['T', 't']),
                b"Tgid" => status.leader = value.parse().ok()?,
                b"Uid" => {
                    let mut ids = value.split_ascii_whitespace();
                    status.ruid = ids.next()?.parse().ok()?;
                    status.euid = ids.next()?.parse().ok()?;
                }
                b"SigPnd" | b"ShdPnd" => status.pending |= mask()?,
                b"SigBlk" => status.blocked = mask()?,
                b"SigIgn" => status.ignored = mask()?,
                b"SigCgt" => status.caught = mask()?,
                b"CapEff" => status.effective = mask()?,
                _ => continue,
            }
            seen += 1;
        }
        // A missing line must not count as a mask without bits.
        (seen == 9).then_some(status)
    }

    /// Tells whether the signal was sent and not taken yet.
    #[must_use]
    pub(crate) fn is_pending(&self, signal: Signal) -> bool {
        self.pending & bit(signal) != 0
    }

    /// Tells whether this thread blocks the signal.
    #[must_use]
    pub(crate) fn blocks(&self, signal: Signal) -> bool {
        self.blocked & bit(signal) != 0
    }

    /// Tells whether the signal is dropped.
    #[must_use]
    pub(crate) fn ignores(&self, signal: Signal) -> bool {
        self.ignored & bit(signal) != 0
    }

    /// Tells whether the signal has a handler.
    #[must_use]
    pub(crate) fn catches(&self, signal: Signal) -> bool {
        self.caught & bit(signal) != 0
    }

    /// Tells whether the process runs and its handler takes the signal at once. Only a process for
    /// which this is false needs a closer look.
    #[must_use]
    pub(crate) fn is_ready(&self, signal: Signal) -> bool {
        !self.stopped && self.catches(signal) && !self.blocks(signal)
    }

    /// Tells whether the process is stopped, by a signal or a tracer.
    #[must_use]
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }
}

/// Reads the credentials of a process, and its pid in each PID namespace, from its
/// `/proc/PID/status`.
pub(super) fn credentials(raw: &[u8]) -> Option<(Credentials, Vec<i32>)> {
    let mut credentials = Credentials::default();
    let mut pids = Vec::new();
    let mut seen = 0;
    for (key, value) in fields(raw) {
        let first_three = || -> Option<[u32; 3]> {
            let mut ids = value.split_ascii_whitespace().map(|id| id.parse().ok());
            Some([ids.next()??, ids.next()??, ids.next()??])
        };
        let set = || u64::from_str_radix(value, 16).ok();
        match key {
            b"Uid" => credentials.uids = first_three()?,
            b"Gid" => credentials.gids = first_three()?,
            b"Groups" => {
                credentials.groups = value
                    .split_ascii_whitespace()
                    .map(|id| id.parse().ok())
                    .collect::<Option<_>>()?;
            }
            b"CapPrm" => credentials.permitted = set()?,
            b"CapBnd" => credentials.bounding = set()?,
            b"CapAmb" => credentials.ambient = set()?,
            // A kernel without PID namespaces has no such line: it is not counted.
            b"NSpid" => {
                pids = value
                    .split_ascii_whitespace()
                    .map(|pid| pid.parse().ok())
                    .collect::<Option<_>>()?;
                continue;
            }
            _ => continue,
        }
        seen += 1;
    }
    credentials.groups.sort_unstable();
    (seen == 6).then_some((credentials, pids))
}

/// The lines `KEY:\tVALUE` of the file; a value that is no UTF-8 is empty.
fn fields(raw: &[u8]) -> impl Iterator<Item = (&[u8], &str)> {
    raw.split(|b| *b == b'\n').filter_map(|line| {
        let colon = line.iter().position(|b| *b == b':')?;
        let value = std::str::from_utf8(&line[colon + 1..]).unwrap_or_default();
        Some((&line[..colon], value.trim_ascii()))
    })
}
