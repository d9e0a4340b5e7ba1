//! Whether a process sees the same files as this host does.

use std::{
    ffi::OsString,
    io,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

use crate::refusal::Refusal;

/// Tells whether a process is in the same namespace of this type (`mnt`, `net`) as this program;
/// none if this user may not see that.
#[must_use]
pub(crate) fn shares(pid: i32, namespace: &str) -> Option<bool> {
    fn link(process: &str, namespace: &str) -> Option<PathBuf> {
        std::fs::read_link(format!("/proc/{process}/ns/{namespace}")).ok()
    }
    // This program never changes its namespaces.
    static OWN: LazyLock<[Option<PathBuf>; 2]> =
        LazyLock::new(|| ["net", "mnt"].map(|namespace| link("self", namespace)));
    let [net, mnt] = &*OWN;
    let own = if namespace == "net" { net } else { mnt };
    Some(link(&pid.to_string(), namespace)? == *own.as_ref()?)
}

/// Tells whether the file at `path`, as the process sees it, is the one that this host sees, and a
/// file that replaces it there will be too.
///
/// A file that is bound onto itself would stay the old one. So would a file that is bound alone
/// into another directory, as a container has it: the exchange happens in this host's directory.
#[must_use]
pub(crate) fn sees_the_same(pid: i32, path: &Path) -> bool {
    if sees_all(pid) {
        path.symlink_metadata().is_ok()
    } else {
        View::of(path, Path::new("/")).is_seen_by(pid, path)
    }
}

/// Tells whether every path leads the process to the same file as this program: the same mounts,
/// from the same root.
fn sees_all(pid: i32) -> bool {
    // The kernel writes the link relative to the root of this program.
    shares(pid, "mnt") == Some(true)
        && std::fs::read_link(format!("/proc/{pid}/root")).is_ok_and(|root| root == Path::new("/"))
}

/// Device (major, minor) and inode.
type Inode = (u32, u32, u64);

/// The file at a path, and the directory above it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct View {
    /// The file, and whether something is mounted on it.
    file: Option<(Inode, bool)>,
    /// The directory; through which mount it is seen makes no difference.
    dir: Option<Inode>,
}

impl View {
    /// Reads the absolute `path` below `root`.
    #[must_use]
    pub(crate) fn of(path: &Path, root: &Path) -> Self {
        let read = |path: &Path| {
            let stat = statx(
                CWD,
                root.join(path.strip_prefix("/").unwrap_or(path)),
                AtFlags::empty(),
                StatxFlags::BASIC_STATS,
            )
            .ok()?;
            Some((
                (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino),
                stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
            ))
        };
        Self {
            file: read(path),
            dir: read(path.parent().unwrap_or(path)).map(|(inode, _)| inode),
        }
    }

    /// Tells whether a process sees just this at `path`.
    #[must_use]
    pub(crate) fn is_seen_by(&self, pid: i32, path: &Path) -> bool {
        self.file.is_some()
            && (sees_all(pid)
                || Self::of(path, &Path::new("/proc").join(pid.to_string()).join("root")) == *self)
    }
}

/// Why a process would still see a directory after its exchange, or a part of it. The text has no
/// subject.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeptOpen {
    #[error("has its {what} in `{}` and would go on seeing the old one", .dir.display())]
    Link { what: &'static str, dir: PathBuf },
    #[error("has a mount of its own at `{}`", .0.display())]
    Mount(PathBuf),
    #[error("cannot be looked at ({0}): {1}")]
    Unknown(&'static str, io::Error),
}

/// Returns why the process would still see the old directory, or a part of it, after `dir` is
/// exchanged; none if it would not.
#[must_use]
pub(crate) fn keeps_directory_open(pid: i32, dir: &Path) -> Option<Refusal<KeptOpen>> {
    let proc = Path::new("/proc").join(pid.to_string());
    for (link, what) in [("cwd", "working directory"), ("root", "root directory")] {
        match std::fs::read_link(proc.join(link)) {
            Ok(target) if target.starts_with(dir) => {
                let dir = dir.to_owned();
                let why = Refusal::from(KeptOpen::Link { what, dir });
                return Some(why.with_hint("start it elsewhere, or change single files"));
            }
            Ok(_) => {}
            Err(e) => return Some(KeptOpen::Unknown(what, e).into()),
        }
    }
    // A mount stays on the directory that it was mounted on.
    match std::fs::read(proc.join("mountinfo")) {
        Ok(mounts) => mounts
            .split(|b| *b == b'\n')
            .filter_map(mount_point)
            .find(|point| point.starts_with(dir))
            .map(|point| KeptOpen::Mount(point).into()),
        Err(e) => Some(KeptOpen::Unknown("mounts", e).into()),
    }
}

/// Returns the fifth field of a line of `/proc/PID/mountinfo`, in which a blank and the like are
/// written as `\040` (proc(5)).
pub(crate) fn mount_point(line: &[u8]) -> Option<PathBuf> {
    line.split(|b| *b == b' ').nth(4).map(unescaped)
}

/// Returns a path without its octal escapes such as `\040`.
pub(crate) fn unescaped(text: &[u8]) -> PathBuf {
    let mut path = Vec::new();
    let mut rest = text;
    while let [first, tail @ ..] = rest {
        let escaped = tail
            .get(..3)
            .filter(|_| *first == b'\\')
            .and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        path.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[3..] } else { tail };
    }
    OsString::from_vec(path).into()
}
