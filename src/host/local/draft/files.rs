//! The regular files that a process has open, and those whose changes it watches.

use std::{
    ffi::CStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use rustix::fs::{major, minor};

use crate::kernel::{descriptors, strip_deleted};

/// The most descriptors that are looked at. A daemon opens its logs among the first ones.
const MAX_OPEN: usize = 1024;

/// The most watches of inotify that are read.
const MAX_WATCHES: usize = 4096;

/// Access mode and append mode in the flags of a descriptor (fcntl.h of Linux, all architectures
/// that have the generic numbers).
const ACCESS: u32 = 0o3;
const APPEND: u32 = 0o2000;

/// The kernel keeps a device as 12 bits of its major and 20 bits of its minor number.
const MINOR_BITS: u32 = 20;

/// The open files of a process, as far as this user may see them.
#[derive(Debug, Default)]
pub(super) struct OpenFiles {
    /// Files that are open for reading alone.
    pub(super) read: Vec<PathBuf>,
    /// Logs: files that are open for appending, or for writing in a place of logs.
    pub(super) logs: Vec<PathBuf>,
    /// Those of the logs that are its standard output or error: what started it has chosen them.
    pub(super) outputs: Vec<PathBuf>,
    /// Inode and device (major, minor) of each file that inotify watches.
    pub(super) watched: Vec<(u64, (u32, u32))>,
}

impl OpenFiles {
    /// Lists the open files of a process.
    pub(super) fn of(pid: i32) -> Self {
        let mut numbers = Vec::new();
        // A process that ends meanwhile shows the descriptors before that.
        let _ = descriptors(pid, |fd: &CStr, link| {
            let Ok(link) = link else { return };
            let is_wanted = link.starts_with(b"/") || link == b"anon_inode:inotify";
            if is_wanted && numbers.len() < MAX_OPEN {
                numbers.push((fd.to_string_lossy().into_owned(), link.starts_with(b"/")));
            }
        });
        let mut files = Self::default();
        for (number, is_path) in numbers {
            let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}"));
            let info = info.unwrap_or_default();
            if is_path {
                let is_output = ["1", "2"].contains(&number.as_str());
                files.add(
                    Path::new(&format!("/proc/{pid}/fd/{number}")),
                    &info,
                    is_output,
                );
            } else {
                files.add_watches(&info);
            }
        }
        files
    }

    /// Tells whether the process watches a file, or the directory that it is in.
    pub(super) fn watches(&self, path: &Path) -> bool {
        let is_watched = |path: &Path| {
            let meta = path.metadata().ok();
            meta.is_some_and(|meta| {
                let device = (major(meta.dev()), minor(meta.dev()));
                self.watched.contains(&(meta.ino(), device))
            })
        };
        is_watched(path) || path.parent().is_some_and(is_watched)
    }

    fn add(&mut self, link: &Path, info: &str, is_output: bool) {
        let is_file = link.metadata().is_ok_and(|meta| meta.is_file());
        let Ok(path) = fs::read_link(link) else {
            return;
        };
        if !is_file || strip_deleted(&path) != path {
            return;
        }
        let Some(flags) = flags(info) else { return };
        let list = if flags & ACCESS == 0 {
            &mut self.read
        } else if flags & APPEND != 0 || is_log(&path) {
            &mut self.logs
        } else {
            return;
        };
        if !list.contains(&path) {
            list.push(path.clone());
        }
        if is_output && !self.outputs.contains(&path) {
            self.outputs.push(path);
        }
    }

    fn add_watches(&mut self, info: &str) {
        let watches = info.lines().filter_map(watch);
        let room = MAX_WATCHES.saturating_sub(self.watched.len());
        self.watched.extend(watches.take(room));
    }
}

/// Tells whether a path is that of a log.
pub(super) fn is_log(path: &Path) -> bool {
    path.starts_with("/var/log") || path.as_os_str().as_bytes().ends_with(b".log")
}

/// The flags of a descriptor, from its `/proc/PID/fdinfo/FD`.
fn flags(info: &str) -> Option<u32> {
    let flags = info.lines().find_map(|line| line.strip_prefix("flags:"))?;
    u32::from_str_radix(flags.trim(), 8).ok()
}

/// Inode and device of a watch, from a line of such a file (proc(5)).
fn watch(line: &str) -> Option<(u64, (u32, u32))> {
    let fields = line.strip_prefix("inotify ")?;
    let field = |name: &str| {
        let mut all = fields.split_ascii_whitespace();
        all.find_map(|field| field.strip_prefix(name))
    };
    let inode = u64::from_str_radix(field("ino:")?, 16).ok()?;
    let device = u32::from_str_radix(field("sdev:")?, 16).ok()?;
    let minor = device & ((1 << MINOR_BITS) - 1);
    Some((inode, (device >> MINOR_BITS, minor)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::io::Write;

    use super::*;

    #[test]
    fn a_log_is_a_file_that_is_open_for_appending() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let open = |path: &Path| fs::OpenOptions::new().append(true).create(true).open(path);
        let mut log = open(&path).unwrap();
        log.write_all(b"x").unwrap();
        let written = fs::File::create(dir.path().join("state")).unwrap();
        let files = OpenFiles::of(i32::try_from(std::process::id()).unwrap());
        assert!(files.logs.contains(&path.canonicalize().unwrap()));
        assert!(!files.logs.iter().any(|path| path.ends_with("state")));
        drop(written);
    }

    #[test]
    fn a_watch_has_an_inode_and_a_device() {
        let line = "inotify wd:3 ino:9e7e sdev:800013 mask:800afce ignored_mask:0 fhandle-bytes:8";
        assert_eq!(watch(line), Some((0x9e7e, (8, 0x13))));
        assert_eq!(watch("pos:\t0"), None);
    }
}
