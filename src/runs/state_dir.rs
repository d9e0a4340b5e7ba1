//! The state directory: who may write it, its folders and files, and its locks.

use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    fs::{self, Mode, OFlags},
    io::Errno,
};

use crate::trust::{Distrust, ResolvedPath};

/// Whether no other user decides what stands in `state`: that decides what is put back, and who is
/// signalled.
///
/// # Errors
/// Fails if another user does, with the place and what mends it; or as the system does.
pub fn trusted(state: &Path) -> io::Result<()> {
    judged(&ResolvedPath::of(state)?, state)
}

fn judged(way: &ResolvedPath, state: &Path) -> io::Result<()> {
    way.is_trusted().map_err(|why| {
        // A directory above may be another user's for good reason.
        let mend = why
            .fix_command()
            .filter(|_| why.path() == way.end && way.is_directory())
            .map_or(String::new(), |mend| format!("`{mend}`, or "));
        let why = match &why {
            Distrust::Writable { .. } => why.to_string(),
            why => format!("`{}`: {why}", state.display()),
        };
        io::Error::other(format!(
            "{why}, and so change what is put back; {mend}choose another place with --state"
        ))
    })
}

/// Makes the state directory where there is none. One that is there keeps its mode.
pub(super) fn make(state: &Path) -> io::Result<()> {
    let (way, missing) = ResolvedPath::until(state)?;
    if missing.is_empty() {
        return judged(&way, state);
    }
    // Nothing is made where another user could lead it.
    if rustix::process::geteuid().is_root() {
        judged(&way, state)?;
    }
    let mut dir = way.open()?;
    for name in &missing {
        match fs::mkdirat(&dir, name, Mode::RWXU) {
            // Another run was faster.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e.into()),
        }
        let made = fs::openat(
            &dir,
            name,
            OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        if fs::fstat(&made)?.st_uid == rustix::process::geteuid().as_raw() {
            fs::fchmod(&made, Mode::RWXU)?;
        }
        // Of another user's directory that is not to be had, and not needed by a user that may make
        // an entry in it.
        let _ = fs::fsync(&dir);
        dir = made;
    }
    trusted(state)
}

/// Makes a folder of ours that nobody else may enter, whatever the umask is, and whatever its mode
/// was. Answers whether it is new.
pub(super) fn folder(path: &Path) -> io::Result<bool> {
    let new = match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => true,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
        Err(e) => return Err(e),
    };
    let meta = path.metadata()?;
    let me = nix::unistd::geteuid().as_raw();
    if ![0, me].contains(&meta.uid()) {
        return Err(io::Error::other(format!(
            "`{}` belongs to uid {}; `chown {me} {}`, or choose another place with --state",
            path.display(),
            meta.uid(),
            crate::screen::quote(path)
        )));
    }
    if meta.mode() & 0o777 != 0o700 {
        std::fs::set_permissions(path, Permissions::from_mode(0o700))?;
    }
    Ok(new)
}

/// A new file of ours, written and not yet synced.
pub(super) fn create(path: &Path, content: &[u8]) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    // The umask takes from the mode what it wants.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(content)?;
    Ok(file)
}

/// Puts a whole file in the place of what was there, with `staged` beside it in between; its
/// directory is not synced.
pub(super) fn replace(path: &Path, staged: &Path, content: &[u8]) -> io::Result<()> {
    // Of one that was killed.
    let _ = std::fs::remove_file(staged);
    create(staged, content)?.sync_all()?;
    std::fs::rename(staged, path)
}

/// What is in a directory is there after a loss of power.
pub(super) fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The same of new files below `dir`, all on its filesystem. Of one that is not open any more, with
/// everything on that.
pub(super) fn sync_files<'a>(
    dir: &Path,
    files: impl Iterator<Item = Option<&'a File>>,
) -> io::Result<()> {
    match files.collect::<Option<Vec<&File>>>() {
        Some(files) => files.into_iter().try_for_each(File::sync_all),
        None => Ok(rustix::fs::syncfs(File::open(dir)?)?),
    }
}

/// Whether a lock is held together with others of the same kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    Shared,
    Alone,
}

/// Takes the lock on the file at `path`, until the answer is dropped; none when it could not be had
/// within `wait`.
pub(super) fn lock(path: &Path, how: Lock, wait: Duration) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    let until = Instant::now() + wait;
    loop {
        let said = if how == Lock::Shared {
            file.try_lock_shared()
        } else {
            file.try_lock()
        };
        match said {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(10))
            }
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(e)) => return Err(e),
        }
    }
}

/// The names in a directory, without those that begin with a dot; none where there is none.
pub(super) fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match std::fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(
            entry?
                .file_name()
                .into_string()
                .ok()
                .filter(|name| !name.starts_with('.')),
        );
    }
    names.sort_unstable();
    Ok(names)
}
