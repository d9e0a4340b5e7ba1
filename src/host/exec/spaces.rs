//! The namespaces and the root directory of a process that differ from those of the caller.

use std::{io, os::fd::OwnedFd};

use rustix::fs::{AtFlags, OFlags, StatxFlags, fstat, open, statx};

use super::error::SpacesError;
use crate::{identity::Sees, kernel::Proc};

/// The namespaces in the order in which they are entered. The mounts are last, because their
/// `/proc` may not show the others.
const ENTERED: [&str; 6] = ["ipc", "uts", "net", "cgroup", "time", "mnt"];

/// The namespaces and the root of a process that are not the caller's.
#[derive(Debug)]
pub(super) struct Spaces {
    pub(super) entered: Vec<(&'static str, OwnedFd)>,
    /// The PID namespace, which only children of the caller can enter (setns(2)).
    pid: Option<OwnedFd>,
    other_root: bool,
}

impl Spaces {
    /// Opens the namespaces of `process`, whose root directory is `root`.
    ///
    /// # Errors
    /// Fails if they cannot be read, or the process has a user namespace of its own.
    pub(super) fn open(process: &Proc, root: &OwnedFd) -> Result<Self, SpacesError> {
        let open_other = |name: &str| other(process, name).map_err(SpacesError::Unreadable);
        if open_other("user")?.is_some() {
            return Err(SpacesError::OwnUsers);
        }
        let mut entered = Vec::new();
        for name in ENTERED {
            entered.extend(open_other(name)?.map(|space| (name, space)));
        }
        let own = open(
            "/",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .map_err(io::Error::from);
        let other_root = own
            .and_then(|own| Ok(location(&own)? != location(root)?))
            .map_err(SpacesError::Root)?;
        Ok(Self {
            entered,
            pid: open_other("pid")?,
            other_root,
        })
    }

    /// Returns its PID namespace, for the children of this process.
    pub(super) fn pid(&self) -> Option<&OwnedFd> {
        self.pid.as_ref()
    }

    /// Tells whether the process has another root or mount namespace.
    pub(super) fn has_own_files(&self) -> bool {
        self.other_root || self.entered.iter().any(|(name, _)| *name == "mnt")
    }

    /// Tells whether any namespace or the root differs. The PID namespace does not count, because
    /// it is entered before.
    pub(super) fn differ(&self) -> bool {
        self.other_root || !self.entered.is_empty()
    }
}

/// Tells whether the process `pid` has the namespaces and the root directory of this one.
pub(crate) fn sees(pid: i32) -> Sees {
    let spaces = Proc::open(pid).ok().and_then(|process| {
        let root = process
            .hold("root", OFlags::PATH | OFlags::DIRECTORY)
            .ok()?;
        Spaces::open(&process, &root).ok()
    });
    match spaces {
        Some(spaces) if !spaces.differ() && spaces.pid.is_none() => Sees::TheSame,
        _ => Sees::Another,
    }
}

/// Returns the inodes of the namespaces and of the root directory of a process; empty if they
/// cannot be read.
pub(crate) fn surroundings(pid: i32) -> Vec<(u64, u64)> {
    let Ok(process) = Proc::open(pid) else {
        return Vec::new();
    };
    let names = ENTERED
        .iter()
        .copied()
        .chain(["pid", "user"])
        .map(|name| format!("ns/{name}"))
        .chain(["root".into()]);
    names.filter_map(|name| process.inode(&name).ok()).collect()
}

/// Opens a namespace of the process if this process is not in it; none if the kernel has no such
/// namespaces.
fn other(process: &Proc, name: &str) -> io::Result<Option<OwnedFd>> {
    let theirs = match process.hold(&format!("ns/{name}"), OFlags::RDONLY) {
        Ok(theirs) => theirs,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let own = rustix::fs::stat(format!("/proc/self/ns/{name}"))?;
    let stat = fstat(&theirs)?;
    Ok(((own.st_dev, own.st_ino) != (stat.st_dev, stat.st_ino)).then_some(theirs))
}

/// Returns the device and the inode of a directory, and the id of its mount.
fn location(dir: &OwnedFd) -> io::Result<(u32, u32, u64, u64)> {
    let stat = statx(
        dir,
        "",
        AtFlags::EMPTY_PATH,
        StatxFlags::INO | StatxFlags::MNT_ID,
    )?;
    Ok((
        stat.stx_dev_major,
        stat.stx_dev_minor,
        stat.stx_ino,
        stat.stx_mnt_id,
    ))
}
