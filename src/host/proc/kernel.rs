//! What the kernel tells of a process in `/proc/PID/stat` and `/proc/PID/status`: the few fields
//! that every instance is asked for several times, each file read at once. Whatever is asked for
//! more rarely is read by `procfs`.

use std::{
    ffi::{CStr, OsString},
    fs::File,
    io::{self, Read},
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStringExt},
    path::PathBuf,
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, RawDir, fstat, open, openat, readlinkat, readlinkat_raw, statat},
    io::Errno,
    path::DecInt,
};

use crate::{fleet::Signal, identity::Credentials};

/// So much the kernel gives at once.
const PAGE: usize = 4096;

/// A longer command line is cut. The groups of a process stand in its status, and there can be
/// 65,536 of them.
const MAX: u64 = 4 << 20;

/// So many numbers of closed descriptors are passed over before the list is asked for: it costs
/// what ten of them do.
const CLOSED: u64 = 8;

/// The directory of one process: whatever is read through it is of that process, whoever has its
/// number later.
#[derive(Debug)]
pub(crate) struct Proc(OwnedFd);

impl Proc {
    /// Of the process, or the thread, `pid`.
    ///
    /// # Errors
    /// The system's: there is no such process.
    pub(crate) fn open(pid: i32) -> io::Result<Self> {
        Ok(Self(open(
            format!("/proc/{pid}"),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?))
    }

    /// The whole of a file in it.
    ///
    /// # Errors
    /// The system's: the process is gone, or this user may not read it.
    pub(crate) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        read_proc_file(File::from(openat(
            &self.0,
            name,
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?))
    }

    /// Where a link in it leads to.
    ///
    /// # Errors
    /// As [`Proc::read`].
    pub(crate) fn link(&self, name: &str) -> io::Result<PathBuf> {
        Ok(OsString::from_vec(readlinkat(&self.0, name, Vec::new())?.into_bytes()).into())
    }

    /// Device and inode of what a link in it leads to.
    ///
    /// # Errors
    /// As [`Proc::read`].
    pub(crate) fn inode(&self, name: &str) -> io::Result<(u64, u64)> {
        let stat = statat(&self.0, name, AtFlags::empty())?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Whether its executable gives another user or group to a process that executes it.
    ///
    /// # Errors
    /// As [`Proc::read`].
    pub(crate) fn is_set_id(&self) -> io::Result<bool> {
        Ok(gives_another_id(
            statat(&self.0, "exe", AtFlags::empty())?.st_mode,
        ))
    }

    /// Opens a file in it, or what a link in it leads to.
    ///
    /// # Errors
    /// As [`Proc::read`].
    pub(crate) fn hold(&self, name: &str, flags: OFlags) -> io::Result<OwnedFd> {
        Ok(openat(
            &self.0,
            name,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
        )?)
    }

    /// `/proc/PID/stat`.
    ///
    /// # Errors
    /// As [`Proc::read`].
    pub(crate) fn stat(&self) -> io::Result<Stat> {
        Stat::parse(&self.read("stat")?).ok_or_else(unexpected_format)
    }

    /// `/proc/PID/status`, with as whom it runs and its numbers in each PID namespace that it is
    /// seen in, the outermost first.
    ///
    /// # Errors
    /// As [`Proc::read`].
    pub(crate) fn status(&self) -> io::Result<(Status, Credentials, Vec<i32>)> {
        let raw = self.read("status")?;
        let (person, numbers) = person(&raw).ok_or_else(unexpected_format)?;
        Ok((
            Status::parse(&raw).ok_or_else(unexpected_format)?,
            person,
            numbers,
        ))
    }
}

/// `/proc/PID/stat`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stat {
    /// What the kernel calls it, in 15 bytes at most.
    pub(crate) comm: String,
    /// One letter of `RSDZTtXI`.
    pub(crate) state: char,
    pub(crate) parent: i32,
    /// `PF_*` of the kernel.
    pub(crate) flags: u32,
    /// How many threads have not ended. Of a process whose first thread has ended before the others
    /// it is more than one.
    threads: u32,
    /// In clock ticks since boot.
    pub(crate) started: u64,
    /// Signals of the first thread, as far as `i32` has bits for them: our own are among these.
    blocked: u64,
    ignored: u64,
    caught: u64,
}

/// `/proc/PID/status`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Status {
    /// The process that a thread belongs to; the pid itself of a process.
    pub(crate) leader: i32,
    /// Real user.
    pub(crate) ruid: u32,
    /// Effective user.
    pub(crate) euid: u32,
    pending: u64,
    blocked: u64,
    ignored: u64,
    caught: u64,
    stopped: bool,
}

/// The whole of a file of the kernel.
///
/// # Errors
/// The system's; also when the process has ended since it was opened.
pub(crate) fn read_proc_file(file: File) -> io::Result<Vec<u8>> {
    let (mut file, mut all) = (file.take(MAX), vec![0; PAGE]);
    let length = file.read(&mut all)?;
    all.truncate(length);
    // What leaves so much room was all: a line that does not fit is never longer than that.
    if length > PAGE / 2 {
        file.read_to_end(&mut all)?;
    }
    Ok(all)
}

