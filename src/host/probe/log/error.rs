//! Why a log cannot be read.

use std::{io, path::PathBuf};

use crate::{
    assertion::NoKeyValue,
    host::exec::{RunError, placeholders::NoValue},
    kernel::unread_hint,
    trust::Distrust,
};

/// Why a log cannot be read. The text has no subject.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LogError {
    #[error(transparent)]
    NoValue(#[from] NoValue),
    /// The placeholders of its path stand for several words.
    #[error("{0:?} is not one path")]
    NotOnePath(String),
    #[error("`{}` is no absolute path", .0.display())]
    Relative(PathBuf),
    /// The config that names its path gives none.
    #[error("`{{config.{key}}}`: {of} {why}")]
    NotInConfig {
        key: String,
        /// Which config: `its config`, `the new config`.
        of: &'static str,
        why: NoKeyValue,
    },
    #[error("`{{config.{0}}}` needs a config that is one file")]
    NotOneFile(String),
    #[error("`{{config.{0}}}`: its config is a secret, and messages show the path of a log")]
    SecretConfig(String),
    #[error("there is no `{}`", .0.display())]
    NotThere(PathBuf),
    #[error("`{}` cannot be read: {}", .0.display(), .1)]
    Unread(PathBuf, io::Error),
    #[error("`{}` is no regular file, so nothing can be read of it later", .0.display())]
    NoFile(PathBuf),
    #[error("`{}` is another file in its mounts than on this host", .0.display())]
    OtherFile(PathBuf),
    /// Every user could write the line that is waited for.
    #[error("`{}` is not trusted: {}", .0.display(), .1)]
    Untrusted(PathBuf, Distrust),
    #[error(
        "more than {} MiB were written to {log} since the signal, and no more are read",
        .max >> 20
    )]
    TooLong { log: String, max: u64 },
    #[error("`{}` was replaced more than {} times since the signal", .0.display(), .1)]
    TooOften(PathBuf, usize),
    #[error("{0} was not read in time")]
    Late(String),
    #[error("an earlier look at it has not ended")]
    Busy,
    /// It could not be read right before the signal, for this reason.
    #[error("it could not be read right before the signal: {0}")]
    Unmarked(String),
    #[error(
        "this host has no syslog: neither a journal, nor `/var/log/syslog`, nor `/var/log/messages`"
    )]
    NoSyslog,
    #[error("this host has no journal: journald does not run, or there is no `journalctl`")]
    NoJournal,
    #[error("the journal cannot be read: {0}")]
    Journal(#[from] RunError),
    #[error("the journal cannot be read: journalctl ended with exit status {0}: {1}")]
    Journalctl(i32, String),
    #[error("the journal cannot be read: journalctl printed no entry that can be parsed")]
    NoEntry,
}

impl LogError {
    /// Returns the next step for the operator.
    pub(crate) fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotThere(_) => "correct `log`, or let the program write it before the run".into(),
            Self::SecretConfig(_) | Self::NotInConfig { .. } => {
                "write the path of the log itself into `log`".into()
            }
            Self::Relative(_) => "write the absolute path into `log`".into(),
            Self::Untrusted(_, why) => format!("run `{}`", why.fix_command()?),
            Self::Unread(_, e) => unread_hint(e).into(),
            Self::OtherFile(_) => "run hello where the process runs".into(),
            _ => return None,
        })
    }
}
