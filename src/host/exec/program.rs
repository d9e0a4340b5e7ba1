//! The next stage: this binary as a program.

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

use super::error::StageError;

/// Returns the path of this binary.
#[cfg(not(test))]
pub(super) fn this() -> PathBuf {
    "/proc/self/exe".into()
}

/// Returns the path of the package's binary, which `cargo test` builds beside that of the test.
#[cfg(test)]
pub(super) fn this() -> PathBuf {
    let test = std::env::current_exe().unwrap_or_default();
    test.ancestors().nth(2).unwrap_or(&test).join("hello")
}

/// Returns a copy of this binary that no process can change. A program that runs as root of a
/// container could otherwise open `/proc/PID/exe` of the stage that becomes it, and overwrite the
/// binary of the host (CVE-2019-5736).
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

/// Returns the command of the next stage, and the socket to it.
pub(super) fn stage(name: &str, image: Option<&OwnedFd>) -> io::Result<(Command, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    let path = image.map_or_else(this, |image| {
        format!("/proc/self/fd/{}", image.as_raw_fd()).into()
    });
    let mut command = Command::new(path);
    command.arg(name).stdin(Stdio::from(OwnedFd::from(theirs)));
    Ok((command, ours))
}

/// Leaves the session and the session keyring of the parent, and keeps other processes of the same
/// user from inspecting this one. A process of a container could otherwise read the descriptors of
/// a process that enters it.
pub(super) fn isolate() -> Result<(), StageError> {
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|e| StageError::Step("this process cannot be made non-dumpable", e.into()))?;
    // The command must not inherit descriptors that the caller inherited.
    close_fds::set_fds_cloexec(3, &[]);
    // It fails only if this process leads a session already (setsid(2)).
    let _ = nix::unistd::setsid();
    own_keyring()
}

/// Joins a session keyring that no other process has.
pub(super) fn own_keyring() -> Result<(), StageError> {
    match Keyring::join_anonymous_session() {
        Ok(_) => Ok(()),
        // The kernel has no keyrings, or a seccomp filter, which the command inherits, forbids
        // them.
        Err(e) if [Errno::ENOSYS as i32, Errno::EPERM as i32].contains(&e.0) => Ok(()),
        Err(e) => Err(StageError::Step(
            "it cannot have a session keyring of its own",
            io::Error::from_raw_os_error(e.0),
        )),
    }
}
