//! Reads and writes the file of a target, with its attributes.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsRawFd, OwnedFd},
};

use rustix::{
    fs::{self, AtFlags, Gid, Mode, Timespec, Timestamps, Uid},
    io::Errno,
};

use crate::{
    config::{self, MAX_TARGET},
    host::target::install::{
        entries::{Entries, copy_xattrs},
        slot::Snapshot,
        sync::Sync,
    },
    tree::open_file,
};

/// The time of the last change that a written file gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChangeTime {
    /// In another second than that of the live file.
    New,
    /// That of the live file.
    Kept,
}

/// Writes the bytes, and gives the file the attributes of the live one.
pub(super) fn fill(
    fd: OwnedFd,
    live: &OwnedFd,
    bytes: &[u8],
    time: ChangeTime,
    sync: Sync,
) -> io::Result<OwnedFd> {
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    let fd = OwnedFd::from(file);
    let model = fs::fstat(live)?;
    let written = fs::fstat(&fd)?;
    // The owner first: a change of owner clears mode bits (chown(2)).
    if (written.st_uid, written.st_gid) != (model.st_uid, model.st_gid) {
        let uid = Uid::from_raw(model.st_uid);
        let gid = Gid::from_raw(model.st_gid);
        fs::fchown(&fd, Some(uid), Some(gid))?;
    }
    copy_xattrs(live, &fd)?;
    fs::fchmod(&fd, Mode::from_raw_mode(model.st_mode & 0o7777))?;
    // Some programs, such as Python's cache of compiled files, identify a file by its size and its
    // time in whole seconds. The new file must differ for them.
    let seconds = match time {
        ChangeTime::New => (written.st_mtime == model.st_mtime).then_some(model.st_mtime + 1),
        ChangeTime::Kept => Some(model.st_mtime),
    };
    if let Some(tv_sec) = seconds {
        let last_modification = Timespec {
            tv_sec,
            tv_nsec: model.st_mtime_nsec.try_into().unwrap_or_default(),
        };
        let times = Timestamps {
            last_access: last_modification,
            last_modification,
        };
        fs::futimens(&fd, &times)?;
    }
    if sync == Sync::Singly {
        fs::fsync(&fd)?;
    }
    Ok(fd)
}

/// Gives a file without a name this name (`O_TMPFILE`, open(2)).
pub(super) fn link(file: &OwnedFd, dir: &OwnedFd, name: &OsStr) -> Result<(), Errno> {
    let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
    fs::linkat(fs::CWD, &*nameless, dir, name, AtFlags::SYMLINK_FOLLOW)
}

/// Reads a file: the attributes first, then the bytes. A change in between shows in the bytes, or
/// in a later read.
pub(super) fn snapshot(dir: &OwnedFd, name: &OsStr) -> Option<Snapshot> {
    let fd = open_file(dir, name).ok()?;
    let entries = Entries::of(&fd).ok()?;
    let file = File::from(fd);
    let sha256 = digest(&file)?;
    Some(Snapshot {
        sha256,
        entries,
        fd: file.into(),
        tree: None,
    })
}

pub(super) fn digest_of(dir: &OwnedFd, name: &OsStr) -> Option<String> {
    digest(&File::from(open_file(dir, name).ok()?))
}

fn digest(file: &File) -> Option<String> {
    // Most configs fit into 4 KiB, so that one read takes all of them.
    let mut bytes = Vec::with_capacity(4096);
    file.take(MAX_TARGET + 1).read_to_end(&mut bytes).ok()?;
    Some(config::digest(&bytes))
}
