//! The namespaces and the root directory of a process, where they are not those of the caller.

use std::{io, os::fd::OwnedFd};

use rustix::fs::{AtFlags, OFlags, StatxFlags, fstat, open, statx};

use crate::{host::proc::kernel::Proc, identity::Sees};

/// In the order in which they are entered; the mounts last, since the others are opened before.
const ENTERED: [&str; 6] = ["ipc", "uts", "net", "cgroup", "time", "mnt"];

/// What of a process is not the caller's.
#[derive(Debug)]
pub(super) struct Spaces {
    pub(super) entered: Vec<(&'static str, OwnedFd)>,
    /// Only the children of a process can be in another one.
    pid: Option<OwnedFd>,
    other_root: bool,
}

impl Spaces {
    /// Opens those of `process`, whose root directory is `root`.
    ///
    /// # Errors
    /// A sentence: they cannot be seen, or never be entered.
    pub(super) fn open(process: &Proc, root: &OwnedFd) -> Result<Self, String> {
        let look = |name: &str| {
            other(process, name).map_err(|e| format!("its namespaces cannot be seen: {e}"))
        };
        if look("user")?.is_some() {
            return Err("it has a user namespace of its own".into());
        }
        let mut entered = Vec::new();
        for name in ENTERED {
            entered.extend(look(name)?.map(|space| (name, space)));
        }
        let own = open(
            "/",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .map_err(io::Error::from);
        let other_root = own
            .and_then(|own| Ok(place(&own)? != place(root)?))
            .map_err(|e| format!("its root directory cannot be seen: {e}"))?;
        Ok(Self {
            entered,
            pid: look("pid")?,
            other_root,
        })
    }

    /// Its PID namespace, for the children of this process.
    pub(super) fn pid(&self) -> Option<&OwnedFd> {
        self.pid.as_ref()
    }

    /// Whether paths lead it elsewhere.
    pub(super) fn has_own_files(&self) -> bool {
        self.other_root || self.entered.iter().any(|(name, _)| *name == "mnt")
    }

    /// Whether anything is not the caller's. A process in a PID namespace of its own has been
    /// entered by then.
    pub(super) fn differ(&self) -> bool {
        self.other_root || !self.entered.is_empty()
    }
}

/// Whether the process `pid` has the namespaces and the root directory of this one.
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

/// The namespaces and the root directory of a process, by their inodes; empty where they cannot be
/// seen.
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

/// A namespace of the process that this one is not in; none where the kernel has no such sort.
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

/// A directory, and through which mount it is seen.
fn place(dir: &OwnedFd) -> io::Result<(u32, u32, u64, u64)> {
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
