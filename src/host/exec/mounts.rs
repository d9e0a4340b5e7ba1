//! The mounts that this process sees, and how a view treats each.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read},
    os::{
        fd::AsFd,
        unix::{ffi::OsStringExt, fs::FileTypeExt},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags, openat};

use crate::kernel;

/// The most sockets of other processes that a command can connect to in a view. Each is a mount of
/// its own.
const SOCKETS: usize = 512;

/// The filesystems of the kernel, which have no files of programs.
const KERNEL: &[&str] = &[
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "devpts",
    "devtmpfs",
    "mqueue",
    "debugfs",
    "tracefs",
    "securityfs",
    "selinuxfs",
    "bpf",
    "pstore",
    "configfs",
    "fusectl",
    "binfmt_misc",
    "efivarfs",
    "autofs",
    "hugetlbfs",
    "nsfs",
    "rpc_pipefs",
    "smackfs",
];

/// How a view treats a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It stays as it is: it belongs to the kernel, or is read-only.
    Kept,
    /// It becomes read-only, because it cannot be covered.
    ReadOnly,
    /// It is covered by a layer.
    Covered,
}

/// A mount that a path leads to, and how a view treats it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) path: PathBuf,
    pub(super) used: Use,
}

/// Returns the mounts of this process, each after the one that it is in. `numbers` is
/// `/proc/self/fd`.
pub(super) fn visible(numbers: &impl AsFd) -> io::Result<Vec<Mount>> {
    let mut mounts: Vec<Mount> = Vec::new();
    for kernel::Mount {
        point: path,
        is_writable,
        kind,
        ..
    } in kernel::mounts(&read(numbers, "../mountinfo")?)
    {
        // A later mount hides earlier ones at its path and below.
        mounts.retain(|mount| !mount.path.starts_with(&path));
        let used = match path.symlink_metadata() {
            _ if !is_writable || is_kernels(&path, &kind) => Use::Kept,
            Ok(meta) if meta.is_dir() => Use::Covered,
            Ok(meta)
                if meta.file_type().is_char_device()
                    || meta.file_type().is_block_device()
                    || meta.file_type().is_socket() =>
            {
                Use::Kept
            }
            _ => Use::ReadOnly,
        };
        mounts.push(Mount { path, used });
    }
    Ok(mounts)
}

fn is_kernels(path: &Path, kind: &str) -> bool {
    let below = |dir: &str| path.starts_with(dir);
    KERNEL.contains(&kind)
        || below("/proc")
        || below("/sys")
        || (below("/dev") && !below("/dev/shm"))
}

/// Returns the paths of the Unix sockets that are bound in this network namespace.
pub(super) fn sockets(numbers: &impl AsFd) -> Vec<PathBuf> {
    let text = read(numbers, "../net/unix").unwrap_or_default();
    let path = |line: &[u8]| {
        Some(PathBuf::from(OsString::from_vec(
            line.get(line.windows(2).position(|two| two == b" /")? + 1..)?
                .to_vec(),
        )))
    };
    let mut paths: Vec<PathBuf> = text
        .split(|b| *b == b'\n')
        .skip(1)
        .filter_map(path)
        .collect();
    paths.sort_unstable();
    paths.dedup();
    paths.retain(|path| {
        path.symlink_metadata()
            .is_ok_and(|meta| meta.file_type().is_socket())
    });
    paths.truncate(SOCKETS);
    paths
}

fn read(numbers: &impl AsFd, name: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::from(openat(
        numbers,
        name,
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?)
    .read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_of_the_kernel_is_told_by_its_path() {
        assert!(
            is_kernels(Path::new("/dev/console"), "tmpfs")
                && !is_kernels(Path::new("/dev/shm"), "tmpfs")
        );
    }
}
