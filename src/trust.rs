//! The trust check: a path decides something only if no other user can make it lead elsewhere.
//!
//! A path is walked part by part, each part through a descriptor of its directory. The checks
//! examine the held descriptors, and `open` opens what was checked.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Component, Path, PathBuf},
};

use rustix::{
    fs::{self, FileType, Mode, OFlags, Stat},
    io::Errno,
};

mod check;
mod distrust;

pub(crate) use self::{check::only_us_can_write, distrust::Distrust};

/// The most symbolic links that one path may follow. The kernel has the same limit
/// (path_resolution(7)); a longer chain is a loop.
const MAX_LINKS: usize = 40;

/// A directory, file or link, held by a descriptor.
#[derive(Debug)]
struct HeldEntry {
    fd: OwnedFd,
    path: PathBuf,
    stat: Stat,
}

impl HeldEntry {
    /// Opens the entry itself; a link is not followed.
    fn open(dir: impl AsFd, name: &OsStr, path: PathBuf) -> io::Result<Self> {
        Self::open_with(dir, name, path, OFlags::NOFOLLOW)
    }

    fn open_with(dir: impl AsFd, name: &OsStr, path: PathBuf, flags: OFlags) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::CLOEXEC | flags;
        let fd = fs::openat(dir, name, flags, Mode::empty())?;
        let stat = fs::fstat(&fd)?;
        Ok(Self { fd, path, stat })
    }

    fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.st_mode)
    }
}

/// An entry that was looked up in its directory.
#[derive(Debug)]
struct LookedUpEntry {
    path: PathBuf,
    uid: u32,
    is_link: bool,
    dir: PathBuf,
    dir_stat: Stat,
}

/// A path that was walked to its end, or as far as it exists.
#[derive(Debug)]
pub(crate) struct ResolvedPath {
    /// The resolved path, without symbolic links.
    pub end: PathBuf,
    /// The directories above the end, from the root.
    above: Vec<HeldEntry>,
    last: HeldEntry,
    looked_up: Vec<LookedUpEntry>,
    links: usize,
}

/// Returns the parts of a path as a stack: the first part is on top.
fn parts(path: &Path) -> Vec<OsString> {
    path.components()
        .rev()
        .map(|c| c.as_os_str().to_owned())
        .collect()
}

/// Returns the names in a stack of parts in their order; none if `..` or the root is among them.
fn names_only(mut parts: Vec<OsString>) -> Option<Vec<OsString>> {
    parts.reverse();
    let is_name = |part: &OsString| {
        matches!(
            Path::new(part).components().next(),
            Some(Component::Normal(_))
        )
    };
    parts.iter().all(is_name).then_some(parts)
}

impl ResolvedPath {
    /// Walks a path; a relative path starts at the working directory.
    ///
    /// # Errors
    /// Fails if the path does not exist or may not be searched.
    pub(crate) fn of(named: &Path) -> io::Result<Self> {
        match Self::until(named)? {
            (resolved, missing) if missing.is_empty() => Ok(resolved),
            _ => Err(Errno::NOENT.into()),
        }
    }

