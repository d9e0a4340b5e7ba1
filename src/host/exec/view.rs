//! A view of all files in which every candidate stands at its live path, and all that is written is
//! discarded.

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
    held::Written,
    layers::{Layers, PLACE, Setuid, at, attach, copy},
    mounts::sockets,
    numbers::{Numbers, Users},
    request::Bind,
    users,
};

/// What a command sees instead of the files of its instance.
#[derive(Debug)]
pub(super) struct View {
    /// The filesystem that its writes go to.
    pub(super) store: OwnedFd,
    cwd: Cwd,
}

/// Where a command works.
#[derive(Debug)]
enum Cwd {
    Path(PathBuf),
    /// The layer over that of its instance; or an empty directory: that was removed, and nothing
    /// can be in it any more.
    Held(OwnedFd),
}

/// Makes a view of all files for this process and its children alone: each of `binds` stands at its
/// live path, every one of `written` is empty, and all that is written is discarded.
///
/// # Errors
/// A sentence: no such view is to be had, or a path does not lead to what was surveyed.
pub(super) fn build(
    binds: &[Bind],
    written: &[Written],
    numbers: &Numbers,
    users: Users,
    other_root: bool,
) -> Result<View, String> {
    let none = |e: io::Error| {
        format!("no mount namespace in which the new config could stand at its live path: {e}")
    };
    let cwd = working_directory()?;
    match unshare(CloneFlags::CLONE_NEWNS) {
        Err(Errno::EPERM) => users::enter(numbers, users).map_err(|e| none(e.into()))?,
        said => said.map_err(|e| none(e.into()))?,
    }
    keep_to_itself(numbers, other_root).map_err(none)?;
    keep_the_kernel_as_it_is();
    let held = match &cwd {
        Some(path) if !is_fixed(path) => Some((
            path.clone(),
            open(".", PLACE, Mode::empty()).map_err(|e| none(e.into()))?,
        )),
        _ => None,
    };
    // Mounts are named by the numbers of descriptors; the working directory is entered again at the
    // end.
    fchdir(&numbers.0).map_err(|e| none(e.into()))?;
    let unbuilt =
        |why: String| format!("no view of its files in which its writes are discarded: {why}");
    let mut layers = Layers::new(numbers).map_err(|e| unbuilt(e.to_string()))?;
    // Whatever is needed of the files below is opened before they are covered.
    let sockets: Vec<(PathBuf, OwnedFd)> = sockets(&numbers.0)
        .into_iter()
        .filter_map(|path| Some((copy_of(&path)?, path)))
        .map(|(fd, path)| (path, fd))
        .collect();
    let written: Vec<&Written> = written
        .iter()
        .filter(|file| hold(&file.path, file.inode).is_ok())
        .collect();
    let mut staged = Vec::with_capacity(binds.len());
    for bind in binds {
        hold(&bind.to, bind.live)?;
        staged.push(
            Staged::hold(bind, numbers, &mut layers)
                .map_err(|why| format!("`{}`: {why}", bind.from.display()))?,
        );
    }
    layers.cwd = held;
    let parents = binds
        .iter()
        .map(|bind| &bind.to)
        .chain(written.iter().map(|file| &file.path))
        .filter_map(|path| path.parent());
    layers
        .cover(parents.chain(cwd.as_deref()).map(Path::to_owned).collect())
        .map_err(unbuilt)?;
    for (path, socket) in &sockets {
        // One that is not covered is seen already.
        let _ = at(path).and_then(|place| {
            if layers.covers(&place) {
                attach(socket, &place)
            } else {
                Ok(())
            }
        });
    }
    for file in written {
        // One that this user may not write, no command of it can.
        let _ = layers.replaced(&file.path);
    }
    for (bind, staged) in binds.iter().zip(staged) {
        staged
            .put(bind, &mut layers)
            .map_err(|e| unbuilt(format!("`{}`: {e}", bind.to.display())))?;
    }
    let cwd = match (layers.cwd.take(), cwd) {
        (Some((_, layer)), _) => Cwd::Held(layer),
        (None, Some(path)) => Cwd::Path(path),
        (None, None) => Cwd::Held(empty(&layers.store).map_err(|e| unbuilt(e.to_string()))?),
    };
    Ok(View {
        store: layers.store,
        cwd,
    })
}

/// A new content.
enum Staged {
    /// It is written where it belongs, so that it is a file like any other there.
    File(File),
    /// It is mounted there.
    Directory(OwnedFd),
}

