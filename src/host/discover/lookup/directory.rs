//! The directory that a relative path of a command line begins at.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::{Lookup, LookupError, joined};
use crate::{
    fleet::PathBase,
    host::{discover::reason::ConfigReason, exec::placeholders::inode},
};

impl Lookup<'_> {
    /// Makes a path of its command line absolute. It begins at the `base` of its group, or at the
    /// directory that the process was started in.
    pub(in crate::host::discover) fn absolute(
        &self,
        value: &OsStr,
    ) -> Result<PathBuf, LookupError> {
        let value = Path::new(value);
        if value.is_absolute() {
            return Ok(value.to_owned());
        }
        let base = if self.group.reading.base.is_empty() {
            self.started_in(value)?
        } else {
            self.base()?
        };
        let path = base.join(value);
        match self.elsewhere(&base, value) {
            Some(other) if inode(&other) != inode(&path) => {
                let why = ConfigReason::TwoFiles {
                    value: value.into(),
                    base,
                    first: other,
                    second: path,
                };
                Err(self.refuse(why, None))
            }
            _ => Ok(path),
        }
    }

    /// Returns the first directory of the group's `base` that the process names.
    pub(in crate::host::discover) fn base(&self) -> Result<PathBuf, LookupError> {
        for place in &self.group.reading.base {
            let (dir, below) = match place {
                PathBase::Path(path) => return Ok(path.clone()),
                PathBase::Cwd(below) => return Ok(joined(self.cwd()?, below)),
                PathBase::Base(_) | PathBase::Key(_) => continue,
                PathBase::Env(name, below) => match self.variable(name)? {
                    Some(dir) => (self.cwd()?.join(dir), below),
                    None => continue,
                },
                PathBase::Title(pattern, below) => match self.titled(pattern)? {
                    Some(dir) => (self.cwd()?.join(dir), below),
                    None => continue,
                },
                // A program with a base does not leave the directory that it was started in.
                PathBase::Arg(option, below) => match self.values(&[option])?.pop() {
                    Some(dir) => (self.cwd()?.join(dir), below),
                    None => continue,
                },
                PathBase::Built(text, below) => {
                    match self.built(text)?.filter(|dir| dir.starts_with('/')) {
                        Some(dir) => (dir.into(), below),
                        None => continue,
                    }
                }
            };
            return Ok(joined(dir, below));
        }
        Err(self.refuse(ConfigReason::NoBase, None))
    }

    /// Tells whether only its working directory says where a relative path begins: the program may
    /// begin it at another one.
    pub(in crate::host::discover) fn is_guess(&self, value: &OsStr) -> bool {
        let stays = || self.group.reading.base.is_empty() || self.base().ok() == self.cwd().ok();
        !Path::new(value).is_absolute() && stays()
    }

    /// Returns the same path below the directory that its environment names as the first one, if
    /// the process has left that for `base`, and a file exists there as well.
    fn elsewhere(&self, base: &Path, value: &Path) -> Option<PathBuf> {
        let has_left = || {
            self.group
                .reading
                .base
                .iter()
                .any(|place| matches!(place, PathBase::Cwd(_)))
                && self.cwd().is_ok_and(|cwd| cwd == base)
        };
        let other = self
            .pwd()
            .filter(|pwd| pwd != base && has_left())?
            .join(value);
        other.is_file().then_some(other)
    }

    pub(in crate::host::discover) fn cwd(&self) -> Result<PathBuf, LookupError> {
        let link = format!("/proc/{}/cwd", self.found.pid);
        std::fs::read_link(link).map_err(|e| self.refuse(ConfigReason::NoWorkingDirectory(e), None))
    }

    /// Returns the directory that the process was started in. Its environment names it, and its
    /// working directory must agree: it is still that one, or the one that `value` names.
    fn started_in(&self, value: &Path) -> Result<PathBuf, LookupError> {
        let cwd = self.cwd()?;
        let root = PathBuf::from(format!("/proc/{}/root", self.found.pid));
        let same = |path: &Path| {
            let inside = root.join(path.strip_prefix("/").unwrap_or(path));
            inode(&inside) != (0, 0)
                && inode(&inside) == inode(Path::new(&format!("/proc/{}/cwd", self.found.pid)))
        };
        let named = self.pwd();
        match &named {
            // A daemon that went to the root directory may have been started anywhere: not every
            // supervisor sets PWD.
            Some(pwd) if same(pwd) && pwd != Path::new("/") => return Ok(cwd),
            Some(pwd) if same(&pwd.join(value)) => return Ok(pwd.clone()),
            _ => {}
        }
        let likely = named
            .iter()
            .chain([&cwd])
            .map(|dir| dir.join(value))
            .find(|path| path.exists());
        let why = ConfigReason::NoStart {
            value: value.into(),
            cwd,
        };
        let stays = ", or `base = \"{cwd}\"` if it never leaves that directory";
        Err(self.refuse_with(why, likely.as_deref(), stays))
    }

    /// The working directory of the shell that started it, by its environment.
    pub(super) fn pwd(&self) -> Option<PathBuf> {
        let environment = std::fs::read(format!("/proc/{}/environ", self.found.pid)).ok()?;
        let mut entries = environment
            .split(|b| *b == 0)
            .filter_map(|entry| entry.strip_prefix(b"PWD="));
        match (entries.next(), entries.next()) {
            (Some(dir), None) => {
                Some(PathBuf::from(OsStr::from_bytes(dir))).filter(|path| path.is_absolute())
            }
            _ => None,
        }
    }
}
