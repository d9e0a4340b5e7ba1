//! The process that a command is about, held open by one descriptor of its `/proc/PID` and compared
//! with the record of the survey.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::unistd::{chroot, fchdir};
use rustix::{
    fs::{OFlags, fstat},
    thread::move_into_link_name_space,
};

use super::{
    error::{Change, HoldError, StageError},
    request::{Instance, World},
    spaces::Spaces,
};
use crate::{
    identity::Credentials,
    kernel::{Proc, gives_another_id, strip_deleted},
};

/// The open files of a process that is still the surveyed one.
#[derive(Debug)]
pub(super) struct HeldProcess {
    pub(super) exe: OwnedFd,
    pub(super) cwd: OwnedFd,
    pub(super) root: OwnedFd,
    pub(super) spaces: Spaces,
    /// The user, groups and capabilities of its command.
    pub(super) credentials: Credentials,
    /// The bytes of its environment; none if the command does not get it, or this user may not read
    /// it.
    pub(super) environment: Option<Vec<u8>>,
    /// Its large logs, if the writes of its command are discarded.
    pub(super) logs: Vec<Log>,
}

/// The most bytes of logs that the view does not replace with empty files. A command that opens one
/// for writing copies it to memory, which has 64 MiB for all writes.
const UNCOVERED: u64 = 8 << 20;

/// A file that a process only appends to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Log {
    pub(super) path: PathBuf,
    /// Its device and inode.
    pub(super) inode: (u64, u64),
    size: u64,
}

impl HeldProcess {
    /// Opens the process of an instance.
    ///
    /// # Errors
    /// Fails if the process ended, runs another program or as another user, or this user may not
    /// inspect it.
    pub(super) fn open(instance: &Instance) -> Result<Self, HoldError> {
        let hidden = |e: io::Error| HoldError::Hidden(instance.pid, e);
        let process = Proc::open(instance.pid).map_err(hidden)?;
        let exe = process.hold("exe", OFlags::PATH).map_err(hidden)?;
        let cwd = process
            .hold("cwd", OFlags::PATH | OFlags::DIRECTORY)
            .map_err(hidden)?;
        let root = process
            .hold("root", OFlags::PATH | OFlags::DIRECTORY)
            .map_err(hidden)?;
        let spaces =
            Spaces::open(&process, &root).map_err(|why| HoldError::Elsewhere(instance.pid, why))?;
        let environment = if instance.world == World::Files {
            None
        } else {
            process.read("environ").ok()
        };
        let logs = if instance.world == World::View {
            logs_of(&process)
        } else {
            Vec::new()
        };
        // The check comes last, so that every descriptor above belongs to the process that it
        // checks.
        let credentials = as_surveyed(instance, &process, &exe)?;
        Ok(Self {
            exe,
            cwd,
            root,
            spaces,
            credentials,
            environment,
            logs,
        })
    }
}

/// Returns the user, groups and capabilities of the command, if the process is still as surveyed.
fn as_surveyed(
    instance: &Instance,
    process: &Proc,
    exe: &OwnedFd,
) -> Result<Credentials, HoldError> {
    let hidden = |e: io::Error| HoldError::Hidden(instance.pid, e);
    let changed = |why: Change| HoldError::Changed(instance.pid, why);
    let (_, now, _) = process.status().map_err(hidden)?;
    let stat = process.stat().map_err(hidden)?;
    if stat.started != instance.started || !stat.lives() {
        return Err(changed(Change::Ended));
    }
    let was = &instance.credentials;
    if now.uids != was.uids {
        return Err(changed(Change::Users {
            now: now.uids,
            was: was.uids,
        }));
    }
    if now.gids != was.gids || now.groups != was.groups {
        return Err(changed(Change::Groups));
    }
    let more = |now: u64, was: u64| now & !was != 0;
    if more(now.permitted, was.permitted)
        || more(now.bounding, was.bounding)
        || more(now.ambient, was.ambient)
    {
        return Err(changed(Change::Capabilities));
    }
    let stat = fstat(exe).map_err(|e| hidden(e.into()))?;
    // The real user may have started the process, and chosen its arguments.
    if (now.is_setuid() || now.is_setgid()) && gives_another_id(stat.st_mode) {
        return Err(HoldError::Setid(instance.pid));
    }
    if (stat.st_dev, stat.st_ino) != instance.exe && !is_renewed(instance, process) {
        return Err(changed(Change::Program));
    }
    // A process may have dropped capabilities after the survey, while it started.
    Ok(now)
}

