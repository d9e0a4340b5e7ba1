//! A view of all files in which every candidate is at its live path and all writes are discarded.

use std::{
    ffi::OsString,
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStringExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::{chdir, chroot, fchdir},
};
use rustix::{
    fs::{
        CWD, FileType, Mode, OFlags, ResolveFlags, fchmod, fstat, mkdirat, open, openat, openat2,
    },
    mount::OpenTreeFlags,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::{
    error::{LayerError, PathError, ViewError},
    held::Log,
    layers::{Layers, Setuid},
    mount_calls::{PATH_ONLY, attach, clone_mount, open_path},
    mounts::sockets,
    numbers::{Numbers, Users},
    request::Bind,
    users,
};
use crate::trust::only_us_can_write;

/// The files that a command sees instead of those of its instance.
#[derive(Debug)]
pub(super) struct View {
    /// The filesystem in memory that its writes go to.
    pub(super) store: OwnedFd,
    cwd: Cwd,
}

/// The working directory of a command.
#[derive(Debug)]
enum Cwd {
    Path(PathBuf),
    /// The layer over the directory of its instance, or an empty directory if that was removed.
    Held(OwnedFd),
}

/// Builds a view of all files for this process and its children alone. Each of `binds` is at its
/// live path, each of `logs` is empty, and all writes are discarded.
///
/// # Errors
/// Fails if the kernel allows no such view, or a path does not lead to the file that was surveyed.
pub(super) fn build(
    binds: &[Bind],
    logs: &[Log],
    numbers: &Numbers,
    users: Users,
    other_root: bool,
) -> Result<View, ViewError> {
    let cwd = working_directory()?;
    let held_cwd = enter_namespace(cwd.as_deref(), numbers, users, other_root)?;
    let mut layers = Layers::new(numbers).map_err(ViewError::Store)?;
    // Files below the layers are opened before they are covered.
    let sockets = visible_sockets(numbers);
    let logs: Vec<&Log> = logs
        .iter()
        .filter(|log| hold(&log.path, log.inode).is_ok())
        .collect();
    let mut staged = Vec::with_capacity(binds.len());
    for bind in binds {
        hold(&bind.to, bind.live)?;
        staged.push(
            Staged::hold(bind, numbers, &mut layers)
                .map_err(|why| ViewError::Staged(bind.from.clone(), why))?,
        );
    }
    layers.cwd = held_cwd;
    let parents = binds
        .iter()
        .map(|bind| &bind.to)
        .chain(logs.iter().map(|log| &log.path))
        .filter_map(|path| path.parent());
    layers.cover(parents.chain(cwd.as_deref()).map(Path::to_owned).collect())?;
    attach_sockets(&sockets, &layers);
    for log in logs {
        // If this user may not write the log, no command of the user may.
        let _ = layers.open_emptied(&log.path);
    }
    for (bind, staged) in binds.iter().zip(staged) {
        staged
            .put(bind, &mut layers)
            .map_err(LayerError::at(&bind.to))?;
    }
    let cwd = match (layers.cwd.take(), cwd) {
        (Some((_, layer)), _) => Cwd::Held(layer),
        (None, Some(path)) => Cwd::Path(path),
        (None, None) => Cwd::Held(empty_directory(&layers.store).map_err(ViewError::Store)?),
    };
    Ok(View {
        store: layers.store,
        cwd,
    })
}

/// Enters a mount namespace of its own, and makes `/proc/self/fd` the working directory. Returns
/// the old one, opened, if another user can change what its path leads to.
fn enter_namespace(
    cwd: Option<&Path>,
    numbers: &Numbers,
    users: Users,
    other_root: bool,
) -> Result<Option<(PathBuf, OwnedFd)>, ViewError> {
    let failed = |e: Errno| ViewError::Namespace(e.into());
    match unshare(CloneFlags::CLONE_NEWNS) {
        Err(Errno::EPERM) => users::enter(numbers, users).map_err(failed)?,
        result => result.map_err(failed)?,
    }
    make_private(numbers, other_root).map_err(ViewError::Namespace)?;
    protect_kernel_settings();
    let held = match cwd {
        Some(path) if !is_fixed(path) => {
            let dir =
                open(".", PATH_ONLY, Mode::empty()).map_err(|e| ViewError::Namespace(e.into()))?;
            Some((path.to_owned(), dir))
        }
        _ => None,
    };
    // Mount calls name descriptors by their numbers, relative to this directory. The old working
    // directory is entered again at the end.
    fchdir(&numbers.0).map_err(failed)?;
    Ok(held)
}

/// Returns the sockets that processes listen on, each with a mount of it. A socket that is seen
/// through a layer leads to no process.
fn visible_sockets(numbers: &Numbers) -> Vec<(PathBuf, OwnedFd)> {
    let mounted = |path: PathBuf| {
        let socket = clone_mount(&open_path(&path).ok()?, OpenTreeFlags::empty()).ok()?;
        Some((path, socket))
    };
    sockets(&numbers.0)
        .into_iter()
        .filter_map(mounted)
        .collect()
}

/// Mounts every socket that a layer covers at its path again.
fn attach_sockets(sockets: &[(PathBuf, OwnedFd)], layers: &Layers<'_>) {
    for (path, socket) in sockets {
        let _ = open_path(path).and_then(|handle| {
            if layers.covers(&handle) {
                attach(socket, &handle)
            } else {
                Ok(())
            }
        });
    }
}

/// The staged content of a target.
enum Staged {
    /// A file, copied to the live path, so that it is on the same filesystem as its neighbours.
    File(File),
    /// A layer over a directory, mounted at the live path.
    Directory(OwnedFd),
}

impl Staged {
    /// Opens the staged content of a bind.
    fn hold(bind: &Bind, numbers: &Numbers, layers: &mut Layers<'_>) -> Result<Self, PathError> {
        let held = hold(&bind.from, bind.staged)?;
        let kind = fstat(&held)
            .map(|stat| FileType::from_raw_mode(stat.st_mode))
            .map_err(io::Error::from)?;
        if kind == FileType::Directory {
            return Ok(Self::Directory(layers.layer(&held, Setuid::Never)?));
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(
            &numbers.0,
            held.as_raw_fd().to_string(),
            flags,
            Mode::empty(),
        )
        .map_err(io::Error::from)?;
        Ok(Self::File(file.into()))
    }

    /// Shows the content at the live path.
    fn put(self, bind: &Bind, layers: &mut Layers<'_>) -> io::Result<()> {
        match self {
            Self::Directory(layer) => attach(&layer, &open_path(&bind.to)?),
            Self::File(mut file) => {
                let mut into = File::from(layers.open_emptied(&bind.to)?);
                io::copy(&mut file, &mut into)?;
                // After the install, the staged file is not beside the live one either.
                if bind.from != bind.to
                    && open_path(&bind.from).is_ok_and(|staged| layers.covers(&staged))
                {
                    let _ = std::fs::remove_file(&bind.from);
                }
                Ok(())
            }
        }
    }
}

/// Returns an empty directory, for a command whose working directory was removed.
fn empty_directory(store: &OwnedFd) -> io::Result<OwnedFd> {
    mkdirat(store, "removed", Mode::RUSR | Mode::XUSR)?;
    let dir = openat(
        store,
        "removed",
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    fchmod(&dir, Mode::from_raw_mode(0o555))?;
    Ok(dir)
}

/// Returns the path of the working directory; none if the directory was removed.
fn working_directory() -> Result<Option<PathBuf>, ViewError> {
    match rustix::process::getcwd(Vec::new()) {
        Ok(path) => {
            let path = PathBuf::from(OsString::from_vec(path.into_bytes()));
            if path.is_absolute() {
                Ok(Some(path))
            } else {
                Err(ViewError::NoPath(path))
            }
        }
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(e) => Err(ViewError::UnknownDirectory(e.into())),
    }
}

/// Tells whether only root and this user can write every directory above a path, and so change
/// what it leads to. A sticky directory counts as writable: any user can create the next entry.
fn is_fixed(path: &Path) -> bool {
    let is_ours = |dir: &Path| {
        open_path(dir)
            .and_then(|dir| Ok(fstat(&dir)?))
            .is_ok_and(|stat| only_us_can_write(stat.st_uid, stat.st_mode))
    };
    path.ancestors().skip(1).all(is_ours)
}

/// The directories and files with kernel settings, which no layer covers.
const SETTINGS: [&str; 5] = [
    "/proc/sys",
    "/proc/sysrq-trigger",
    "/proc/irq",
    "/sys",
    "/sys/fs/cgroup",
];

/// Makes kernel settings read-only and the host name private for this process and its children.
/// Errors are ignored: a user that may not mount may not change these settings either.
fn protect_kernel_settings() {
    let _ = unshare(CloneFlags::CLONE_NEWUTS);
    for path in SETTINGS {
        let bound = mount(
            Some(path),
            path,
            None::<&str>,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None::<&str>,
        );
        let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        let _ =
            bound.and_then(|()| mount(None::<&str>, path, None::<&str>, read_only, None::<&str>));
    }
}

/// Keeps later mounts of this namespace out of all others.
///
/// If the root directory of this process is not a mount point, `/` cannot be made private. So the
/// process enters its own mount namespace again, which sets its root to that of the namespace
/// (setns(2)), and then its own root again.
fn make_private(numbers: &Numbers, other_root: bool) -> io::Result<()> {
    let private = || {
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )
    };
    if !other_root {
        return Ok(private()?);
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open("/", flags, Mode::empty())?;
    let cwd = open(".", flags, Mode::empty())?;
    let space = openat(
        &numbers.0,
        "../ns/mnt",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Mount))?;
    private()?;
    fchdir(&root)?;
    chroot(".")?;
    Ok(fchdir(&cwd)?)
}

/// Opens the file at a path without links, if it is the inode that was surveyed.
fn hold(path: &Path, inode: (u64, u64)) -> Result<OwnedFd, PathError> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let failed = |e: rustix::io::Errno| PathError::Io(path.into(), e.into());
    let held = openat2(
        CWD,
        path,
        flags,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
    .map_err(failed)?;
    let stat = fstat(&held).map_err(failed)?;
    if (stat.st_dev, stat.st_ino) != inode {
        return Err(PathError::Changed(path.into()));
    }
    Ok(held)
}

/// Enters the working directory by its path, because its descriptor leads below the layers.
///
/// # Errors
/// Fails if this user may not enter it.
pub(super) fn enter_cwd(view: Option<&View>) -> Result<(), ViewError> {
    let failed = |path: &Path, e: Errno| ViewError::Directory(path.into(), e.into());
    match view.map(|view| &view.cwd) {
        None => chdir(".").map_err(|e| failed(Path::new("."), e)),
        Some(Cwd::Path(path)) => {
            // Another user may have put a link at its path.
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let dir = openat2(
                CWD,
                path,
                flags,
                Mode::empty(),
                ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
            );
            let dir = dir.map_err(|e| failed(path, Errno::from_raw(e.raw_os_error())))?;
            fchdir(&dir).map_err(|e| failed(path, e))
        }
        Some(Cwd::Held(dir)) => fchdir(dir).map_err(|e| failed(Path::new("."), e)),
    }
}
