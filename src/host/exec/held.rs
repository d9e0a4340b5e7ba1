//! The process that a command is about, held open: everything through one descriptor of its
//! `/proc/PID`, and compared with what the survey recorded.

use std::{
    ffi::OsStr,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::PathBuf,
};

use nix::unistd::{chroot, fchdir};
use rustix::{
    fs::{OFlags, fstat},
    thread::move_into_link_name_space,
};

use super::{
    request::{Instance, World},
    spaces::Spaces,
};
use crate::{
    host::proc::kernel::{Proc, gives_another_id},
    identity::Credentials,
};

/// Why a command about a process is not run.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unlike {
    #[error("pid {0} cannot be looked at: {1}")]
    Hidden(i32, io::Error),
    #[error("pid {0} is not the process any more that was surveyed: {1}")]
    Changed(i32, String),
    #[error(
        "the executable of pid {0} gives it another user or group (setuid, setgid), which its \
         command must not have"
    )]
    Setid(i32),
    #[error("what pid {0} sees cannot be entered: {1}")]
    Elsewhere(i32, String),
}

/// What is held of a process that is the surveyed one.
#[derive(Debug)]
pub(super) struct OpenedLogs {
    pub(super) exe: OwnedFd,
    pub(super) cwd: OwnedFd,
    pub(super) root: OwnedFd,
    pub(super) spaces: Spaces,
    /// The user, groups and capabilities of its command.
    pub(super) person: Credentials,
    /// The bytes of its environment; none where they are not wanted, or this user may not read
    /// them.
    pub(super) environment: Option<Vec<u8>>,
    /// Its large logs, where what its command writes is discarded.
    pub(super) written: Vec<Written>,
}

/// The most bytes of files that a process only appends to and that are left as they are. A command
/// that opens one for writing has a copy of it, and 64 MiB for all.
const LEFT: u64 = 8 << 20;

/// A file that a process appends to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) path: PathBuf,
    /// Device and inode.
    pub(super) inode: (u64, u64),
    size: u64,
}

impl OpenedLogs {
    /// Opens the process of `of`.
    ///
    /// # Errors
    /// It is another one by now, or runs another program or as another user; or this user may not
    /// look at it.
    pub(super) fn open(of: &Instance) -> Result<Self, Unlike> {
        let hidden = |e: io::Error| Unlike::Hidden(of.pid, e);
        let process = Proc::open(of.pid).map_err(hidden)?;
        let exe = process.hold("exe", OFlags::PATH).map_err(hidden)?;
        let cwd = process
            .hold("cwd", OFlags::PATH | OFlags::DIRECTORY)
            .map_err(hidden)?;
        let root = process
            .hold("root", OFlags::PATH | OFlags::DIRECTORY)
            .map_err(hidden)?;
        let spaces = Spaces::open(&process, &root).map_err(|why| Unlike::Elsewhere(of.pid, why))?;
        let environment = if of.world == World::Files {
            None
        } else {
            process.read("environ").ok()
        };
        let written = if of.world == World::View {
            written(&process)
        } else {
            Vec::new()
        };
        // In this order: whatever was opened was opened of the process that is described from here
        // on.
        let person = as_surveyed(of, &process, &exe)?;
        Ok(Self {
            exe,
            cwd,
            root,
            spaces,
            person,
            environment,
            written,
        })
    }
}

