//! The config of `hello serve`: reads, parses and digests it.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    str::FromStr,
};

use rustix::fs::{FileType, Mode, OFlags};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub use self::layers::{Layer, digest_of_layers, overlaid};
use crate::diagnostic::{self, ConfigError};

mod layers;

/// The largest config of `hello serve`, in bytes (1 MiB): far above any message.
pub const MAX_CONFIG: u64 = 1 << 20;
/// The largest file that is a config of any daemon, in bytes (16 MiB). A run holds it in memory.
pub const MAX_TARGET: u64 = 16 << 20;
/// The largest buffer that a read starts with, in bytes. Most configs fit, so that one read takes
/// all of them.
const FIRST_BUFFER: usize = 1 << 16;
/// The address to listen on if neither the file nor the command line names one.
pub const DEFAULT_LISTEN: &str = "127.0.0.1:8080";

/// A config of `hello serve`.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The body of the response to `GET /`, byte for byte.
    pub message: String,
    /// `HOST:PORT` or `unix:PATH`. A change needs a restart.
    listen: Option<toml::Spanned<String>>,
    /// The level of the log.
    #[serde(default)]
    pub log: Level,
}

/// The least level of an entry that is logged.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum Level {
    Off,
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

/// An address to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// HOST:PORT.
    Tcp(String),
    /// A socket file.
    Unix(PathBuf),
}

/// Why a text is no address to listen on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ListenError {
    /// Nothing follows `unix:`.
    #[error("unix: needs a path")]
    NoPath,
    /// Any other text.
    #[error("{0:?} is neither HOST:PORT nor unix:PATH")]
    Neither(String),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() {
                Err(ListenError::NoPath)
            } else {
                Ok(Self::Unix(path.into()))
            };
        }
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Self::Tcp(text.into()))
            }
            _ => Err(ListenError::Neither(text.into())),
        }
    }
}

/// Parses and checks a whole config.
///
/// # Errors
/// Fails if the config is not valid, with the line and column, and a hint.
pub fn parse(bytes: &[u8]) -> Result<Config, ConfigError> {
    let config: Config = diagnostic::parse(bytes)?;
    check_listen(bytes, config.listen.as_ref())?;
    Ok(config)
}

/// Checks the address that a text gives.
fn check_listen(bytes: &[u8], listen: Option<&toml::Spanned<String>>) -> Result<(), ConfigError> {
    let Some(listen) = listen else { return Ok(()) };
    match Listen::from_str(listen.get_ref()) {
        Ok(_) => Ok(()),
        Err(why) => Err(ConfigError::new(
            bytes,
            format!("listen: {why}"),
            None,
            Some(listen.span()),
        )),
    }
}

impl Config {
    /// Returns the config as TOML, which [`parse`] reads back.
    ///
    /// # Errors
    /// Fails if the message cannot be written as TOML.
    pub(crate) fn to_toml(&self) -> Result<String, toml::ser::Error> {
        #[derive(Serialize)]
        struct Plain<'a> {
            message: &'a str,
            listen: &'a str,
            log: Level,
        }
        toml::to_string(&Plain {
            message: &self.message,
            listen: self.listen(),
            log: self.log,
        })
    }

    /// Returns the address to listen on.
    #[must_use]
    pub fn listen(&self) -> &str {
        self.listen
            .as_ref()
            .map_or(DEFAULT_LISTEN, |listen| listen.get_ref())
    }
}

/// The reason that a file or directory cannot be read as a config.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The system's error.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Its type or size is not that of a config.
    #[error(transparent)]
    Unacceptable(#[from] Unacceptable),
}

/// The reason that a file or directory is no config. An entry of a directory is named as in a
/// message: `it` is the directory itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unacceptable {
    /// It is a FIFO, a device or a directory.
    #[error("it is no regular file ({0:?})")]
    Type(FileType),
    /// The file has more bytes than this limit.
    #[error("it is larger than {0} bytes")]
    TooLarge(u64),
    /// The files of the directory have more bytes than this limit.
    #[error("it is larger than {0} bytes in total")]
    TooLargeInTotal(u64),
    /// The directory has more entries than this limit.
    #[error("it has more than {0} entries")]
    TooManyEntries(usize),
    /// A directory in it is below more directories than this limit.
    #[error("`{0}` is more than {1} directories deep")]
    TooDeep(String, usize),
    /// An entry is a FIFO, a socket or a device.
    #[error("{0} is neither file, directory nor link ({1:?})")]
    EntryType(String, FileType),
    /// An entry has a property that a target must not have.
    #[error("{0} {1}")]
    Entry(String, &'static str),
    /// Other users could change an entry.
    #[error("users other than root and you can write {0}")]
    Writable(String),
}

/// Reads a regular file of at most `limit` bytes. A FIFO, device or directory is refused before it
/// is read.
///
/// # Errors
/// Fails with a [`ReadError`].
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    read_fd(
        rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from)?,
        limit,
    )
}

/// Reads an open file as [`read`] does.
///
/// # Errors
/// Fails with a [`ReadError`].
pub fn read_fd(fd: OwnedFd, limit: u64) -> Result<Vec<u8>, ReadError> {
    let stat = rustix::fs::fstat(&fd).map_err(io::Error::from)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if kind != FileType::RegularFile {
        return Err(Unacceptable::Type(kind).into());
    }
    let mut bytes =
        Vec::with_capacity(usize::try_from(stat.st_size).unwrap_or(0).min(FIRST_BUFFER) + 1);
    let too_large = || Unacceptable::TooLarge(limit).into();
    if u64::try_from(stat.st_size).unwrap_or(0) > limit {
        return Err(too_large());
    }
    File::from(fd).take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        Err(too_large())
    } else {
        Ok(bytes)
    }
}

/// Returns the SHA-256 as lower-case hex digits.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    // A run hashes thousands of files, and this table is ten times faster than `format!`.
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    Sha256::digest(bytes)
        .iter()
        .flat_map(|b| [b >> 4, b & 15])
        .map(|half| char::from(DIGITS[usize::from(half)]))
        .collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    #[test]
    fn errors_have_line_and_column() {
        for (text, wanted) in [
            (
                "message = \"a\"\nlisten = \"x:1\"\nlisne = 1\n",
                "line 3, column 1: unknown field `lisne`; did you mean `listen`?",
            ),
            ("message = 1\n", "line 1, column 11: invalid type"),
            (
                "message = \"a\"\nmessage = \"b\"\n",
                "line 2, column 1: duplicate key",
            ),
            ("", "missing field `message`; add `message"),
            (
                "message = \"a\"\nlisten = \"nowhere\"\n",
                "neither HOST:PORT nor unix:PATH",
            ),
        ] {
            let why = parse(text.as_bytes()).unwrap_err().to_string();
            assert!(why.contains(wanted), "{text:?}: {why}");
        }
        assert!(
            parse(b"\xff\xfe")
                .unwrap_err()
                .to_string()
                .contains("not UTF-8")
        );
    }

    #[test]
    fn anything_but_a_small_regular_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(
            read(&fifo, MAX_CONFIG),
            Err(ReadError::Unacceptable(_))
        ));
        assert!(matches!(
            read(dir.path(), MAX_CONFIG),
            Err(ReadError::Unacceptable(_))
        ));
        let big = dir.path().join("big");
        File::create(&big).unwrap().set_len(MAX_CONFIG + 1).unwrap();
        assert!(matches!(
            read(&big, MAX_CONFIG),
            Err(ReadError::Unacceptable(_))
        ));
        assert!(matches!(
            read(&dir.path().join("none"), MAX_CONFIG),
            Err(ReadError::Io(_))
        ));
    }
}
