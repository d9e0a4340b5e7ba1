//! Whom a process runs as, and how a command is run as the same: by this binary again, which drops what it may and becomes the command.

use std::{
    ffi::OsString,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{ffi::OsStrExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::stat::Mode,
    unistd::{Gid, Uid, User, setgroups, setresgid, setresuid},
};
use procfs::process::Process;

use crate::host::command::Bind;

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
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

    /// The arguments with which this binary becomes `argv` as this person: with each of `binds` at its live path, and under the name `own` where
    /// one is given.
    pub(crate) fn wrap(&self, argv: &[String], binds: &[Bind], own: Option<&PathBuf>) -> Vec<OsString> {
        let groups: Vec<String> = self.groups.iter().map(u32::to_string).collect();
        let mut wrapped: Vec<OsString> = ["run-as", &self.uid.to_string(), &self.gid.to_string(), &groups.join(",")].map(Into::into).into();
        for bind in binds {
            wrapped.extend(["--in-place".into(), bind.from.clone().into(), bind.to.clone().into()]);
        }
        if let Some(own) = own {
            wrapped.extend(["--name".into(), own.clone().into()]);
        }
        wrapped.push("--".into());
        wrapped.extend(argv.iter().map(OsString::from));
        wrapped
    }
}

/// What `run-as` is told.
#[derive(Debug)]
pub(crate) struct Become {
    /// Whom it becomes.
    pub(crate) person: Person,
    /// What stands at its live path for the command alone.
    pub(crate) binds: Vec<Bind>,
    /// The name that the program is given, instead of its path.
    pub(crate) name: Option<PathBuf>,
    /// Program and arguments.
    pub(crate) argv: Vec<OsString>,
}

impl Become {
    /// Gives up everything for good and becomes the command; comes back only when that failed, with what a shell would answer and why.
    pub(crate) fn run(&self) -> (u8, String) {
        let Some((program, args)) = self.argv.split_first() else { return (126, "no command".into()) };
        // Another user's executable, or one that is looked at from a namespace of its own, may not be looked up any more later.
        let held = if program.as_bytes().starts_with(b"/proc/") { open(Path::new(program), HELD, Mode::empty()).ok() } else { None };
        let place = if self.binds.is_empty() { Ok(()) } else { self.bind() };
        if let Err(why) = place.and_then(|()| self.give_up().map_err(|e| format!("cannot become uid {}: {e}", self.person.uid))) {
            return (126, why);
        }
        let path = held.as_ref().map_or_else(|| program.into(), by_descriptor);
        let name = self.name.as_ref().map_or(program.as_os_str(), |name| name.as_os_str());
        let why = Command::new(path).args(args).arg0(name).exec();
        // As a shell says it: 127 it is not there, 126 it may not be run.
        (if why.kind() == io::ErrorKind::NotFound { 127 } else { 126 }, why.to_string())
    }

    fn give_up(&self) -> Result<(), Errno> {
        if !self.person.is_other() {
            return Ok(());
        }
        let groups: Vec<Gid> = self.person.groups.iter().map(|g| Gid::from_raw(*g)).collect();
        let (uid, gid) = (Uid::from_raw(self.person.uid), Gid::from_raw(self.person.gid));
        // In this order: who is no longer root can change nothing more.
        setgroups(&groups).and_then(|()| setresgid(gid, gid, gid)).and_then(|()| setresuid(uid, uid, uid))
    }

    /// Makes every candidate stand at its live path, in a mount namespace of this process alone.
    fn bind(&self) -> Result<(), String> {
        let none = |e: Errno| format!("no mount namespace in which the new config could stand at its live path: {}", io::Error::from(e));
        match unshare(CloneFlags::CLONE_NEWNS) {
            Err(Errno::EPERM) if !self.person.is_other() => own_users().map_err(none)?,
            said => said.map_err(none)?,
        }
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).map_err(none)?;
        let hold = |path: &Path| open(path, HELD | OFlag::O_NOFOLLOW, Mode::empty()).map_err(|e| format!("`{}`: {}", path.display(), io::Error::from(e)));
        // All of them first: what is staged beside a live directory may be hidden by what is bound there.
        let staged = self.binds.iter().map(|b| hold(&b.from)).collect::<Result<Vec<_>, _>>()?;
        for (bind, staged) in self.binds.iter().zip(&staged) {
            let live = hold(&bind.to)?;
            mount(Some(&by_descriptor(staged)), &by_descriptor(&live), None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>).map_err(none)?;
        }
        enter_again()
    }
}

const HELD: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);

fn by_descriptor(fd: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
}

/// Looks the working directory up by its path: inside a directory that was replaced, the old one would still be seen.
fn enter_again() -> Result<(), String> {
    let path = std::fs::read_link("/proc/self/cwd").map_err(|e| format!("working directory: {e}"))?;
    match std::env::current_dir() {
        Ok(path) => std::env::set_current_dir(&path).map_err(|e| format!("`{}`: {e}", path.display())),
        // Nothing can be in it any more, neither old nor new.
        Err(_) if path.as_os_str().as_bytes().ends_with(b" (deleted)") => Ok(()),
        Err(_) => Err(format!("its working directory `{}` has no path here", path.display())),
    }
}

/// A user namespace in which this user is itself, for a mount namespace that it may fill.
fn own_users() -> Result<(), Errno> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
    let write = |path: &str, text: String| std::fs::write(path, text).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or_default()));
    // Who has not given up changing groups may not name its own.
    write("/proc/self/setgroups", "deny".into())?;
    write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    write("/proc/self/uid_map", format!("{uid} {uid} 1"))
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