/// The user, groups and capabilities of the command, if the process is still what the survey saw.
fn as_surveyed(of: &Instance, process: &Proc, exe: &OwnedFd) -> Result<Credentials, Unlike> {
    let hidden = |e: io::Error| Unlike::Hidden(of.pid, e);
    let changed = |why: String| Unlike::Changed(of.pid, why);
    let (_, now, _) = process.status().map_err(hidden)?;
    let stat = process.stat().map_err(hidden)?;
    if stat.started != of.started || !stat.lives() {
        return Err(changed("it ended".into()));
    }
    let was = &of.person;
    if now.uids != was.uids {
        return Err(changed(format!(
            "it runs as {}, not as {}",
            users(&now),
            users(was)
        )));
    }
    if now.gids != was.gids || now.groups != was.groups {
        return Err(changed("it has other groups".into()));
    }
    let more = |now: u64, was: u64| now & !was != 0;
    if more(now.permitted, was.permitted)
        || more(now.bounding, was.bounding)
        || more(now.ambient, was.ambient)
    {
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

/// The files that a process only appends to, where they are too large to be copied: these are logs.
/// Any other may be an input of the config, such as a list that is held open for its lock.
fn written(process: &Proc) -> Vec<Written> {
    let Ok(dir) = process.hold("fdinfo", OFlags::RDONLY | OFlags::DIRECTORY) else {
        return Vec::new();
    };
    let names = rustix::fs::Dir::read_from(&dir).map(|dir| {
        dir.flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()
    });
    let names: Vec<String> = names.unwrap_or_default();
    let file = |name: &String| {
        let info = process.read(&format!("fdinfo/{name}")).ok()?;
        // proc_pid_fdinfo(5): the flags of open(2) as octal digits.
        let flags = String::from_utf8_lossy(&info)
            .lines()
            .find_map(|line| u32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok())?;
        let flags = OFlags::from_bits_retain(flags);
        if !flags.contains(OFlags::WRONLY | OFlags::APPEND) || flags.contains(OFlags::RDWR) {
            return None;
        }
        let (path, inode) = (
            process.link(&format!("fd/{name}")).ok()?,
            process.inode(&format!("fd/{name}")).ok()?,
        );
        let size = std::fs::metadata(&path).map_or(u64::MAX, |meta| meta.len());
        path.is_absolute().then_some(Written { path, inode, size })
    };
    let all = names
        .iter()
        .filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
        .filter_map(file)
        .collect();
    large(all)
}

/// Without the smallest ones, as long as they are [`LEFT`] together.
fn large(mut all: Vec<Written>) -> Vec<Written> {
    all.sort_by_key(|file| file.size);
    all.dedup_by_key(|file| file.inode);
    let mut left = 0_u64;
    all.retain(|file| {
        left = left.saturating_add(file.size);
        left > LEFT
    });
    all
}

/// Whether it runs what stands at the path of its executable by now, where that is allowed.
fn is_renewed(of: &Instance, process: &Proc) -> bool {
    let unmarked = |path: &OsStr| {
        path.as_bytes()
            .strip_suffix(b" (deleted)")
            .unwrap_or(path.as_bytes())
            .to_vec()
    };
    let now = process.link("exe").map(|path| unmarked(path.as_os_str()));
    of.exe != (0, 0)
        && of
            .renewed
            .as_deref()
            .map(unmarked)
            .is_some_and(|was| now.is_ok_and(|now| now == was))
}

fn users(person: &Credentials) -> String {
    let [real, effective, saved] = person.uids;
    if person.is_setuid() {
        format!("uid {effective} (real {real}, saved {saved})")
    } else {
        format!("uid {effective}")
    }
}

/// Enters all that `held` has of its own, and its working directory.
///
/// # Errors
/// A sentence: what cannot be entered.
pub(super) fn enter(held: &OpenedLogs) -> Result<(), String> {
    let OpenedLogs {
        spaces, root, cwd, ..
    } = held;
    for (name, space) in &spaces.entered {
        move_into_link_name_space(space.as_fd(), None)
            .map_err(|e| format!("its {name} namespace cannot be entered: {e}"))?;
    }
    if spaces.has_own_files() {
        let changed = fchdir(root).and_then(|()| chroot("."));
        changed.map_err(|e| {
            format!(
                "its root directory cannot be entered: {}",
                io::Error::from(e)
            )
        })?;
    }
    fchdir(cwd).map_err(|e| {
        format!(
            "its working directory cannot be entered: {}",
            io::Error::from(e)
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::fs::{File, OpenOptions};

    use super::*;

    #[test]
    fn only_a_large_file_that_is_appended_to_is_a_log() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().canonicalize().unwrap().join(name);
        let make = |name: &str, size: u64| File::create(path(name)).unwrap().set_len(size).unwrap();
        ["log", "small", "list", "database"]
            .iter()
            .zip([LEFT + 1, 10, 10, LEFT + 1])
            .for_each(|(name, size)| make(name, size));
        let mut append = OpenOptions::new();
        append.append(true);
        let mut change = OpenOptions::new();
        change.read(true).write(true);
        let _held = [
            append.open(path("log")),
            append.open(path("small")),
            change.open(path("list")),
            change.open(path("database")),
        ];
        let me = Proc::open(i32::try_from(std::process::id()).unwrap()).unwrap();
        let found: Vec<PathBuf> = written(&me)
            .into_iter()
            .map(|file| file.path)
            .filter(|path| path.starts_with(dir.path()))
            .collect();
        assert_eq!(found, [path("log")]);
    }

    #[test]
    fn small_logs_are_left_as_long_as_they_are_few() {
        let file = |inode: u64, size: u64| Written {
            path: "/x".into(),
            inode: (0, inode),
            size,
        };
        let inodes = |all: Vec<Written>| {
            large(all)
                .iter()
                .map(|file| file.inode.1)
                .collect::<Vec<_>>()
        };
        assert_eq!(inodes(vec![file(1, LEFT), file(2, 1)]), [1]);
        assert_eq!(
            inodes((0..4).map(|at| file(at, LEFT / 2)).collect()),
            [2, 3]
        );
        assert!(inodes(vec![file(1, LEFT), file(1, LEFT)]).is_empty());
    }
}
