//! One fact about a program, and whether it was seen or guessed.

use serde::{Deserialize, Serialize};

/// The subject of a fact, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum About {
    /// The executable or the script, and the users of the process.
    Program,
    /// Its workers, and other processes of the same program.
    Relatives,
    /// The unit or the init script that starts it.
    Service,
    /// Its reaction to each reload signal.
    Signals,
    /// The signal or command that reloads it.
    Reload,
    /// The file that it may read its config from.
    Config,
    /// A command that may validate its config.
    Validator,
    /// The sockets that it listens on.
    Sockets,
    /// The files that it writes its log to.
    Log,
}

impl About {
    /// Returns the label on the screen, at most 12 letters long.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Program => "Program",
            Self::Relatives => "Relatives",
            Self::Service => "Service",
            Self::Signals => "Signals",
            Self::Reload => "Reload",
            Self::Config => "Config",
            Self::Validator => "Validator",
            Self::Sockets => "Sockets",
            Self::Log => "Log",
        }
    }
}

/// Where a fact comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The kernel, or a file that names the process or its program.
    Seen,
    /// A custom: a usual name, or the wording of a manual.
    Guessed,
}

impl Source {
    /// Returns the word for it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Seen => "seen",
            Self::Guessed => "guessed",
        }
    }
}

/// One fact about a process or its program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fact {
    pub(crate) about: About,
    /// True if it was seen; false if it was guessed.
    pub(crate) seen: bool,
    pub(crate) detail: String,
}

impl Fact {
    pub(super) fn new(about: About, source: Source, detail: impl Into<String>) -> Self {
        Self {
            about,
            seen: source == Source::Seen,
            detail: detail.into(),
        }
    }

    pub(super) fn seen(about: About, detail: impl Into<String>) -> Self {
        Self::new(about, Source::Seen, detail)
    }

    pub(super) fn guessed(about: About, detail: impl Into<String>) -> Self {
        Self::new(about, Source::Guessed, detail)
    }

    /// Returns the word for its source.
    pub(crate) fn mark(&self) -> &'static str {
        if self.seen {
            Source::Seen.word()
        } else {
            Source::Guessed.word()
        }
    }
}
