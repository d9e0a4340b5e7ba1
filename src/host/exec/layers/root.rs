//! A root directory in memory, for a process that cannot cover `/` as a whole.

use std::{
    ffi::OsStr,
    fs::File,
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use rustix::{
    fs::{Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, mkdirat, openat, symlinkat},
    mount::OpenTreeFlags,
};

use super::Layers;
use crate::host::exec::mount_calls::{
    PATH_ONLY, attach, clone_mount, copy_access, mount_id, open_path,
};

/// The most bytes of files in the root directory that are copied to memory. A further file is
/// mounted read-only. Distributions have no large files there.
const COPIED: u64 = 8 << 20;

impl Layers<'_> {
    /// Makes a directory in memory the root of this process, with the entries of the present root.
    pub(super) fn root_in_memory(&mut self, root: &OwnedFd) -> io::Result<()> {
        mkdirat(&self.store, "root", Mode::RWXU)?;
        let new = openat(
            &self.store,
            "root",
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        copy_access(&new, root)?;
        let mut copied = 0;
        for entry in std::fs::read_dir("/")?.flatten() {
            let name = entry.file_name();
            let kind = entry.file_type()?;
            let source = open_path(&entry.path());
            if kind.is_symlink() {
                symlinkat(std::fs::read_link(entry.path())?, &new, &name)?;
                continue;
            }
            // No command of this user can reach it either.
            let Ok(source) = source else { continue };
            if kind.is_dir() {
                mkdirat(&new, &name, Mode::RWXU)?;
            } else {
                openat(
                    &new,
                    &name,
                    OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC,
                    Mode::RUSR,
                )?;
            }
            let size = u64::try_from(fstat(&source)?.st_size).unwrap_or(u64::MAX);
            if kind.is_file() && copied + size <= COPIED {
                copied += size;
                self.copy_file(&source, &new, &name)?;
                continue;
            }
            let tree = clone_mount(&source, OpenTreeFlags::AT_RECURSIVE)?;
            attach(&tree, &openat(&new, &name, PATH_ONLY, Mode::empty())?)?;
            if kind.is_file() {
                self.read_only(&tree)?;
            }
        }
        self.made.push(mount_id(&new)?);
        self.enter_root(&new)
    }

    /// Copies the content of `source` to the file `name` in `dir`, with its owners and mode as far
    /// as this user may set them.
    fn copy_file(&self, source: &OwnedFd, dir: &OwnedFd, name: &OsStr) -> io::Result<()> {
        let stat = fstat(source)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let into = openat(dir, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        let mut mode = Mode::from_raw_mode(stat.st_mode & 0o777);
        match openat(
            &self.numbers.0,
            source.as_raw_fd().to_string(),
            flags,
            Mode::empty(),
        ) {
            Ok(content) => {
                _ = io::copy(&mut File::from(content), &mut File::from(into.try_clone()?))?
            }
            // This user may not read the file, so no command of it may.
            Err(_) => mode = Mode::empty(),
        }
        let _ = fchown(
            &into,
            Some(Uid::from_raw(stat.st_uid)),
            Some(Gid::from_raw(stat.st_gid)),
        );
        Ok(fchmod(&into, mode)?)
    }
}
