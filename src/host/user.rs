//! Whom a process runs as, and how a command is run as the same: by this binary again, which drops what it may and becomes the command.

use std::{io, os::unix::process::CommandExt, process::Command};

use nix::unistd::{Gid, Uid, User, setgroups, setresgid, setresuid};
use procfs::process::Process;

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Person {
    /// Effective user.
    pub(crate) uid: u32,
    /// Effective group.
    pub(crate) gid: u32,
    /// Supplementary groups, sorted.
    pub(crate) groups: Vec<u32>,
}

impl Person {
    /// Of a running process, from `/proc/PID/status`.
    pub(crate) fn of(pid: i32) -> Result<Self, String> {
        let status = Process::new(pid).and_then(|p| p.status()).map_err(|e| format!("pid {pid}: {e}"))?;
        let mut groups = status.groups;
        groups.sort_unstable();
        Ok(Self { uid: status.euid, gid: status.egid, groups })
    }

    /// Whether a command must drop something to run as this person. Who is not root cannot, and has found only its own processes.
    pub(crate) fn is_other(&self) -> bool {
        let me = Uid::effective();
        me.is_root() && self.uid != me.as_raw()
    }

    /// `argv` run by this binary as this person.
    pub(crate) fn wrap(&self, argv: &[String]) -> Vec<String> {
        let groups: Vec<String> = self.groups.iter().map(u32::to_string).collect();
        let mut wrapped: Vec<String> =
            ["/proc/self/exe", "run-as", &self.uid.to_string(), &self.gid.to_string(), &groups.join(","), "--"].map(Into::into).into();
        wrapped.extend_from_slice(argv);
        wrapped
    }

    /// Gives up everything for good and becomes `argv`; comes back only when that failed.
    pub(crate) fn become_command(&self, argv: &[String]) -> io::Error {
        let Some((program, args)) = argv.split_first() else { return io::ErrorKind::InvalidInput.into() };
        let groups: Vec<Gid> = self.groups.iter().map(|g| Gid::from_raw(*g)).collect();
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        // In this order: who is no longer root can change nothing more.
        if let Err(e) = setgroups(&groups).and_then(|()| setresgid(gid, gid, gid)).and_then(|()| setresuid(uid, uid, uid)) {
            return e.into();
        }
        Command::new(program).args(args).exec()
    }
}

/// The number of a user who is named by it or by name.
pub(crate) fn uid_of(user: &str) -> Result<u32, String> {
    if let Ok(uid) = user.parse() {
        return Ok(uid);
    }
    match User::from_name(user) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        _ => Err(format!("no user `{user}` on this host")),
    }
}
