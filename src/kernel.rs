//! Reads `/proc/PID` exactly: every field that `hello` asks of a process.
//!
//! The whole process table (`host/proc/table.rs`) is read by `sysinfo`; this room reads the
//! candidates. It parses by itself, because a process chooses its own name and its own mounts.
//! `procfs` 0.18 refuses a status whose `Name:` is not UTF-8, as `prctl(PR_SET_NAME)` may set it,
//! and as the kernel itself makes it where it cuts a name at 15 bytes inside a character. It also
//! refuses a mount table with such a path, and leaves its octal escapes. Besides, its status takes
//! 59 us where this one takes 24 us. The tests compare both.

mod clock;
mod descriptors;
mod mounts;
mod read;
mod stat;
mod status;

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    os::{
        fd::OwnedFd,
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, open, openat, readlinkat, statat},
    io::Errno,
};

use self::read::unexpected_format;
pub(crate) use self::{
    clock::{since_boot, tick_ns, ticks},
    descriptors::{descriptors, socket},
    mounts::{Mount, mounts},
    read::{bit, read_proc_file},
    stat::{Stat, is_alive},
    status::Status,
};
use crate::identity::Credentials;

/// The directory of one process. Everything that is read through it is of that process, even if the
/// kernel gives its pid to another one later.
#[derive(Debug)]
pub(crate) struct Proc(OwnedFd);

impl Proc {
    /// Opens the directory of the process, or the thread, `pid`.
    ///
    /// # Errors
    /// Fails if there is no such process.
    pub(crate) fn open(pid: i32) -> io::Result<Self> {
        Self::at(&format!("/proc/{pid}"))
    }

    /// Opens the directory of this process. `/proc` may belong to an outer PID namespace, in which
    /// its pid differs.
    ///
    /// # Errors
    /// Fails if `/proc` is not mounted.
    pub(crate) fn own() -> io::Result<Self> {
        Self::at("/proc/self")
    }

    fn at(path: &str) -> io::Result<Self> {
        Ok(Self(open(
            path,
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?))
    }

    /// Reads a file in it as a whole.
    ///
    /// # Errors
    /// Fails if the process is gone, or if this user may not read the file.
    pub(crate) fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        read_proc_file(File::from(openat(
            &self.0,
            name,
            OFlags::RDONLY | OFlags::CLOEXEC,
            Mode::empty(),
        )?))
    }

    /// Returns the path that a link in it leads to.
    ///
    /// # Errors
    /// As [`Proc::read`].
    pub(crate) fn link(&self, name: &str) -> io::Result<PathBuf> {
        Ok(OsString::from_vec(readlinkat(&self.0, name, Vec::new())?.into_bytes()).into())
    }

    /// Returns device and inode of the file that a link in it leads to.
    ///
    /// # Errors
    /// As [`Proc::read`].
    pub(crate) fn inode(&self, name: &str) -> io::Result<(u64, u64)> {
        let stat = statat(&self.0, name, AtFlags::empty())?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Tells whether its executable gives another user or group to a process that executes it.
    ///
    /// # Errors
    /// As [`Proc::read`].
    pub(crate) fn is_set_id(&self) -> io::Result<bool> {
        Ok(gives_another_id(
            statat(&self.0, "exe", AtFlags::empty())?.st_mode,
        ))
    }

    /// Opens a file in it, or the file that a link in it leads to.
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

    /// Reads `/proc/PID/stat`.
    ///
    /// # Errors
    /// As [`Proc::read`].
    pub(crate) fn stat(&self) -> io::Result<Stat> {
        Stat::parse(&self.read("stat")?).ok_or_else(unexpected_format)
    }

    /// Reads `/proc/PID/status`: masks, credentials, and the pid in each PID namespace that shows
    /// the process, the outermost first.
    ///
    /// # Errors
    /// As [`Proc::read`].
    pub(crate) fn status(&self) -> io::Result<(Status, Credentials, Vec<i32>)> {
        let raw = self.read("status")?;
        let (credentials, pids) = status::credentials(&raw).ok_or_else(unexpected_format)?;
        let status = Status::parse(&raw).ok_or_else(unexpected_format)?;
        Ok((status, credentials, pids))
    }

    /// Reads `/proc/PID/mountinfo`: the mounts that the process sees.
    ///
    /// # Errors
    /// As [`Proc::read`].
    pub(crate) fn mounts(&self) -> io::Result<Vec<Mount>> {
        // A line may be longer than a page: an overlay names all its layers.
        let mut table = Vec::new();
        File::from(self.hold("mountinfo", OFlags::RDONLY)?).read_to_end(&mut table)?;
        Ok(mounts(&table))
    }
}

/// Tells whether a file of this mode is setuid or setgid.
#[must_use]
pub(crate) fn gives_another_id(mode: u32) -> bool {
    Mode::from_raw_mode(mode).intersects(Mode::SUID | Mode::SGID)
}

/// Tells whether an error of a file in `/proc` says that the process has ended. Any other error is
/// this program's own (too many open files, no memory, no permission) and says nothing of the
/// process.
#[must_use]
pub(crate) fn is_gone(e: &io::Error) -> bool {
    e.kind() == io::ErrorKind::NotFound || e.raw_os_error() == Some(Errno::SRCH.raw_os_error())
}

/// Tells whether an error means that this program itself lacks something, so that every other
/// process would give the same error.
#[must_use]
pub(crate) fn is_own(e: &io::Error) -> bool {
    let own = [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::NOBUFS];
    own.iter()
        .any(|errno| e.raw_os_error() == Some(errno.raw_os_error()))
}

/// Returns the next step for an operator where a process could not be read for this reason.
#[must_use]
pub(crate) fn unread_hint(e: &io::Error) -> &'static str {
    if e.kind() == io::ErrorKind::PermissionDenied {
        "run `hello` as root, or as a user that may inspect that process"
    } else if is_own(e) {
        "raise the limits of `hello` (`ulimit -n`), or free memory, and try again"
    } else {
        "try again"
    }
}

/// Lists the pid of every process, sorted.
///
/// # Errors
/// Fails if `/proc` cannot be listed: then nothing is known of any process.
pub(crate) fn pids() -> io::Result<Vec<i32>> {
    numbers_in("/proc").map(|mut pids| {
        pids.sort_unstable();
        pids
    })
}

/// Lists the threads of a process.
///
/// # Errors
/// Fails if the process is gone, or if the list cannot be read.
pub(crate) fn threads(pid: i32) -> io::Result<Vec<i32>> {
    numbers_in(&format!("/proc/{pid}/task"))
}

/// The names in a directory of `/proc` that are numbers.
fn numbers_in(dir: &str) -> io::Result<Vec<i32>> {
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    Ok(numbers)
}

/// The path of an executable without the mark ` (deleted)`, which the kernel appends if the file
/// was removed or replaced (proc(5)).
#[must_use]
pub(crate) fn strip_deleted(exe: &Path) -> &Path {
    let bytes = exe.as_os_str().as_bytes();
    Path::new(OsStr::from_bytes(
        bytes.strip_suffix(b" (deleted)").unwrap_or(bytes),
    ))
}

#[cfg(test)]
mod tests;
