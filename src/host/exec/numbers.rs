//! Descriptors by number, and whether a user namespace may be used.

use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, open};

/// This process's descriptors by number, for the system calls that take nothing but a path. It is
/// opened before another root is entered, in which `/proc` may be something else.
#[derive(Debug)]
pub(super) struct Numbers(pub(super) OwnedFd);

impl Numbers {
    pub(super) fn open() -> Result<Self, String> {
        let all = open(
            "/proc/self/fd",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        all.map(Self).map_err(|e| format!("`/proc/self/fd`: {e}"))
    }
}

/// Whether a user namespace may be used where this user may not mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Users {
    Own,
    Callers,
}
