//! The program of a command that runs as root: only root may decide what it is.

use std::{
    env,
    ffi::{OsStr, OsString},
    io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Access, access},
    process::geteuid,
};

use crate::trust::{Distrust, ResolvedPath};

/// Why a program is not run as root.
#[derive(Debug, thiserror::Error)]
pub(super) enum Untrusted {
    /// Another user can change the program, or the path to it.
    #[error("root does not run it, because {}{}", .0, hint(.0))]
    Writable(Distrust),
    /// Its path cannot be judged.
    #[error(transparent)]
    Unknown(#[from] io::Error),
}

/// Returns what makes a program trusted, as the end of a sentence.
fn hint(why: &Distrust) -> String {
    let repair = |command| format!("; run `{command}`");
    why.fix_command().map_or_else(String::new, repair)
}

/// Returns the first executable file named `program` in absolute `directories`; none if the name is
/// a path already.
pub(super) fn search(
    program: &OsStr,
    mut directories: impl Iterator<Item = PathBuf>,
) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    if program.as_bytes().contains(&b'/') {
        return None;
    }
    directories.find_map(|dir| Some(dir.join(program)).filter(is_program))
}

/// Finds a program as `execvp(3)` does in the `PATH` of this process, and checks it. Returns the
/// path to execute.
///
/// # Errors
/// Fails as [`check`] does.
pub(super) fn find(program: &OsStr) -> Result<PathBuf, Untrusted> {
    let path = env::var_os("PATH").unwrap_or_else(|| OsString::from("/bin:/usr/bin"));
    let found = search(program, env::split_paths(&path));
    let found = found.unwrap_or_else(|| PathBuf::from(program));
    check(&found)?;
    Ok(found)
}

/// Checks that only root can decide what the program at this path is, if this process is root. A
/// path that leads nowhere passes: it cannot be executed.
///
/// # Errors
/// Fails if another user can change the program or its path, or if this cannot be told.
pub(super) fn check(program: &Path) -> Result<(), Untrusted> {
    if !geteuid().is_root() {
        return Ok(());
    }
    match ResolvedPath::of(program) {
        Ok(resolved) => resolved.is_trusted().map_err(Untrusted::Writable),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e.into()),
    }
}
