//! The lines that were written to a log since a signal.

use std::sync::Arc;

use super::{LogError, syslog::Tag};
use crate::assertion::Assertion;

/// The most bytes that are read of one log after a signal, until the instance is proven. A reload
/// writes some lines; 16 MiB hold a burst of debug output.
pub(super) const MAX_READ: u64 = 16 << 20;

/// The lines of a log since the last signal of an instance.
#[derive(Debug, Clone, Default)]
pub(crate) struct LogReading {
    text: Arc<String>,
    /// True if the file was cut to its beginning since the signal: what was written between the
    /// copy and the cut is in no file that is read.
    pub(super) is_cut: bool,
    /// The files that it was read from, if there are several.
    files: Option<Arc<str>>,
}

impl LogReading {
    /// Names the files that it was read from, if there are several.
    pub(crate) fn files(&self) -> Option<&str> {
        self.files.as_deref()
    }

    /// Returns the line that `assertion` is about: the first that it holds for, else the last one;
    /// empty without a line.
    pub(crate) fn line(&self, assertion: &Assertion) -> String {
        let fitting = self.text.lines().find(|line| assertion.holds_alone(line));
        let line = fitting.or_else(|| self.text.lines().next_back());
        line.unwrap_or_default().to_owned()
    }

    /// Tells whether nothing was written since the signal.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Tells whether the file was cut to its beginning since the signal.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Returns the last lines, at most `most`, of at most `bytes` in all.
    pub(super) fn last(&self, most: usize, bytes: usize) -> Vec<String> {
        let mut left = bytes;
        let mut lines: Vec<String> = Vec::new();
        for line in self
            .text
            .lines()
            .rev()
            .filter(|line| !line.trim().is_empty())
        {
            let kept = line.floor_char_boundary(left.min(line.len()));
            if lines.len() == most || kept == 0 {
                break;
            }
            left -= kept;
            lines.push(line[..kept].to_owned());
        }
        lines.reverse();
        lines
    }
}

/// Collects the lines of one log.
#[derive(Debug)]
pub(super) struct Tail {
    /// The log, for a message.
    name: String,
    /// The entries that count; all where there is none.
    tag: Option<Tag>,
    text: Arc<String>,
    read: u64,
    is_proven: bool,
    pub(super) is_cut: bool,
}

impl Tail {
    /// Returns the tail of the log that a message calls `name`.
    pub(super) fn new(name: String, tag: Option<Tag>) -> Self {
        Self {
            name,
            tag,
            text: Arc::default(),
            read: 0,
            is_proven: false,
            is_cut: false,
        }
    }

    /// Begins a look. Once the instance is proven, each look has only its own lines.
    pub(super) fn begin(&mut self) {
        if self.is_proven {
            self.text = Arc::default();
            self.read = 0;
        }
    }

    /// Tells whether the instance has proven its config.
    pub(super) fn is_proven(&self) -> bool {
        self.is_proven
    }

    /// Records that the instance has proven its config.
    pub(super) fn prove(&mut self) {
        self.is_proven = true;
        self.begin();
    }

    /// Counts bytes that were read.
    ///
    /// # Errors
    /// Fails if they are more than are read of one log.
    pub(super) fn count(&mut self, bytes: usize) -> Result<(), LogError> {
        self.read = self.read.saturating_add(bytes as u64);
        if self.read > MAX_READ {
            return Err(LogError::TooLong {
                log: self.name.clone(),
                max: MAX_READ,
            });
        }
        Ok(())
    }

    /// Adds a whole line, if it is one of the instance.
    pub(super) fn add(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        if self.tag.as_ref().is_none_or(|tag| tag.fits(&line)) {
            let text = Arc::make_mut(&mut self.text);
            text.push_str(&line);
            text.push('\n');
        }
    }

    /// Returns the lines so far.
    pub(super) fn reading(&self) -> LogReading {
        LogReading {
            text: self.text.clone(),
            is_cut: self.is_cut,
            files: self
                .name
                .contains(" and ")
                .then(|| self.name.as_str().into()),
        }
    }
}
