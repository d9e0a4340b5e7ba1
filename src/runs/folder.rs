//! The state directory: who may write it, its folders and files, and its locks.

use std::{
    fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    time::{Duration, Instant},
};

/// Whether nobody but root and the caller can write `state`: what stands in it decides what is put back, and who is signalled.
///
/// # Errors
/// Who can, and what mends it; or the system's.
pub fn trusted(state: &Path) -> io::Result<()> {
    let path = state.canonicalize()?;
    let me = nix::unistd::geteuid().as_raw();
    for dir in path.ancestors() {
        let meta = dir.metadata()?;
        let foreign = ![0, me].contains(&meta.uid());
        // In a sticky directory nobody takes away what is another's.
        let others = meta.mode() & 0o022 != 0 && (meta.mode() & 0o1000 == 0 || dir == path);
        if foreign || others {
            let name = dir.display();
            let mend = match dir == path {
                true if foreign => format!("`chown {me} {name}`, or "),
                true => format!("`chmod go-w {name}`, or "),
                false => String::new(),
            };
            let why = "and so change what is put back";
            return Err(io::Error::other(format!("others than root and you can write `{name}`, {why}; {mend}choose another place with --state")));
        }
        // Who is not root answers for their own home.
        if me != 0 {
            break;
        }
    }
    Ok(())
}

/// Makes the state directory where there is none. One that is there keeps its mode.
pub(super) fn make(state: &Path) -> io::Result<()> {
    if !state.exists() {
        DirBuilder::new().recursive(true).mode(0o700).create(state)?;
        std::fs::set_permissions(state, Permissions::from_mode(0o700))?;
        if let Some(parent) = state.canonicalize()?.parent() {
            // Of another user's directory that is not to be had, and not needed by one who may make an entry in it.
            let _ = sync(parent);
        }
    }
    trusted(state)
}

/// Makes a folder of ours that nobody else may enter, whatever the umask is, and whatever its mode was. Answers whether it is new.
pub(super) fn folder(path: &Path) -> io::Result<bool> {
    let new = match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => true,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
        Err(e) => return Err(e),
    };
    let meta = path.metadata()?;
    let me = nix::unistd::geteuid().as_raw();
    if ![0, me].contains(&meta.uid()) {
        return Err(io::Error::other(format!("`{}` belongs to uid {}; `chown {me} {0}`, or choose another place with --state", path.display(), meta.uid())));
    }
    if meta.mode() & 0o777 != 0o700 {
        std::fs::set_permissions(path, Permissions::from_mode(0o700))?;
    }
    Ok(new)
}

/// A new file of ours, written and not yet synced.
pub(super) fn create(path: &Path, content: &[u8]) -> io::Result<File> {
    let mut file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(path)?;
    // The umask takes from the mode what it wants.
    file.set_permissions(Permissions::from_mode(0o600))?;
    file.write_all(content)?;
    Ok(file)
}

/// Puts a whole file in the place of what was there, with `staged` beside it in between; its directory is not synced.
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

/// The same of new files below `dir`, all on its filesystem. Of one that is not open any more, with everything on that.
pub(super) fn sync_files<'a>(dir: &Path, files: impl Iterator<Item = Option<&'a File>>) -> io::Result<()> {
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

/// Takes the lock on the file at `path`, until the answer is dropped; none when it could not be had within `wait`.
pub(super) fn lock(path: &Path, how: Lock, wait: Duration) -> io::Result<Option<File>> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let until = Instant::now() + wait;
    loop {
        let said = if how == Lock::Shared { file.try_lock_shared() } else { file.try_lock() };
        match said {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(Duration::from_millis(10)),
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
        names.extend(entry?.file_name().into_string().ok().filter(|name| !name.starts_with('.')));
    }
    names.sort_unstable();
    Ok(names)
}
