//! The exact read of one candidate, through one descriptor, so that every field is of the same
//! process.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    fleet::{Match, fits, in_unit, lacking},
    host::proc::{cmdline::CommandLine, user::uid_of},
    identity::{Identity, Line},
    kernel::{Proc, Status, is_gone, is_own, strip_deleted},
};

/// The flag of a thread of the kernel in `/proc/PID/stat` (`PF_KTHREAD`).
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
    /// The origin of its users.
    pub(super) origin: Origin,
    /// None if this user may not see it.
    pub(super) exe: Option<PathBuf>,
    /// The kernel's name of the process, at most 15 bytes.
    comm: String,
    pub(super) line: CommandLine,
    /// Its signal masks at this read.
    pub(super) status: Status,
    /// Open while it is compared.
    process: Option<Proc>,
}

/// The origin of the users of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// It has one user, or took the others itself.
    Itself,
    /// Its executable is setuid or setgid, or may be: any user may have started it, with any
    /// arguments.
    Executable,
}

/// Why a pid is no process that runs a program; each text has no subject.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum InspectError {
    /// It ended, perhaps while it was read.
    #[error("is gone")]
    Gone,
    /// The number of a thread: it can be opened like a process, and no pidfd can hold it.
    #[error("is a thread of pid {0}, and no process")]
    Thread(i32),
    /// A thread of the kernel, or an ended process that its parent has not awaited yet.
    #[error("runs no program: it has ended, or is the kernel's own")]
    NoProgram,
    /// The system refused.
    #[error("cannot be looked at: {0}")]
    Failed(Arc<io::Error>),
}

impl From<io::Error> for InspectError {
    fn from(e: io::Error) -> Self {
        // A file that was opened before the process ended fails with its own error (`ESRCH`).
        if is_gone(&e) {
            Self::Gone
        } else {
            Self::Failed(Arc::new(e))
        }
    }
}

impl InspectError {
    /// Why this program can read no process at all, if that is the reason.
    pub(super) fn own(&self) -> Option<io::Error> {
        match self {
            Self::Failed(e) if is_own(e) => e.raw_os_error().map(io::Error::from_raw_os_error),
            _ => None,
        }
    }
}

/// Reads the process `pid`.
///
/// # Errors
/// Fails if it runs no program, or if it cannot be read.
pub(super) fn inspect(pid: i32) -> Result<Inspected, InspectError> {
    read(pid, Proc::open(pid)?)
}

fn read(pid: i32, process: Proc) -> Result<Inspected, InspectError> {
    let (status, credentials, pids) = process.status()?;
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
    let differs = credentials.is_setuid() || credentials.is_setgid();
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
    let inside = pids.last().copied().unwrap_or(pid);
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
            person: credentials.into(),
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

/// A match, with its user and its pid file resolved.
#[derive(Debug)]
pub(super) struct Criteria<'a> {
    pub(super) what: &'a Match,
    /// Its `user`; none inside if this host has no such user.
    uid: Option<Option<u32>>,
    /// The process that its `pid_file` names, if it has one.
    pub(super) pid: Option<Option<i32>>,
}

impl<'a> Criteria<'a> {
    /// `pid` is the process that its `pid_file` names.
    pub(super) fn new(what: &'a Match, pid: Option<i32>) -> Self {
        let uid = what.user.as_deref().map(|user| uid_of(user).ok());
        Self {
            what,
            uid,
            pid: what.pid_file.is_some().then_some(pid),
        }
    }

    /// Tells whether everything that the match says of the process itself holds, without its
    /// sockets. None if this user cannot see that.
    pub(super) fn fits(&self, process: &Inspected) -> Option<bool> {
        let what = self.what;
        let pid = self.pid.is_none_or(|pid| pid == Some(process.pid));
        let user = self.uid.is_none_or(|uid| uid == Some(process.uid));
        if !(pid
            && user
            && process.exe.as_ref().is_none_or(|exe| what.has_exe(exe))
            && what.has_args(&process.line.args)
            && process.has_script(what))
        {
            return Some(false);
        }
        let hidden = (process.exe.is_none() && !what.exe.is_empty()).then_some(None);
        if what.cgroup.is_none() && what.unit.is_none() {
            return hidden.unwrap_or(Some(true));
        }
        let path = process.cgroup()?;
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

    /// Returns the argument that a process lacks, if it runs the program of the match.
    pub(super) fn lacks(&self, process: &Inspected) -> Option<String> {
        let what = self.what;
        let named = !what.exe.is_empty() || !what.script.is_empty();
        let is_it =
            process.exe.as_ref().is_some_and(|exe| what.has_exe(exe)) && process.has_script(what);
        what.lacks(&process.line.args)
            .filter(|_| named && is_it)
            .map(lacking)
    }

    /// Tells whether a partly hidden process may be a match: its name, or a property that is rarer
    /// than arguments and a user, must fit.
    pub(super) fn may_be(&self, process: &Inspected) -> bool {
        let Match {
            script,
            cgroup,
            unit,
            pid_file,
            ..
        } = self.what;
        let rare = !script.is_empty() || cgroup.is_some() || unit.is_some() || pid_file.is_some();
        let name = if process.line.rewritten {
            process
                .line
                .name
                .split([':', ' '])
                .next()
                .unwrap_or_default()
        } else {
            &process.line.name
        };
        rare || !self.what.exe.is_empty() && self.what.may_have_exe(&process.comm, name)
    }
}

impl Inspected {
    /// Its executable without the kernel's mark of a deleted file.
    pub(super) fn program(&self) -> Option<PathBuf> {
        self.exe.as_deref().map(|exe| strip_deleted(exe).to_owned())
    }

    /// Closes its descriptor: there may be more matches than descriptors.
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
        // A hidden executable counts as an interpreter: its title may name the script.
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

    /// Its path in the unified hierarchy, from `/proc/PID/cgroup`; empty without that hierarchy.
    fn cgroup(&self) -> Option<String> {
        let text = String::from_utf8(self.process.as_ref()?.read("cgroup").ok()?).ok()?;
        let path = text
            .lines()
            .find_map(|line| line.strip_prefix("0::"))
            .unwrap_or_default();
        Some(path.strip_suffix(" (deleted)").unwrap_or(path).to_owned())
    }
}

#[cfg(test)]
mod tests;
