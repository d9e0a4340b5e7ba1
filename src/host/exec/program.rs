//! This binary, as the program of the next stage.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    process::{Command, Stdio},
};

use keyutils::Keyring;
use nix::errno::Errno;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// Where this binary is.
#[cfg(not(test))]
pub(super) fn this() -> PathBuf {
    "/proc/self/exe".into()
}

/// The binary of the package: a test runs in another one. `cargo test` builds both.
#[cfg(test)]
pub(super) fn this() -> PathBuf {
    let test = std::env::current_exe().unwrap_or_default();
    test.ancestors().nth(2).unwrap_or(&test).join("hello")
}

/// A copy of this binary that no process can change. A program that runs in a container as its root
/// could otherwise open the executable of the stage that becomes it, and write to the binary of the
/// host.
pub(super) fn sealed() -> io::Result<OwnedFd> {
    let copy = memfd_create("hello", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut into = File::from(copy);
    io::copy(&mut File::open("/proc/self/exe")?, &mut into)?;
    fcntl_add_seals(
        &into,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(into.into())
}

/// The next stage, which talks over the socket that is given back.
pub(super) fn stage(name: &str, image: Option<&OwnedFd>) -> io::Result<(Command, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    let path = image.map_or_else(this, |image| {
        format!("/proc/self/fd/{}", image.as_raw_fd()).into()
    });
    let mut command = Command::new(path);
    command.arg(name).stdin(Stdio::from(OwnedFd::from(theirs)));
    Ok((command, ours))
}

/// Leaves the session and the session keyring of the process that started this one, and closes this
/// process to others of the same user. A process of a container could otherwise look at the
/// descriptors of one that enters it.
pub(super) fn part() -> Result<(), String> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|e| format!("this process cannot be closed to others: {e}"))?;
    // The command gets none of the descriptors that the caller was handed.
    close_fds::set_fds_cloexec(3, &[]);
    // Only a process that leads a session already cannot have another.
    let _ = nix::unistd::setsid();
    own_keyring()
}

/// Joins a session keyring that no other process has.
pub(super) fn own_keyring() -> Result<(), String> {
    match Keyring::join_anonymous_session() {
        Ok(_) => Ok(()),
        // The kernel, or a filter that the command inherits, knows no keyrings.
        Err(e) if [Errno::ENOSYS as i32, Errno::EPERM as i32].contains(&e.0) => Ok(()),
        Err(e) => Err(format!("no session keyring of its own is to be had: {e}")),
    }
}
