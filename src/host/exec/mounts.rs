//! The mounts that this process sees, and what becomes of each in a view whose writes are
//! discarded.

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

/// The most sockets of other processes that a command can still connect to.
const SOCKETS: usize = 512;

/// Filesystems of the kernel, which hold no files of programs.
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

/// What becomes of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// It is as it was: the kernel's, or nothing can be written to it.
    Kept,
    /// It cannot be covered.
    ReadOnly,
    Covered,
}

/// A mount that a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) path: PathBuf,
    pub(super) used: Use,
}

/// The mounts of this process, each behind the one that it stands in. `numbers` is the directory of
/// its descriptors.
pub(super) fn visible(numbers: &impl AsFd) -> io::Result<Vec<Mount>> {
    let mut all: Vec<Mount> = Vec::new();
    for (path, writable, kind) in read(numbers, "../mountinfo")?
        .split(|b| *b == b'\n')
        .filter_map(parse)
    {
        // It hides what stood there and below.
        all.retain(|mount| !mount.path.starts_with(&path));
        let used = match path.symlink_metadata() {
            _ if !writable || is_kernels(&path, &kind) => Use::Kept,
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
        all.push(Mount { path, used });
    }
    Ok(all)
}

fn is_kernels(path: &Path, kind: &str) -> bool {
    let below = |dir: &str| path.starts_with(dir);
    KERNEL.contains(&kind)
        || below("/proc")
        || below("/sys")
        || (below("/dev") && !below("/dev/shm"))
}

/// Path, whether it can be written to, and the filesystem of a line of `/proc/PID/mountinfo`
/// (proc(5)).
fn parse(line: &[u8]) -> Option<(PathBuf, bool, String)> {
    let line: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    let dash = line.iter().position(|field| *field == b"-")?;
    let is_writable = |options: &[u8]| options.split(|b| *b == b',').next() != Some(b"ro");
    let writable = is_writable(line.get(5)?) && is_writable(line.get(dash + 3)?);
    Some((
        unescaped(line.get(4)?),
        writable,
        String::from_utf8_lossy(line.get(dash + 1)?).into_owned(),
    ))
}

/// A path in which blanks and the like are written as `\040`.
fn unescaped(text: &[u8]) -> PathBuf {
    let (mut path, mut at) = (Vec::new(), 0);
    while let Some(first) = text.get(at) {
        let digits = text
            .get(at + 1..at + 4)
            .filter(|_| *first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        path.push(byte.unwrap_or(*first));
        at += if byte.is_some() { 4 } else { 1 };
    }
    OsString::from_vec(path).into()
}

/// The paths of the sockets that processes of this network namespace listen on or have bound.
pub(super) fn sockets(numbers: &impl AsFd) -> Vec<PathBuf> {
    let text = read(numbers, "../net/unix").unwrap_or_default();
    let path = |line: &[u8]| {
        Some(PathBuf::from(OsString::from_vec(
            line.get(line.windows(2).position(|two| two == b" /")? + 1..)?
                .to_vec(),
        )))
    };
    let mut all: Vec<PathBuf> = text
        .split(|b| *b == b'\n')
        .skip(1)
        .filter_map(path)
        .collect();
    all.sort_unstable();
    all.dedup();
    all.retain(|path| {
        path.symlink_metadata()
            .is_ok_and(|meta| meta.file_type().is_socket())
    });
    all.truncate(SOCKETS);
    all
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
    fn a_mount_is_read_with_its_blanks() {
        let line = b"36 35 98:0 /mnt1 /srv/my\\040app rw,noatime shared:1 master:2 - ext4 \
                     /dev/root rw,errors=continue";
        assert_eq!(
            parse(line),
            Some(("/srv/my app".into(), true, "ext4".into()))
        );
        let read_only = b"36 35 98:0 / /x rw,noatime - squashfs /dev/loop1 ro";
        assert_eq!(
            parse(read_only),
            Some(("/x".into(), false, "squashfs".into()))
        );
        assert_eq!(parse(b""), None);
        assert_eq!(unescaped(b"a\\134b\\0x"), PathBuf::from("a\\b\\0x"));
        assert!(
            is_kernels(Path::new("/dev/console"), "tmpfs")
                && !is_kernels(Path::new("/dev/shm"), "tmpfs")
        );
    }
}
