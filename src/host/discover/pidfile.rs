//! Pid files.

use std::{io, path::Path};

use crate::{
    config::{self, ReadError},
    trust::{Distrust, ResolvedPath},
};

/// Largest pid file that is read, in bytes. The one of a postmaster has eight lines.
const MAX_PID_FILE: u64 = 64 << 10;

/// A pid file.
#[derive(Debug)]
pub(super) struct PidFile {
    /// The process that it names, which may not exist.
    pub(super) pid: i32,
    resolved: ResolvedPath,
}

/// Why a pid file names no process.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PidFileError {
    /// There is none.
    #[error("there is none")]
    Missing,
    /// Its path cannot be resolved or opened.
    #[error("{0}")]
    Io(io::Error),
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(#[from] ReadError),
    #[error("it holds no process number")]
    NoNumber,
}

impl PidFile {
    /// Reads the number in its first line.
    ///
    /// # Errors
    /// Fails if there is no such file, if it cannot be read, or if it holds no number above 0.
    pub(super) fn read(path: &Path) -> Result<Self, PidFileError> {
        let io = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => PidFileError::Missing,
            _ => PidFileError::Io(e),
        };
        let resolved = ResolvedPath::of(path).map_err(io)?;
        let fd = resolved.open().map_err(io)?;
        let bytes = config::read_fd(fd, MAX_PID_FILE)?;
        let text = String::from_utf8_lossy(&bytes);
        let pid = text
            .lines()
            .next()
            .and_then(|line| line.split_whitespace().next()?.parse().ok())
            .filter(|pid| *pid > 0);
        Ok(Self {
            pid: pid.ok_or(PidFileError::NoNumber)?,
            resolved,
        })
    }

    /// Checks that it is trusted for a process of user `uid`: as root, a file that other users can
    /// write must not decide which process gets a signal.
    ///
    /// # Errors
    /// Fails if other users can write it or lead its path elsewhere.
    pub(super) fn is_trusted(&self, uid: u32) -> Result<(), Distrust> {
        if nix::unistd::geteuid().is_root() {
            self.resolved.writable_only_by(uid)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn the_number_is_the_first_word_of_the_first_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.pid");
        for (text, pid) in [
            ("4711", Some(4711)),
            ("4711\n", Some(4711)),
            (" 4711 \nmore\n", Some(4711)),
            ("12\n/var/lib/pgsql\n5432\n", Some(12)),
            ("", None),
            ("\n4711\n", None),
            ("0\n", None),
            ("-1\n", None),
            ("99999999999\n", None),
            ("pid\n", None),
        ] {
            std::fs::write(&file, text).unwrap();
            assert_eq!(PidFile::read(&file).ok().map(|f| f.pid), pid, "{text:?}");
        }
        assert!(matches!(
            PidFile::read(&dir.path().join("none")),
            Err(PidFileError::Missing)
        ));
        assert!(matches!(
            PidFile::read(dir.path()),
            Err(PidFileError::Unreadable(_) | PidFileError::Io(_))
        ));
    }
}