fn unexpected_format() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the kernel tells of it in another form than is known",
    )
}

impl Stat {
    /// Of the process, or the thread, `pid`.
    ///
    /// # Errors
    /// The system's: there is no such process.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        Self::parse(&read_proc_file(File::open(format!("/proc/{pid}/stat"))?)?)
            .ok_or_else(unexpected_format)
    }

    fn parse(raw: &[u8]) -> Option<Self> {
        // The name may have any sign in it, also brackets.
        let (open, close) = (
            raw.iter().position(|b| *b == b'(')?,
            raw.iter().rposition(|b| *b == b')')?,
        );
        let comm = String::from_utf8_lossy(raw.get(open + 1..close)?).into_owned();
        let mut rest = std::str::from_utf8(raw.get(close + 1..)?)
            .ok()?
            .split_ascii_whitespace();
        // As proc(5) counts them, the next one is the third.
        let (state, parent, flags) = (
            rest.next()?.chars().next()?,
            rest.next()?.parse().ok()?,
            rest.nth(4)?.parse().ok()?,
        );
        let (threads, started) = (rest.nth(10)?.parse().ok()?, rest.nth(1)?.parse().ok()?);
        let (blocked, ignored, caught) = (
            rest.nth(9)?.parse().ok()?,
            rest.next()?.parse().ok()?,
            rest.next()?.parse().ok()?,
        );
        Some(Self {
            comm,
            state,
            parent,
            flags,
            threads,
            started,
            blocked,
            ignored,
            caught,
        })
    }

    /// Whether its first thread takes the signal by a handler.
    #[must_use]
    pub(crate) fn takes(&self, signal: Signal) -> bool {
        self.caught & !self.blocked & !self.ignored & bit(signal) != 0
    }

    /// Tells whether the process is there and has not ended. While another thread than the first
    /// one executes a program, the first one has ended, and the process has not.
    #[must_use]
    pub(crate) fn lives(&self) -> bool {
        !matches!(self.state, 'Z' | 'X') || self.threads > 1
    }
}

/// As whom a process runs, and its numbers: both from its `/proc/PID/status`.
fn person(raw: &[u8]) -> Option<(Credentials, Vec<i32>)> {
    let (mut person, mut numbers, mut seen) = (Credentials::default(), Vec::new(), 0);
    for line in raw.split(|b| *b == b'\n') {
        let Some(at) = line.iter().position(|b| *b == b':') else {
            continue;
        };
        let value = std::str::from_utf8(&line[at + 1..])
            .unwrap_or_default()
            .trim_ascii();
        let first = || -> Option<[u32; 3]> {
            let mut ids = value.split_ascii_whitespace().map(|id| id.parse().ok());
            Some([ids.next()??, ids.next()??, ids.next()??])
        };
        let set = || u64::from_str_radix(value, 16).ok();
        match &line[..at] {
            b"Uid" => person.uids = first()?,
            b"Gid" => person.gids = first()?,
            b"Groups" => {
                person.groups = value
                    .split_ascii_whitespace()
                    .map(|id| id.parse().ok())
                    .collect::<Option<_>>()?
            }
            b"CapPrm" => person.permitted = set()?,
            b"CapBnd" => person.bounding = set()?,
            b"CapAmb" => person.ambient = set()?,
            // A kernel without PID namespaces says nothing of them.
            b"NSpid" => {
                numbers = value
                    .split_ascii_whitespace()
                    .map(|pid| pid.parse().ok())
                    .collect::<Option<_>>()?;
                continue;
            }
            _ => continue,
        }
        seen += 1;
    }
    person.groups.sort_unstable();
    (seen == 6).then_some((person, numbers))
}

