//! A user namespace in which a process may mount that may not mount in its own.

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

/// Enters a user and a mount namespace of its own, in which this process may mount. For root, every
/// user is mapped, because a validator may change the owner of files. For another user, that user
/// alone is mapped.
///
/// # Errors
/// Fails if the system allows no such namespaces.
pub(super) fn enter(numbers: &Numbers, users: Users) -> Result<(), Errno> {
    let uid = Uid::effective();
    let gid = Gid::effective();
    // Only a process outside the namespace may map more than one user (user_namespaces(7)).
    let helper = if uid.is_root() {
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
    // The files in `/proc/self` belong to root while this process is not dumpable (proc(5)).
    set_dumpable_behavior(DumpableBehavior::Dumpable)
        .map_err(|e| Errno::from_raw(e.raw_os_error()))?;
    let write = |path: &str, text: String| {
        std::fs::write(path, text)
            .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or_default()))
    };
    // The kernel denies a gid map before setgroups(2) is denied (user_namespaces(7)).
    write("/proc/self/setgroups", "deny".into())?;
    write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
    write("/proc/self/uid_map", format!("{uid} {uid} 1"))
}

/// The process outside the namespace that maps its users.
struct Helper {
    child: std::process::Child,
    channel: UnixStream,
}

impl Helper {
    /// Starts the helper, with the `/proc` directory of this process as its stdout.
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

    /// Asks the helper to write the maps, and waits for its end.
    fn map(mut self) -> io::Result<()> {
        let sent = self.channel.write_all(b"\n");
        drop(self.channel);
        let status = self.child.wait()?;
        sent?;
        if status.success() {
            Ok(())
        } else {
            Err(io::ErrorKind::PermissionDenied.into())
        }
    }
}

/// Maps every user and group of this process in the user namespace of another process, after a byte
/// on stdin. Descriptor 1 is the `/proc` directory of that process.
pub(crate) fn map_users() -> u8 {
    let request = channel().and_then(|mut channel| channel.read_exact(&mut [0]));
    u8::from(
        request
            .and_then(|()| ["uid_map", "gid_map"].into_iter().try_for_each(map))
            .is_err(),
    )
}

fn map(name: &str) -> io::Result<()> {
    let own = std::fs::read_to_string(format!("/proc/self/{name}"))?;
    let mut file = OpenOptions::new()
        .write(true)
        .open(format!("/proc/self/fd/1/{name}"))?;
    // The map must be written in one write (user_namespaces(7)).
    file.write_all(identity_map(&own).as_bytes())
}

/// Returns the map in which each user of a namespace with the map `own` is itself.
fn identity_map(own: &str) -> String {
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
            identity_map("         0          0 4294967295\n"),
            "0 0 4294967295\n"
        );
        assert_eq!(
            identity_map("0 1000 1\n1 100000 65536\n"),
            "0 0 1\n1 1 65536\n"
        );
        assert_eq!(identity_map(""), "");
    }
}
