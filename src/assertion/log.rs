//! The log that an assertion reads.

use serde::{Deserialize, Serialize};

/// The identifiers of syslog(3) are short; RFC 3164 allows 32 characters, and systemd 255 more.
const MAX_IDENTIFIER: usize = 255;

/// A text that names no log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("log = {0:?} is none of an absolute path, {{arg:-o}}, journal, syslog:IDENTIFIER")]
pub(crate) struct NoLog(String);

/// A log of an instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Log {
    /// A file: an absolute path, once its placeholders are filled in.
    File(String),
    /// The journal of systemd: the entries of the instance's unit, or of its processes where it has
    /// no unit.
    Journal,
    /// The entries of syslog with this identifier.
    Syslog(String),
}

impl Log {
    /// Parses a log as `fleet.toml` names it.
    ///
    /// # Errors
    /// Fails if the text names no log.
    pub(crate) fn parse(text: &str) -> Result<Self, NoLog> {
        let is_identifier = |name: &str| {
            !name.is_empty()
                && name.len() <= MAX_IDENTIFIER
                && name
                    .chars()
                    .all(|c| c.is_ascii_graphic() && !matches!(c, '[' | ']' | ':'))
        };
        match (text, text.strip_prefix("syslog:")) {
            ("journal", _) => Ok(Self::Journal),
            (_, Some(name)) if is_identifier(name) => Ok(Self::Syslog(name.into())),
            _ if text.starts_with(['/', '{']) => Ok(Self::File(text.into())),
            _ => Err(NoLog(text.into())),
        }
    }

    /// Describes the log in a message.
    #[must_use]
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::File(path) => format!("its log `{path}`"),
            Self::Journal => "its journal".into(),
            Self::Syslog(name) => format!("the syslog of `{name}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_a_path_the_journal_or_an_identifier() {
        for (text, log) in [
            ("/var/log/x", Log::File("/var/log/x".into())),
            ("{arg:-l}", Log::File("{arg:-l}".into())),
            ("journal", Log::Journal),
            ("syslog:x-y", Log::Syslog("x-y".into())),
        ] {
            assert_eq!(Log::parse(text), Ok(log), "{text}");
        }
        for text in [
            "",
            "x.log",
            "syslog:",
            "syslog:a b",
            "syslog:a[1]",
            "journal:x",
        ] {
            assert!(Log::parse(text).is_err(), "{text}");
        }
    }
}
