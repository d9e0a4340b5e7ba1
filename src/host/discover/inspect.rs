//! One process, looked at: read from `/proc` through one descriptor, so that all of it is of the
//! same process.

use std::{
    ffi::OsStr,
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use crate::{
    fleet::{Match, fits, in_unit, lacking},
    host::proc::{
        cmdline::CommandLine,
        kernel::{Proc, Status, is_gone, is_own},
        user::uid_of,
    },
    identity::{Identity, Line},
};

/// In the flags of `/proc/PID/stat` (`PF_KTHREAD`).
const KERNEL_THREAD: u32 = 0x0020_0000;

/// A process that runs a program.
#[derive(Debug)]
pub(super) struct Inspected {
    pub(super) pid: i32,
    /// In clock ticks since boot.
    pub(super) started: u64,
    pub(super) parent: i32,
    /// Its effective user.
    pub(super) uid: u32,
    pub(super) identity: Identity,
    /// Where its users came from.
    pub(super) origin: Origin,
    /// None where this user may not see it.
    pub(super) exe: Option<PathBuf>,
    /// What the kernel calls it, in 15 bytes at most.
    comm: String,
    pub(super) line: CommandLine,
    /// What becomes of signals to it, at this look.
    pub(super) status: Status,
    /// As long as it is looked at.
    process: Option<Proc>,
}

/// How a process came to its users.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// It has one, or took the others itself.
    Itself,
    /// Its executable is setuid or setgid, or may be: any user may have started it, with any
    /// arguments.
    Executable,
}

/// Why a number is no process that runs a program; each a sentence without its subject.
#[derive(Debug, thiserror::Error)]
pub(super) enum InspectError {
    /// It ended, perhaps while it was looked at.
    #[error("is gone")]
    Gone,
    /// A thread's number: it can be opened like a process, and held by no pidfd.
    #[error("is a thread of pid {0}, and no process")]
    Thread(i32),
    /// A thread of the kernel, or a process that has ended and was not taken in yet.
    #[error("runs no program: it has ended, or is the kernel's own")]
    NoProgram,
    /// The system's reason.
    #[error("cannot be looked at: {0}")]
    Failed(io::Error),
}

impl From<io::Error> for InspectError {
    fn from(e: io::Error) -> Self {
        // What was opened before it ended says in its own way that it is gone when it is read.
        if is_gone(&e) {
            Self::Gone
        } else {
            Self::Failed(e)
        }
    }
}

impl InspectError {
    /// Why this program could not look at any process, where that is so.
    pub(super) fn own(&self) -> Option<String> {
        match self {
            Self::Failed(e) if is_own(e) => Some(e.to_string()),
            _ => None,
        }
    }
}

/// Looks at `pid`.
///
/// # Errors
/// When it runs no program, or cannot be looked at; see [`Unseen`].
pub(super) fn inspect(pid: i32) -> Result<Inspected, InspectError> {
    read(pid, Proc::open(pid)?)
}

fn read(pid: i32, process: Proc) -> Result<Inspected, InspectError> {
    let (status, person, numbers) = process.status()?;
    if status.leader != pid {
        return Err(InspectError::Thread(status.leader));
    }
    let stat = process.stat()?;
    if stat.flags & KERNEL_THREAD != 0 || !stat.lives() {
        return Err(InspectError::NoProgram);
    }
    let (exe, inode) = match process.link("exe") {
        Ok(exe) => (Some(exe), process.inode("exe")?),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => (None, (0, 0)),
        Err(e) => return Err(e.into()),
    };
    let line = CommandLine::parse(&process.read("cmdline")?);
    let differs = person.is_setuid() || person.is_setgid();
    let origin = if differs && process.is_set_id().unwrap_or(true) {
        Origin::Executable
    } else {
        Origin::Itself
    };
    let title = if line.rewritten {
        Line::Title
    } else {
        Line::Arguments
    };
    let inside = numbers.last().copied().unwrap_or(pid);
    Ok(Inspected {
        pid,
        started: stat.started,
        parent: stat.parent,
        uid: status.euid,
        identity: Identity {
            pid,
            inside,
            started: stat.started,
            exe: inode,
            person: person.into(),
            line: title,
            ..Identity::default()
        },
        origin,
        exe,
        comm: stat.comm,
        line,
        status,
        process: Some(process),
    })
}

/// A match with what is asked only once of the host.
#[derive(Debug)]
pub(super) struct Criteria<'a> {
    pub(super) what: &'a Match,
    /// Its `user`; nobody is one that is not on this host.
    uid: Option<Option<u32>>,
    /// Whom its `pid_file` names, if anybody.
    pub(super) pid: Option<Option<i32>>,
}

