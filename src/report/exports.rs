//! The reports that a CI system reads, besides the screen and stdout.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use rustix::fs::OFlags;

use super::{
    Summary, github,
    junit::{self, Origin},
};
use crate::screen;

/// What a run leaves for a CI system.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exports {
    junit: Option<Export>,
    /// True in a job of GitHub Actions.
    annotates: bool,
    step_summary: Option<PathBuf>,
}

/// A file that is empty until the run has ended. A reader of an empty one fails, and does not take
/// the report of an earlier run for that of this one.
#[derive(Debug, Clone)]
struct Export {
    path: PathBuf,
    file: Arc<File>,
}

impl Exports {
    /// Adds a JUnit report, and empties its file.
    ///
    /// # Errors
    /// Fails if the file cannot be written, or is a symbolic link.
    pub(crate) fn with_junit(mut self, path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)?;
        let file = Arc::new(file);
        self.junit = Some(Export { path, file });
        Ok(self)
    }

    /// Adds annotations for GitHub Actions, and a step summary if the job has a file for it.
    #[must_use]
    pub(crate) fn with_github(mut self, step_summary: Option<PathBuf>) -> Self {
        self.annotates = true;
        self.step_summary = step_summary;
        self
    }

    /// Returns the lines for the log of the job.
    pub(super) fn annotations(&self, summary: &Summary) -> Vec<String> {
        if self.annotates {
            github::annotations(summary)
        } else {
            Vec::new()
        }
    }

    /// Writes every file. An error is remembered as one of the output.
    pub(super) fn write(&self, summary: &Summary, elapsed: Duration) {
        if let Some(Export { path, file }) = &self.junit {
            let document = junit::document(summary, &origin(elapsed)).map_err(io::Error::other);
            let written = document.and_then(|xml| file.as_ref().write_all(xml.as_bytes()));
            if let Err(e) = written {
                screen::note_unwritten_file(path, &e);
            }
        }
        if let Some(path) = &self.step_summary {
            let written = OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .and_then(|mut file| file.write_all(github::step_summary(summary).as_bytes()));
            if let Err(e) = written {
                screen::note_unwritten_file(path, &e);
            }
        }
    }
}

fn origin(elapsed: Duration) -> Origin {
    let host = rustix::system::uname();
    Origin {
        timestamp: jiff::Zoned::now().strftime("%Y-%m-%dT%H:%M:%S").to_string(),
        hostname: host.nodename().to_string_lossy().into_owned(),
        elapsed,
    }
}
