//! Files in a layer that `hello` itself writes.

use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{FileType, Mode, OFlags, fchmod, fstat, openat},
    mount::OpenTreeFlags,
};

use super::Layers;
use crate::host::exec::mount_calls::{PATH_ONLY, attach, clone_mount, open_path};

impl Layers<'_> {
    /// Truncates the file at `path` and opens it for writing, if its writes are discarded.
    ///
    /// # Errors
    /// Fails if it is not covered, is not a regular file, or may not be written.
    fn truncated(&self, path: &Path) -> io::Result<OwnedFd> {
        let handle = open_path(path)?;
        if !self.covers(&handle) {
            return Err(io::Error::other("is not covered"));
        }
        if FileType::from_raw_mode(fstat(&handle)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("is not a regular file"));
        }
        let flags =
            OFlags::WRONLY | OFlags::TRUNC | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        Ok(openat(
            &self.numbers.0,
            handle.as_raw_fd().to_string(),
            flags,
            Mode::empty(),
        )?)
    }

    /// Opens an empty file for writing that this process alone sees at `path`.
    ///
    /// It is the file there, truncated. If that fails, because a user namespace does not map its
    /// group, an empty file is mounted over it.
    ///
    /// # Errors
    /// Fails if no layer covers the file at `path`.
    pub(in crate::host::exec) fn open_emptied(&mut self, path: &Path) -> io::Result<OwnedFd> {
        if let Ok(file) = self.truncated(path) {
            return Ok(file);
        }
        let handle = open_path(path)?;
        if !self.covers(&handle) {
            return Err(io::Error::other("is not covered"));
        }
        self.files += 1;
        let name = format!("{}.file", self.files);
        let file = openat(
            &self.store,
            name.as_str(),
            OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::RUSR | Mode::WUSR,
        )?;
        fchmod(&file, Mode::from_raw_mode(fstat(&handle)?.st_mode & 0o777))?;
        attach(
            &clone_mount(
                &openat(&self.store, name.as_str(), PATH_ONLY, Mode::empty())?,
                OpenTreeFlags::empty(),
            )?,
            &handle,
        )?;
        Ok(file)
    }
}
