//! Whether a process sees the same files as this host does.

use std::{
    io,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

use crate::{kernel::Proc, refusal::Refusal};

/// A kind of namespace (namespaces(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Namespace {
    Mount,
    Network,
}

impl Namespace {
    /// Returns the name of a process's own one.
    fn of(self, process: &str) -> io::Result<PathBuf> {
        let name = match self {
            Self::Mount => "mnt",
            Self::Network => "net",
        };
        std::fs::read_link(format!("/proc/{process}/ns/{name}"))
    }

    /// Returns that of this program, which never changes its namespaces.
    fn own(self) -> io::Result<&'static Path> {
        static MOUNT: OnceLock<PathBuf> = OnceLock::new();
        static NETWORK: OnceLock<PathBuf> = OnceLock::new();
        let known = match self {
            Self::Mount => &MOUNT,
            Self::Network => &NETWORK,
        };
        match known.get() {
            Some(own) => Ok(own),
            None => {
                let own = self.of("self")?;
                Ok(known.get_or_init(|| own))
            }
        }
    }
}

/// Tells whether a process is in the namespace of this program; none if this user may not see that.
#[must_use]
pub(crate) fn shares(pid: i32, namespace: Namespace) -> Option<bool> {
    shared(pid, namespace).ok()
}

/// Tells whether a process is in the namespace of this program.
///
/// # Errors
/// Fails if the process has ended, or if this user may not see that.
pub(crate) fn shared(pid: i32, namespace: Namespace) -> io::Result<bool> {
    Ok(namespace.of(&pid.to_string())? == namespace.own()?)
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
    shares(pid, Namespace::Mount) == Some(true)
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
    match Proc::open(pid).and_then(|process| process.mounts()) {
        Ok(mounts) => mounts
            .into_iter()
            .find(|mount| mount.point.starts_with(dir))
            .map(|mount| KeptOpen::Mount(mount.point).into()),
        Err(e) => Some(KeptOpen::Unknown("mounts", e).into()),
    }
}