impl<'a> Criteria<'a> {
    /// `pid` is whom its `pid_file` names.
    pub(super) fn new(what: &'a Match, pid: Option<i32>) -> Self {
        let uid = what.user.as_deref().map(|user| uid_of(user).ok());
        Self {
            what,
            uid,
            pid: what.pid_file.is_some().then_some(pid),
        }
    }

    /// Whether everything that the match says of the process itself holds; its sockets are not
    /// looked at. None where this user cannot tell.
    pub(super) fn fits(&self, one: &Inspected) -> Option<bool> {
        let what = self.what;
        let pid = self.pid.is_none_or(|pid| pid == Some(one.pid));
        let user = self.uid.is_none_or(|uid| uid == Some(one.uid));
        if !(pid
            && user
            && one.exe.as_ref().is_none_or(|exe| what.has_exe(exe))
            && what.has_args(&one.line.args)
            && one.has_script(what))
        {
            return Some(false);
        }
        let hidden = (one.exe.is_none() && !what.exe.is_empty()).then_some(None);
        if what.cgroup.is_none() && what.unit.is_none() {
            return hidden.unwrap_or(Some(true));
        }
        let path = one.cgroup()?;
        let cgroup = what
            .cgroup
            .as_ref()
            .is_none_or(|pattern| pattern.matches(&path));
        let unit = what.unit.as_ref().is_none_or(|unit| in_unit(&path, unit));
        if cgroup && unit {
            hidden.unwrap_or(Some(true))
        } else {
            Some(false)
        }
    }

    /// Of a process that is the program that is meant, which argument it lacks.
    pub(super) fn lacks(&self, one: &Inspected) -> Option<String> {
        let what = self.what;
        let named = !what.exe.is_empty() || !what.script.is_empty();
        let is_it = one.exe.as_ref().is_some_and(|exe| what.has_exe(exe)) && one.has_script(what);
        what.lacks(&one.line.args)
            .filter(|_| named && is_it)
            .map(lacking)
    }

    /// Whether one of which it cannot be told may be meant: its names or something rarer than
    /// arguments and a user must speak for it.
    pub(super) fn may_be(&self, one: &Inspected) -> bool {
        let Match {
            script,
            cgroup,
            unit,
            pid_file,
            ..
        } = self.what;
        let rare = !script.is_empty() || cgroup.is_some() || unit.is_some() || pid_file.is_some();
        let name = if one.line.rewritten {
            one.line.name.split([':', ' ']).next().unwrap_or_default()
        } else {
            &one.line.name
        };
        rare || !self.what.exe.is_empty() && self.what.may_have_exe(&one.comm, name)
    }
}

impl Inspected {
    /// Its executable without the kernel's mark of a replaced one.
    pub(super) fn program(&self) -> Option<PathBuf> {
        self.exe.clone().map(unmarked)
    }

    /// Without its descriptor: there may be more matches than one process may open.
    pub(super) fn closed(self) -> Self {
        Self {
            process: None,
            ..self
        }
    }

    fn has_script(&self, what: &Match) -> bool {
        if what.script.is_empty() {
            return true;
        }
        // A title says as much of an executable that may not be seen.
        let trusted = !what.exe.is_empty() || self.exe.is_none();
        let Some(script) = self
            .line
            .script(self.exe.as_deref().unwrap_or(Path::new("")), trusted)
        else {
            return false;
        };
        let full = || {
            self.process
                .as_ref()
                .and_then(|p| p.link("cwd").ok())
                .map_or_else(
                    || script.into(),
                    |cwd| cwd.join(script).to_string_lossy().into_owned(),
                )
        };
        what.script.iter().any(|pattern| {
            if pattern.as_str().contains('/') {
                fits(pattern, &full())
            } else {
                fits(pattern, script)
            }
        })
    }

    /// Its path in the unified hierarchy, from `/proc/PID/cgroup`; empty where there is no such
    /// hierarchy.
    fn cgroup(&self) -> Option<String> {
        let text = String::from_utf8(self.process.as_ref()?.read("cgroup").ok()?).ok()?;
        let path = text
            .lines()
            .find_map(|line| line.strip_prefix("0::"))
            .unwrap_or_default();
        Some(path.strip_suffix(" (deleted)").unwrap_or(path).to_owned())
    }
}

/// An executable's path without the kernel's mark of a replaced one.
pub(super) fn unmarked(exe: PathBuf) -> PathBuf {
    match exe.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        Some(path) => OsStr::from_bytes(path).into(),
        None => exe,
    }
}

#[cfg(test)]
mod tests;