    /// Walks a path as far as it exists. Returns also the names that are missing at its end.
    ///
    /// # Errors
    /// Fails if the path may not be searched, or contains `..` after a missing part.
    pub(crate) fn until(named: &Path) -> io::Result<(Self, Vec<OsString>)> {
        let absolute = if named.is_absolute() {
            named.to_owned()
        } else {
            std::env::current_dir()?.join(named)
        };
        let mut resolved = Self {
            end: PathBuf::from("/"),
            above: Vec::new(),
            last: HeldEntry::open(fs::CWD, OsStr::new("/"), PathBuf::from("/"))?,
            looked_up: Vec::new(),
            links: 0,
        };
        let mut pending = parts(&absolute);
        let mut missing = Vec::new();
        while let Some(part) = pending.pop() {
            match Path::new(&part).components().next() {
                Some(Component::RootDir) => {
                    resolved.above.truncate(1);
                    resolved.ascend();
                }
                Some(Component::ParentDir) => resolved.ascend(),
                Some(Component::Normal(name)) => match resolved.descend(name, &mut pending) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {
                        pending.push(part);
                        missing = names_only(std::mem::take(&mut pending)).ok_or(e)?;
                    }
                    result => result?,
                },
                _ => {}
            }
        }
        // A trailing slash requires a directory.
        let has_slash = named.as_os_str().as_encoded_bytes().ends_with(b"/");
        if missing.is_empty() && has_slash && !resolved.is_directory() {
            return Err(Errno::NOTDIR.into());
        }
        resolved.end.clone_from(&resolved.last.path);
        Ok((resolved, missing))
    }

    fn ascend(&mut self) {
        if let Some(parent) = self.above.pop() {
            self.last = parent;
        }
    }

    fn enter(&mut self, next: HeldEntry) {
        self.above.push(std::mem::replace(&mut self.last, next));
    }

    /// Walks one name. The parts of a link are pushed to `pending`.
    fn descend(&mut self, name: &OsStr, pending: &mut Vec<OsString>) -> io::Result<()> {
        if !self.is_directory() {
            return Err(Errno::NOTDIR.into());
        }
        let next = HeldEntry::open(&self.last.fd, name, self.last.path.join(name))?;
        let is_link = next.kind() == FileType::Symlink;
        self.looked_up.push(LookedUpEntry {
            path: next.path.clone(),
            uid: next.stat.st_uid,
            is_link,
            dir: self.last.path.clone(),
            dir_stat: self.last.stat,
        });
        if !is_link {
            self.enter(next);
            return Ok(());
        }
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::LOOP.into());
        }
        // Read through the descriptor: the entry of this name may be another one by now.
        let link_target =
            OsString::from_vec(fs::readlinkat(&next.fd, "", Vec::new())?.into_bytes());
        let is_fd_folder = self.last.path.starts_with("/proc") && self.last.path.ends_with("fd");
        if is_fd_folder && name.as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            // An inherited descriptor: the text of this link is not always a path (proc_pid_fd(5)),
            // so the kernel follows it.
            let path = PathBuf::from(link_target);
            let next = HeldEntry::open_with(&self.last.fd, name, path, OFlags::empty())?;
            self.enter(next);
            return Ok(());
        }
        pending.extend(parts(Path::new(&link_target)));
        Ok(())
    }

    /// Tells whether a directory is at the end.
    #[must_use]
    pub(crate) fn is_directory(&self) -> bool {
        self.last.kind() == FileType::Directory
    }

    /// Returns the status of the file or directory at the end.
    #[must_use]
    pub(crate) fn stat(&self) -> &Stat {
        &self.last.stat
    }

    /// Tells whether the path is a different file for each process, such as its standard input.
    #[must_use]
    pub(crate) fn is_of_a_process(&self) -> bool {
        let proc = Path::new("/proc");
        self.looked_up.iter().any(|entry| {
            (entry.is_link && entry.dir == proc)
                || (entry.dir.starts_with(proc) && entry.dir.ends_with("fd"))
        })
    }

    /// Tells whether a link was followed.
    #[must_use]
    pub(crate) fn has_links(&self) -> bool {
        self.links > 0
    }

    /// Opens the file or directory at the end for reading: the one that was walked to, even if
    /// another one has its name by now.
    ///
    /// # Errors
    /// Fails as the system does.
    pub(crate) fn open(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        if self.is_directory() {
            let flags = flags | OFlags::DIRECTORY;
            return Ok(fs::openat(&self.last.fd, ".", flags, Mode::empty())?);
        }
        let held = format!("/proc/self/fd/{}", self.last.fd.as_raw_fd());
        Ok(fs::open(held, flags, Mode::empty())?)
    }
}

/// Opens a file that the operator named. If the caller is root, no link is followed that another
/// user could create or change: such a link would make root read any file.
///
/// # Errors
/// Fails if there is such a link, or as the system does.
pub(crate) fn open_named(path: &Path) -> io::Result<OwnedFd> {
    let resolved = ResolvedPath::of(path)?;
    if rustix::process::geteuid().is_root() {
        resolved.links_trusted()?;
    }
    resolved.open()
}

#[cfg(test)]
mod tests;
