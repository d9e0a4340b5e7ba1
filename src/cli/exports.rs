//! The reports that a CI system reads.

use std::{io, path::PathBuf};

use crate::report::Exports;

/// A report that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("--junit: cannot write `{}`: {why}", path.display())]
pub(super) struct ExportError {
    path: PathBuf,
    why: io::Error,
}

/// The options of the reports, and what a job of GitHub Actions has in its environment.
#[derive(Debug, clap::Args)]
pub(super) struct ExportArgs {
    /// Write the result as JUnit XML.
    ///
    /// A test case for the verdict, and one for each instance. The file is emptied before anything
    /// is touched, and written at the end.
    #[arg(help_heading = "Output", long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

impl ExportArgs {
    /// Opens the files.
    ///
    /// # Errors
    /// Fails if a file cannot be written.
    pub(super) fn open(self) -> Result<Exports, ExportError> {
        let mut exports = Exports::default();
        if let Some(path) = self.junit {
            exports = exports
                .with_junit(path.clone())
                .map_err(|why| ExportError { path, why })?;
        }
        if std::env::var_os("GITHUB_ACTIONS").is_some_and(|value| value == "true") {
            let step_summary = std::env::var_os("GITHUB_STEP_SUMMARY");
            exports = exports.with_github(step_summary.map(PathBuf::from));
        }
        Ok(exports)
    }
}