/// Returns the files that a process only appends to and that are too large to copy: these are logs.
/// Other open files may be input of the config, such as a list that is held open for its lock.
fn logs_of(process: &Proc) -> Vec<Log> {
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
        let path = process.link(&format!("fd/{name}")).ok()?;
        let inode = process.inode(&format!("fd/{name}")).ok()?;
        let size = std::fs::metadata(&path).map_or(u64::MAX, |meta| meta.len());
        path.is_absolute().then_some(Log { path, inode, size })
    };
    let logs = names
        .iter()
        .filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
        .filter_map(file)
        .collect();
    large(logs)
}

/// Returns the logs without the smallest, which are [`UNCOVERED`] bytes at most together.
fn large(mut logs: Vec<Log>) -> Vec<Log> {
    logs.sort_by_key(|log| log.size);
    logs.dedup_by_key(|log| log.inode);
    let mut size = 0_u64;
    logs.retain(|log| {
        size = size.saturating_add(log.size);
        size > UNCOVERED
    });
    logs
}

/// Tells whether the process runs a newer file at the path of its executable, if that is allowed.
fn is_renewed(instance: &Instance, process: &Proc) -> bool {
    // Compared byte for byte, as the kernel writes them.
    let now = process.link("exe");
    let now = now.as_deref().map(|exe| strip_deleted(exe).as_os_str());
    instance.exe != (0, 0)
        && instance
            .renewed
            .as_deref()
            .map(|was| strip_deleted(Path::new(was)).as_os_str())
            .is_some_and(|was| now.is_ok_and(|now| now == was))
}

/// Enters the namespaces, the root and the working directory of a process.
///
/// # Errors
/// Fails if one of them cannot be entered.
pub(super) fn enter(held: &HeldProcess) -> Result<(), StageError> {
    let HeldProcess {
        spaces, root, cwd, ..
    } = held;
    for (name, space) in &spaces.entered {
        move_into_link_name_space(space.as_fd(), None)
            .map_err(|e| StageError::Namespace(name, e.into()))?;
    }
    if spaces.has_own_files() {
        let changed = fchdir(root).and_then(|()| chroot("."));
        changed.map_err(|e| StageError::Step("its root directory cannot be entered", e.into()))?;
    }
    fchdir(cwd).map_err(|e| StageError::Step("its working directory cannot be entered", e.into()))
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
            .zip([UNCOVERED + 1, 10, 10, UNCOVERED + 1])
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
        let found: Vec<PathBuf> = logs_of(&me)
            .into_iter()
            .map(|file| file.path)
            .filter(|path| path.starts_with(dir.path()))
            .collect();
        assert_eq!(found, [path("log")]);
    }

    #[test]
    fn small_logs_stay_if_they_are_few() {
        let file = |inode: u64, size: u64| Log {
            path: "/x".into(),
            inode: (0, inode),
            size,
        };
        let inodes = |logs: Vec<Log>| {
            large(logs)
                .iter()
                .map(|file| file.inode.1)
                .collect::<Vec<_>>()
        };
        assert_eq!(inodes(vec![file(1, UNCOVERED), file(2, 1)]), [1]);
        assert_eq!(
            inodes((0..4).map(|inode| file(inode, UNCOVERED / 2)).collect()),
            [2, 3]
        );
        assert!(inodes(vec![file(1, UNCOVERED), file(1, UNCOVERED)]).is_empty());
    }
}
