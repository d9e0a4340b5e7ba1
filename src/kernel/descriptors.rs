//! The open descriptors of a process.

use std::{
    ffi::CStr,
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, OwnedFd},
};

use rustix::{
    fs::{Mode, OFlags, RawDir, fstat, open, readlinkat_raw},
    io::Errno,
    path::DecInt,
};

/// How many numbers of closed descriptors are tried before the directory is listed. A listing costs
/// as much as about ten of them.
const CLOSED: u64 = 8;

/// Bytes of a link that are read: `socket:[INODE]` and `anon_inode:[..]` fit, and a path is cut.
const LINK: usize = 64;

/// Passes every open descriptor of `pid` to `each`: its number, and its link, as `socket:[17]` or
/// the beginning of a path. A descriptor that is closed meanwhile is passed over. One that this
/// user may not read is passed with the error.
///
/// # Errors
/// Fails if the process is gone, or if this user may not list its descriptors.
pub(crate) fn descriptors(
    pid: i32,
    mut each: impl FnMut(&CStr, io::Result<&[u8]>),
) -> io::Result<()> {
    let dir = open(
        format!("/proc/{pid}/fd"),
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(gone)?;
    // Since Linux 6.2 the size of the directory is the number of open descriptors. A process that
    // has closed few has the lowest numbers, so that no listing is needed.
    let open = u64::try_from(fstat(&dir).map_err(gone)?.st_size).unwrap_or_default();
    let mut shown = 0;
    let mut tried = 0;
    while shown < open && tried < open + CLOSED {
        shown += u64::from(show(&dir, DecInt::new(tried).as_c_str(), &mut each));
        tried += 1;
    }
    if open > 0 && shown == open {
        return Ok(());
    }
    list_from(&dir, tried, &mut each)
}

/// Passes the descriptors from the number `first` on, by listing the directory.
fn list_from(
    dir: &OwnedFd,
    first: u64,
    each: &mut impl FnMut(&CStr, io::Result<&[u8]>),
) -> io::Result<()> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(dir, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(gone)?;
        let name = entry.file_name();
        let number: Option<u64> = name.to_str().ok().and_then(|name| name.parse().ok());
        if number.is_some_and(|number| number >= first) {
            show(dir, name, each);
        }
    }
    Ok(())
}

/// Passes one descriptor to `each`; false if it is closed.
fn show(dir: impl AsFd, name: &CStr, each: &mut impl FnMut(&CStr, io::Result<&[u8]>)) -> bool {
    let mut link = [MaybeUninit::uninit(); LINK];
    match readlinkat_raw(dir, name, &mut link) {
        Ok((target, _)) => each(name, Ok(target)),
        Err(Errno::NOENT) => return false,
        Err(e) => each(name, Err(gone(e))),
    }
    true
}

/// The error of a process that ended meanwhile (`ESRCH`) is the one of a process that is not there.
fn gone(e: Errno) -> io::Error {
    if e == Errno::SRCH {
        io::ErrorKind::NotFound.into()
    } else {
        io::Error::from(e)
    }
}

/// The inode of a socket that a descriptor leads to.
#[must_use]
pub(crate) fn socket(link: &[u8]) -> Option<u64> {
    std::str::from_utf8(link.strip_prefix(b"socket:[")?.strip_suffix(b"]")?)
        .ok()?
        .parse()
        .ok()
}
