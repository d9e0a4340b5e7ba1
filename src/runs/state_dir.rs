//! The state directory: its permissions, its folders and files, and its locks.

use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::{self, Mode, OFlags},
    io::Errno,
};

use crate::trust::{Distrust, ResolvedPath};

/// The pause between two attempts to take a lock.
const PAUSE: Duration = Duration::from_millis(10);

/// Checks that no other user can write `state`: its files decide which bytes are restored, and
/// which processes are signalled.
///
/// # Errors
/// Fails if another user can write it, with the path and the command that fixes it; or as the
/// system does.
pub(crate) fn trusted(state: &Path) -> io::Result<()> {
    check(&ResolvedPath::of(state)?, state)
}

fn check(resolved: &ResolvedPath, state: &Path) -> io::Result<()> {
    resolved.is_trusted().map_err(|why| {
        // A parent directory may belong to another user for good reason.
        let mend = why
            .fix_command()
            .filter(|_| why.path() == resolved.end && resolved.is_directory())
            .map_or(String::new(), |mend| format!("`{mend}`, or "));
        let why = match &why {
            Distrust::Writable { .. } => why.to_string(),
            why => format!("`{}`: {why}", state.display()),
        };
        io::Error::other(format!(
            "{why}, and so change what is restored; {mend}choose another directory with --state"
        ))
    })
}

/// Makes the state directory if it does not exist. An existing one keeps its mode.
pub(super) fn make(state: &Path) -> io::Result<()> {
    let (resolved, missing) = ResolvedPath::until(state)?;
    if missing.is_empty() {
        return check(&resolved, state);
    }
    // Root makes nothing where another user could replace a parent directory.
    if rustix::process::geteuid().is_root() {
        check(&resolved, state)?;
    }
    let mut dir = resolved.open()?;
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
        // A directory of another user may refuse this. It is not needed then: this user can make
        // the entry again.
        let _ = fs::fsync(&dir);
        dir = made;
    }
    trusted(state)
}

/// Makes a folder that no other user can enter, whatever the umask is, and whatever its mode was.
/// Returns true if it is new.
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
            "`{}` belongs to uid {}; `chown {me} {}`, or choose another directory with --state",
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

/// Makes a folder of the state directory, and returns its path.
///
/// # Errors
/// Fails if the state directory cannot be written, or if another user can write it.
pub(crate) fn private_folder(state: &Path, name: &str) -> io::Result<PathBuf> {
    make(state)?;
    let path = state.join(name);
    folder(&path)?;
    Ok(path)
}

/// Makes a new file, written and not yet synced.
pub(super) fn create(path: &Path, content: &[u8]) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .append(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    // The umask may have removed bits from the mode.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(content)?;
    Ok(file)
}

/// Replaces a file in one step, by way of `staged` beside it. The file is synced, and its directory
/// is not.
pub(crate) fn replace(path: &Path, staged: &Path, content: &[u8]) -> io::Result<()> {
    // A killed run may have left it.
    let _ = std::fs::remove_file(staged);
    create(staged, content)?.sync_all()?;
    std::fs::rename(staged, path)
}

/// Syncs a directory: its entries outlive a power failure.
pub(crate) fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// The mode of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lock {
    Shared,
    Alone,
}

/// Takes the lock on the file at `path`. It is held until the file is dropped. Returns none if it
/// was not free within `limit`, or before `interrupted` ended.
pub(super) async fn lock(
    path: &Path,
    mode: Lock,
    limit: Duration,
    interrupted: impl Future<Output = ()>,
) -> io::Result<Option<File>> {
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    let taken = async {
        loop {
            let result = if mode == Lock::Shared {
                file.try_lock_shared()
            } else {
                file.try_lock()
            };
            match result {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(PAUSE).await,
                Err(TryLockError::Error(e)) => return Err(e),
            }
        }
    };
    tokio::select! {
        biased;
        taken = taken => taken.map(|()| Some(file)),
        () = interrupted => Ok(None),
        () = tokio::time::sleep(limit) => Ok(None),
    }
}

/// Returns the names in a directory, without hidden ones; empty if there is no directory.
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
