//! The log that an assertion reads.

use serde::{Deserialize, Serialize};

/// The identifiers of syslog(3) are short; RFC 3164 allows 32 characters, and systemd 255 more.
const MAX_IDENTIFIER: usize = 255;

/// Returns the text before the first `{config.KEY}` of the path of a log, the key, and the text
/// behind it. `{config.dir}` is another placeholder.
pub(crate) fn config_key(text: &str) -> Option<(&str, &str, &str)> {
    const OPEN: &str = "{config.";
    text.match_indices(OPEN).find_map(|(brace, _)| {
        let (key, after) = text[brace + OPEN.len()..].split_once('}')?;
        let is_key = !key.is_empty()
            && key != "dir"
            && key
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
        is_key.then_some((&text[..brace], key, after))
    })
}

/// Returns the path of a log without each `{config.KEY}` in it.
pub(crate) fn without_config_keys(text: &str) -> String {
    match config_key(text) {
        Some((before, _, after)) => format!("{before}{}", without_config_keys(after)),
        None => text.to_owned(),
    }
}

/// A text that names no log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("log = {0:?} is none of /PATH, {{arg:-o}}, {{config.KEY}}, journal, syslog:NAME")]
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
    /// Tells whether the config names its path.
    pub(crate) fn is_in_config(&self) -> bool {
        matches!(self, Self::File(text) if config_key(text).is_some())
    }

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
        assert_eq!(
            config_key("a{config.Log_File}/b"),
            Some(("a", "Log_File", "/b"))
        );
        assert_eq!(
            without_config_keys("{config.a.0}/{pid}/{config.b}x"),
            "/{pid}/x"
        );
        for text in ["{config.dir}/x", "{config}", "{config.}", "{config.a b}"] {
            assert_eq!(config_key(text), None, "{text}");
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
