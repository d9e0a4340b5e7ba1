//! Entries of an open directory: their status, names and descriptors, and how messages name them.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
};

use rustix::{
    fs::{self, AtFlags, FileType, Mode, OFlags, Statx, StatxFlags},
    io::Errno,
};

/// Returns a path on one line: control characters are escaped.
#[must_use]
pub(crate) fn shown(path: &Path) -> String {
    path.to_string_lossy()
        .chars()
        .map(|c| {
            if c.is_control() {
                c.escape_default().to_string()
            } else {
                c.into()
            }
        })
        .collect()
}

/// Names an entry of a directory in a sentence about the directory: "`x` in it". An empty path is
/// the directory itself: "it".
pub(crate) fn named_in(path: &Path) -> String {
    if path.as_os_str().is_empty() {
        "it".to_owned()
    } else {
        format!("`{}` in it", shown(path))
    }
}

/// Returns the status of the entry `name` in `dir`; a link is not followed. An empty name is `dir`.
///
/// # Errors
/// Fails as the system does.
pub(crate) fn status(dir: &OwnedFd, name: &OsStr) -> Result<Statx, Errno> {
    let flags = if name.is_empty() {
        AtFlags::EMPTY_PATH
    } else {
        AtFlags::SYMLINK_NOFOLLOW
    };
    let mask = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    fs::statx(dir, name, flags, mask)
}

/// Returns the type of an entry.
pub(crate) fn kind(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

/// Returns the 12 permission bits of an entry.
pub(crate) fn bits(stat: &Statx) -> u32 {
    u32::from(stat.stx_mode) & 0o7777
}

/// Opens the directory `name` in `dir`; a link to a directory is not followed.
///
/// # Errors
/// Fails as the system does.
pub(crate) fn open(dir: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::empty())
}

/// Opens the file `name` in `dir` for reading. A link is not followed, and a FIFO does not block.
pub(crate) fn open_file(dir: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::empty())
}

/// Returns the names in a directory, without `.` and `..`. If there are more than `limit`, it
/// returns `limit` and one more.
///
/// # Errors
/// Fails as the system does.
pub(crate) fn names(dir: &OwnedFd, limit: usize) -> Result<BTreeSet<OsString>, Errno> {
    let mut names = BTreeSet::new();
    for entry in fs::Dir::read_from(dir)? {
        let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
        if name != "." && name != ".." {
            names.insert(name);
        }
        if names.len() > limit {
            break;
        }
    }
    Ok(names)
}
