//! The process that a command is about, held open: everything through one descriptor of its `/proc/PID`, and compared with
//! what the survey recorded.

use std::{
    ffi::OsStr,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::PathBuf,
};

use rustix::fs::{OFlags, fstat};

use super::{
    request::{Instance, World},
    spaces::Spaces,
};
use crate::{
    host::kernel::{Proc, gives_another_id},
    identity::Person,
};

/// Why a command about a process is not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unlike {
    #[error("pid {0} cannot be looked at: {1}")]
    Hidden(i32, io::Error),
    #[error("pid {0} is not the process any more that was surveyed: {1}")]
    Changed(i32, String),
    #[error("the executable of pid {0} gives it another user or group (setuid, setgid), which its command must not have")]
    Setid(i32),
    #[error("what pid {0} sees cannot be entered: {1}")]
    Elsewhere(i32, String),
}

/// What is held of a process that is the surveyed one.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) exe: OwnedFd,
    pub(super) cwd: OwnedFd,
    pub(super) root: OwnedFd,
    pub(super) spaces: Spaces,
    /// The user, groups and capabilities of its command.
    pub(super) person: Person,
    /// The bytes of its environment; none where they are not wanted, or this user may not read them.
    pub(super) environment: Option<Vec<u8>>,
    /// Files that it may write to, where what its command writes is discarded.
    pub(super) written: Vec<Written>,
}

/// A file that a process holds open for writing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) path: PathBuf,
    /// Device and inode.
    pub(super) inode: (u64, u64),
}

impl Held {
    /// Opens the process of `of`.
    ///
    /// # Errors
    /// It is another one by now, or runs another program or as another user; or this user may not look at it.
    pub(super) fn open(of: &Instance) -> Result<Self, Unlike> {
        let hidden = |e: io::Error| Unlike::Hidden(of.pid, e);
        let process = Proc::open(of.pid).map_err(hidden)?;
        let exe = process.hold("exe", OFlags::PATH).map_err(hidden)?;
        let cwd = process.hold("cwd", OFlags::PATH | OFlags::DIRECTORY).map_err(hidden)?;
        let root = process.hold("root", OFlags::PATH | OFlags::DIRECTORY).map_err(hidden)?;
        let spaces = Spaces::open(&process, &root).map_err(|why| Unlike::Elsewhere(of.pid, why))?;
        let environment = if of.world == World::Files { None } else { process.read("environ").ok() };
        let written = if of.world == World::View { written(&process) } else { Vec::new() };
        // In this order: whatever was opened was opened of the process that is described from here on.
        let person = as_surveyed(of, &process, &exe)?;
        Ok(Self { exe, cwd, root, spaces, person, environment, written })
    }
}

/// The user, groups and capabilities of the command, if the process is still what the survey saw.
fn as_surveyed(of: &Instance, process: &Proc, exe: &OwnedFd) -> Result<Person, Unlike> {
    let hidden = |e: io::Error| Unlike::Hidden(of.pid, e);
    let changed = |why: String| Unlike::Changed(of.pid, why);
    let (_, now, _) = process.status().map_err(hidden)?;
    let stat = process.stat().map_err(hidden)?;
    if stat.started != of.started || !stat.lives() {
        return Err(changed("it ended".into()));
    }
    let was = &of.person;
    if now.uids != was.uids {
        return Err(changed(format!("it runs as {}, not as {}", users(&now), users(was))));
    }
    if now.gids != was.gids || now.groups != was.groups {
        return Err(changed("it has other groups".into()));
    }
    let more = |now: u64, was: u64| now & !was != 0;
    if more(now.permitted, was.permitted) || more(now.bounding, was.bounding) || more(now.ambient, was.ambient) {
        return Err(changed("it has more capabilities".into()));
    }
    let stat = fstat(exe).map_err(|e| hidden(e.into()))?;
    // Its real user may have started it, and chosen its arguments.
    if (now.is_setuid() || now.is_setgid()) && gives_another_id(stat.st_mode) {
        return Err(Unlike::Setid(of.pid));
    }
    if (stat.st_dev, stat.st_ino) != of.exe && !is_renewed(of, process) {
        return Err(changed("it runs another program".into()));
    }
    // A process that starts may give up capabilities after it was surveyed.
    Ok(now)
}

/// The regular files that a process holds open for writing.
fn written(process: &Proc) -> Vec<Written> {
    let Ok(dir) = process.hold("fdinfo", OFlags::RDONLY | OFlags::DIRECTORY) else { return Vec::new() };
    let names = rustix::fs::Dir::read_from(&dir).map(|dir| dir.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect());
    let names: Vec<String> = names.unwrap_or_default();
    let file = |name: &String| {
        let info = process.read(&format!("fdinfo/{name}")).ok()?;
        // proc_pid_fdinfo(5): the flags of open(2) as octal digits.
        let flags = String::from_utf8_lossy(&info).lines().find_map(|line| u32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok())?;
        let (path, inode) = (process.link(&format!("fd/{name}")).ok()?, process.inode(&format!("fd/{name}")).ok()?);
        (OFlags::from_bits_retain(flags).intersects(OFlags::WRONLY | OFlags::RDWR) && path.is_absolute()).then_some(Written { path, inode })
    };
    names.iter().filter(|name| name.bytes().all(|b| b.is_ascii_digit())).filter_map(file).collect()
}

/// Whether it runs what stands at the path of its executable by now, where that is allowed.
fn is_renewed(of: &Instance, process: &Proc) -> bool {
    let unmarked = |path: &OsStr| path.as_bytes().strip_suffix(b" (deleted)").unwrap_or(path.as_bytes()).to_vec();
    let now = process.link("exe").map(|path| unmarked(path.as_os_str()));
    of.exe != (0, 0) && of.renewed.as_deref().map(unmarked).is_some_and(|was| now.is_ok_and(|now| now == was))
}

fn users(person: &Person) -> String {
    let [real, effective, saved] = person.uids;
    if person.is_setuid() { format!("uid {effective} (real {real}, saved {saved})") } else { format!("uid {effective}") }
}