impl Status {
    /// Of the process `pid`.
    ///
    /// # Errors
    /// The system's: there is no such process.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        Self::parse(&read_proc_file(File::open(format!("/proc/{pid}/status"))?)?)
            .ok_or_else(unexpected_format)
    }

    fn parse(raw: &[u8]) -> Option<Self> {
        let mut status = Self::default();
        let mut seen = 0;
        for line in raw.split(|b| *b == b'\n') {
            let Some(at) = line.iter().position(|b| *b == b':') else {
                continue;
            };
            let value = std::str::from_utf8(&line[at + 1..])
                .unwrap_or_default()
                .trim_ascii();
            let mask = || u64::from_str_radix(value, 16).ok();
            match &line[..at] {
                b"State" => status.stopped = value.starts_with(['T', 't']),
                b"Tgid" => status.leader = value.parse().ok()?,
                b"Uid" => {
                    let mut ids = value.split_ascii_whitespace();
                    (status.ruid, status.euid) =
                        (ids.next()?.parse().ok()?, ids.next()?.parse().ok()?);
                }
                b"SigPnd" | b"ShdPnd" => status.pending |= mask()?,
                b"SigBlk" => status.blocked = mask()?,
                b"SigIgn" => status.ignored = mask()?,
                b"SigCgt" => status.caught = mask()?,
                _ => continue,
            }
            seen += 1;
        }
        // What is not told must not count as a mask without bits.
        (seen == 8).then_some(status)
    }

    /// Whether the signal was sent to it and not taken yet.
    #[must_use]
    pub(crate) fn is_pending(&self, signal: Signal) -> bool {
        self.pending & bit(signal) != 0
    }

    /// Whether this thread blocks the signal.
    #[must_use]
    pub(crate) fn blocks(&self, signal: Signal) -> bool {
        self.blocked & bit(signal) != 0
    }

    /// Whether the signal is dropped.
    #[must_use]
    pub(crate) fn ignores(&self, signal: Signal) -> bool {
        self.ignored & bit(signal) != 0
    }

    /// Whether the signal has a handler.
    #[must_use]
    pub(crate) fn catches(&self, signal: Signal) -> bool {
        self.caught & bit(signal) != 0
    }

    /// Whether it runs and has its handler for the signal: one look that lets through whoever needs
    /// no second one.
    #[must_use]
    pub(crate) fn is_ready(&self, signal: Signal) -> bool {
        !self.stopped && self.catches(signal) && !self.blocks(signal)
    }

    /// Whether it is stopped, by a signal or a tracer.
    #[must_use]
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }
}

/// Whether a file of this mode is setuid or setgid.
#[must_use]
pub(crate) fn gives_another_id(mode: u32) -> bool {
    Mode::from_raw_mode(mode).intersects(Mode::SUID | Mode::SGID)
}

/// Whether an error of the kernel's files says that the process has ended; any other is this
/// program's own (too many open files, no memory, no permission) and says nothing of the process.
#[must_use]
pub(crate) fn is_gone(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// Every process there is, sorted.
///
/// # Errors
/// The system's: then nothing is known of any process.
pub(crate) fn pids() -> io::Result<Vec<i32>> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        all.extend(
            entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<i32>().ok()),
        );
    }
    all.sort_unstable();
    Ok(all)
}

/// Whether an error is for want of what this program itself needs, whatever it looks at.
#[must_use]
pub(crate) fn is_own(e: &io::Error) -> bool {
    let wants = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS];
    wants
        .iter()
        .any(|errno| e.raw_os_error() == Some(errno.raw_os_error()))
}

/// Shows `each` every descriptor that `pid` has open, by its number, with what it leads to:
/// `socket:[17]`, or the beginning of a path. One that is closed meanwhile is passed over; of one
/// that this user may not look at `each` is shown why.
///
/// # Errors
/// The system's: the process is gone, or this user may not look at its descriptors.
pub(crate) fn descriptors(
    pid: i32,
    mut each: impl FnMut(&CStr, io::Result<&[u8]>),
) -> io::Result<()> {
    // A process that ended while it is looked at is not there, whatever the kernel calls that.
    let gone = |e: Errno| {
        if e == Errno::SRCH {
            io::ErrorKind::NotFound.into()
        } else {
            io::Error::from(e)
        }
    };
    let dir = open(
        format!("/proc/{pid}/fd"),
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(gone)?;
    let mut link = [MaybeUninit::uninit(); 64];
    let mut show = |name: &CStr| match readlinkat_raw(&dir, name, &mut link) {
        Ok((to, _)) => {
            each(name, Ok(to));
            true
        }
        Err(Errno::NOENT) => false,
        Err(e) => {
            each(name, Err(gone(e)));
            true
        }
    };
    // The kernel tells how many there are (since 6.2), and where few were closed they are the first
    // numbers: no list is needed.
    let many = u64::try_from(fstat(&dir).map_err(gone)?.st_size).unwrap_or_default();
    let (mut shown, mut tried) = (0, 0);
    while shown < many && tried < many + CLOSED {
        shown += u64::from(show(DecInt::new(tried).as_c_str()));
        tried += 1;
    }
    if many > 0 && shown == many {
        return Ok(());
    }
    let mut names = [MaybeUninit::uninit(); 4096];
    let mut all = RawDir::new(&dir, &mut names);
    while let Some(one) = all.next() {
        let one = one.map_err(gone)?;
        let name = one.file_name();
        if name
            .to_str()
            .ok()
            .and_then(|name| name.parse().ok())
            .is_some_and(|number: u64| number >= tried)
        {
            show(name);
        }
    }
    Ok(())
}

/// The inode of a socket that a descriptor leads to.
#[must_use]
pub(crate) fn socket(to: &[u8]) -> Option<u64> {
    std::str::from_utf8(to.strip_prefix(b"socket:[")?.strip_suffix(b"]")?)
        .ok()?
        .parse()
        .ok()
}

/// The signal in a mask.
#[must_use]
pub(crate) fn bit(signal: Signal) -> u64 {
    1 << (signal.number() - 1)
}

#[cfg(test)]
mod tests;
