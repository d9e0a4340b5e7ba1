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

/// The directories in which programs are searched, instead of the operator's `PATH`.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a program is not run as root.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Untrusted {
    /// Another user can change the program, or the path to it.
    #[error("root does not run it, because {}{}", .0, hint(.0))]
    Writable(Distrust),
    /// Its path cannot be judged.
    #[error(transparent)]
    Unknown(#[from] io::Error),
}

/// Why the program of a command could not be run. The text has no subject.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("there is no program `{}`", .0.display())]
    Missing(PathBuf),
    #[error("`{}` is not executable", .0.display())]
    NotExecutable(PathBuf),
    #[error(transparent)]
    Untrusted(#[from] Untrusted),
}

/// Checks that the program of a command can be run in the directory `cwd`, as root or as another
/// user.
///
/// # Errors
/// Fails if there is no such program, or if root does not run it.
pub(crate) fn usable(program: &str, cwd: &Path, as_root: bool) -> Result<(), Unusable> {
    let directories = env::split_paths(PATH);
    let path = search(OsStr::new(program), directories).unwrap_or_else(|| cwd.join(program));
    if !path.is_file() {
        return Err(Unusable::Missing(if program.contains('/') {
            path
        } else {
            program.into()
        }));
    }
    if access(&path, Access::EXEC_OK).is_err() {
        return Err(Unusable::NotExecutable(path));
    }
    if as_root {
        check(&path)?;
    }
    Ok(())
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
