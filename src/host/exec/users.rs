//! A user namespace for a process that may not mount, in which it may.

use std::{
    fs::OpenOptions,
    io::{self, Read, Write},
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::{Command, Stdio},
};

use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    unistd::{Gid, Uid},
};
use rustix::{
    fs::{Mode, OFlags, openat},
    process::{DumpableBehavior, set_dumpable_behavior},
};

use super::{
    MAP_USERS,
    numbers::{Numbers, Users},
    program::this,
    request::channel,
};

/// Enters user and mount namespaces of its own, in which this process may mount. Root keeps every
/// user that it knows: a validator may give files to one of them. Any other process is itself
/// alone.
///
/// # Errors
/// The system's: no such namespaces are to be had.
pub(super) fn enter(numbers: &Numbers, users: Users) -> Result<(), Errno> {
    let (uid, gid, root) = (
        Uid::effective(),
        Gid::effective(),
        Uid::effective().is_root(),
    );
    // Only a process outside the namespace may say which users it has.
    let helper = if root {
        Helper::start(numbers).ok()
    } else {
        None
    };
    if helper.is_none() && users == Users::Callers {
        return Err(Errno::EPERM);
    }
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS)?;
    if helper.is_some_and(|helper| helper.map().is_ok()) {
        return Ok(());
    }
    if users == Users::Callers {
        return Err(Errno::EPERM);
    }
    // The kernel gives the files of a process that is closed to others to root.
    set_dumpable_behavior(DumpableBehavior::Dumpable)
        .map_err(|e| Errno::from_raw(e.raw_os_error()))?;
    let write = |path: &str, text: String| {
        std::fs::write(path, text)
            .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or_default()))
    };
    // A process that has not given up changing groups may not name its own.
    write("/proc/self/setgroups", "deny".into())?;
    write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    write("/proc/self/uid_map", format!("{uid} {uid} 1"))
}

/// A process outside the namespace.
struct Helper {
    child: std::process::Child,
    channel: UnixStream,
}

impl Helper {
    /// Starts it: it knows this process by the directory of that in `/proc`.
    fn start(numbers: &Numbers) -> io::Result<Self> {
        let process = openat(
            &numbers.0,
            "..",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let (channel, theirs) = UnixStream::pair()?;
        let mut command = Command::new(this());
        command
            .arg(MAP_USERS)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::from(process))
            .stderr(Stdio::null());
        Ok(Self {
            child: command.spawn()?,
            channel,
        })
    }

    /// Lets it write, and waits for its end.
    fn map(mut self) -> io::Result<()> {
        let asked = self.channel.write_all(b"\n");
        drop(self.channel);
        let status = self.child.wait()?;
        asked?;
        if status.success() {
            Ok(())
        } else {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
}

/// Gives the user namespace of the process whose directory of `/proc` is its descriptor 1 every
/// user and group of this one, once it is told to on stdin.
pub(crate) fn map_users() -> u8 {
    let told = channel().and_then(|mut channel| channel.read_exact(&mut [0]));
    u8::from(
        told.and_then(|()| ["uid_map", "gid_map"].into_iter().try_for_each(map))
            .is_err(),
    )
}

fn map(name: &str) -> io::Result<()> {
    let own = std::fs::read_to_string(format!("/proc/self/{name}"))?;
    let mut file = OpenOptions::new()
        .write(true)
        .open(format!("/proc/self/fd/1/{name}"))?;
    // One write is the whole map (user_namespaces(7)).
    file.write_all(same(&own).as_bytes())
}

/// The map in which each user of a namespace with the map `own` is itself.
fn same(own: &str) -> String {
    let line = |line: &str| {
        let mut fields = line.split_whitespace();
        let (first, length) = (fields.next()?, fields.nth(1)?);
        Some(format!("{first} {first} {length}\n"))
    };
    own.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_of_a_map_is_itself_in_the_next_one() {
        assert_eq!(
            same("         0          0 4294967295\n"),
            "0 0 4294967295\n"
        );
        assert_eq!(same("0 1000 1\n1 100000 65536\n"), "0 0 1\n1 1 65536\n");
        assert_eq!(same(""), "");
    }
}
