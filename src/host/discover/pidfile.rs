//! Files in which a daemon writes its number.

use std::{io, path::Path};

use crate::{
    config,
    trust::{ResolvedPath, is_us},
};

/// A postmaster's has eight lines; nobody's has more than this.
const MAX_PID_FILE: u64 = 64 << 10;

/// What a pid file says.
#[derive(Debug)]
pub(super) struct PidFile {
    /// The process that it names, there or not.
    pub(super) pid: i32,
    way: ResolvedPath,
}

/// Why a pid file names nobody.
#[derive(Debug, thiserror::Error)]
pub(super) enum PidFileError {
    /// There is none.
    #[error("there is none")]
    Missing,
    /// It is there and says nothing.
    #[error("{0}")]
    Unreadable(String),
}

impl PidFile {
    /// Reads the number in its first line.
    ///
    /// # Errors
    /// See [`PidFileError`]; a file that holds no number above 0 is unreadable.
    pub(super) fn read(path: &Path) -> Result<Self, PidFileError> {
        let io = |e: io::Error| match e.kind() {
            io::ErrorKind::NotFound => PidFileError::Missing,
            _ => PidFileError::Unreadable(e.to_string()),
        };
        let way = ResolvedPath::of(path).map_err(io)?;
        let fd = way.open().map_err(io)?;
        let bytes = config::read_fd(fd, MAX_PID_FILE)
            .map_err(|e| PidFileError::Unreadable(e.to_string()))?;
        let text = String::from_utf8_lossy(&bytes);
        let pid = text
            .lines()
            .next()
            .and_then(|line| line.split_whitespace().next()?.parse().ok())
            .filter(|pid| *pid > 0);
        let pid =
            pid.ok_or_else(|| PidFileError::Unreadable("it holds no process number".into()))?;
        Ok(Self { pid, way })
    }

    /// Whether its word counts for a process of user `uid`: as root, whom a signal goes to is not
    /// decided by what others can write.
    ///
    /// # Errors
    /// A sentence that says who else decides.
    pub(super) fn is_trusted(&self, uid: u32) -> Result<(), String> {
        if !nix::unistd::geteuid().is_root() {
            return Ok(());
        }
        let stat = self.way.stat();
        if stat.st_mode & 0o022 != 0 || !(is_us(stat.st_uid) || stat.st_uid == uid) {
            return Err("others than root and the process's own user can write it".into());
        }
        self.way
            .changeable_only_by(uid)
            .map_err(|why| why.to_string())
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
            Err(PidFileError::Unreadable(_))
        ));
    }
}