impl Staged {
    /// Opens what is to stand at a live path.
    fn hold(bind: &Bind, numbers: &Numbers, layers: &mut Layers<'_>) -> Result<Self, String> {
        let held = hold(&bind.from, bind.staged)?;
        let kind = fstat(&held)
            .map(|stat| FileType::from_raw_mode(stat.st_mode))
            .map_err(|e| e.to_string())?;
        if kind == FileType::Directory {
            return Ok(Self::Directory(
                layers
                    .layer(&held, Setuid::Never)
                    .map_err(|e| e.to_string())?,
            ));
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(
            &numbers.0,
            held.as_raw_fd().to_string(),
            flags,
            Mode::empty(),
        )
        .map_err(|e| e.to_string())?;
        Ok(Self::File(file.into()))
    }

    fn put(self, bind: &Bind, layers: &mut Layers<'_>) -> io::Result<()> {
        match self {
            Self::Directory(layer) => attach(&layer, &at(&bind.to)?),
            Self::File(mut file) => {
                let mut into = File::from(layers.replaced(&bind.to)?);
                io::copy(&mut file, &mut into)?;
                // A reload does not find it beside the live file either.
                if bind.from != bind.to && at(&bind.from).is_ok_and(|staged| layers.covers(&staged))
                {
                    let _ = std::fs::remove_file(&bind.from);
                }
                Ok(())
            }
        }
    }
}

/// A socket as it is: what stands in a layer leads to no process.
fn copy_of(socket: &Path) -> Option<OwnedFd> {
    copy(&at(socket).ok()?, OpenTreeFlags::empty()).ok()
}

fn empty(store: &OwnedFd) -> io::Result<OwnedFd> {
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

/// The path of the working directory of this process; none where that was removed.
fn working_directory() -> Result<Option<PathBuf>, String> {
    match rustix::process::getcwd(Vec::new()) {
        Ok(path) => {
            let path = PathBuf::from(OsString::from_vec(path.into_bytes()));
            match path.is_absolute() {
                true => Ok(Some(path)),
                false => Err(format!(
                    "its working directory `{}` has no path here",
                    path.display()
                )),
            }
        }
        Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(e) => Err(format!("working directory: {e}")),
    }
}

/// Whether only root and this user decide what a path leads to.
fn is_fixed(path: &Path) -> bool {
    let own = rustix::process::geteuid().as_raw();
    let decides = |dir: &Path| {
        at(dir)
            .and_then(|dir| Ok(fstat(&dir)?))
            .is_ok_and(|stat| [0, own].contains(&stat.st_uid) && stat.st_mode & 0o022 == 0)
    };
    path.ancestors().skip(1).all(decides)
}

/// Places with settings of the kernel, which no layer covers.
const SETTINGS: [&str; 5] = [
    "/proc/sys",
    "/proc/sysrq-trigger",
    "/proc/irq",
    "/sys",
    "/sys/fs/cgroup",
];

/// Lets this process and its children change no setting of the kernel by a path, and not the name
/// of the host. A user who may not mount may not change these either.
fn keep_the_kernel_as_it_is() {
    let _ = unshare(CloneFlags::CLONE_NEWUTS);
    for place in SETTINGS {
        let bound = mount(
            Some(place),
            place,
            None::<&str>,
            MsFlags::MS_BIND | MsFlags::MS_REC,
            None::<&str>,
        );
        let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        let _ =
            bound.and_then(|()| mount(None::<&str>, place, None::<&str>, read_only, None::<&str>));
    }
}

/// Makes no other namespace see what is mounted in this one from here on. The root directory of
/// this process may be no mount point: for that it enters the one that it is in once more, which
/// leads to the root of all.
fn keep_to_itself(numbers: &Numbers, other_root: bool) -> io::Result<()> {
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
    let (root, cwd) = (
        open("/", flags, Mode::empty())?,
        open(".", flags, Mode::empty())?,
    );
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

/// Opens what stands at a path that has no link in it, if it is the inode that was surveyed.
fn hold(path: &Path, inode: (u64, u64)) -> Result<OwnedFd, String> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let said = |why: String| format!("`{}`: {why}", path.display());
    let held = openat2(
        CWD,
        path,
        flags,
        Mode::empty(),
        ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
    .map_err(|e| said(e.to_string()))?;
    let stat = fstat(&held).map_err(|e| said(e.to_string()))?;
    if (stat.st_dev, stat.st_ino) != inode {
        return Err(said("is not what was surveyed".into()));
    }
    Ok(held)
}

/// Enters the working directory once more, by its path: through its descriptor what was there
/// before would still be seen. This user must be allowed to.
///
/// # Errors
/// A sentence: it may not be entered.
pub(super) fn enter_again(view: Option<&View>) -> Result<(), String> {
    let failed = |path: &Path, e: Errno| {
        format!(
            "working directory `{}`: {}",
            path.display(),
            io::Error::from(e)
        )
    };
    match view.map(|view| &view.cwd) {
        None => chdir(".").map_err(|e| failed(Path::new("."), e)),
        Some(Cwd::Path(path)) => {
            // Its name may lead elsewhere by now, along a link that was put in its place.
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
