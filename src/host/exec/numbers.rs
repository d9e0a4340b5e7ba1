//! The descriptors of this process as paths, and whether a user namespace may be used.

use std::{io, os::fd::OwnedFd};

use rustix::fs::{Mode, OFlags, open};

/// The directory `/proc/self/fd`, for system calls that take a path and no descriptor. It is opened
/// before another root is entered, in which `/proc` may be another filesystem.
#[derive(Debug)]
pub(super) struct Numbers(pub(super) OwnedFd);

impl Numbers {
    pub(super) fn open() -> io::Result<Self> {
        let directory = open(
            "/proc/self/fd",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        Ok(Self(directory?))
    }
}

/// The users that a user namespace must have, if this user may not mount without one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Users {
    /// The user of this process.
    Own,
    /// Every user of the caller.
    Callers,
}
