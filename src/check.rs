//! `hello check`: whether `hello serve` would accept a file, by the same reader and parser.

use std::path::Path;

use crate::config::{self, MAX_CONFIG, ReadError};

/// Why the server would not accept the file.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum CheckError {
    /// The file cannot be read, so nothing is known of its content.
    #[error("{0}")]
    Unreadable(String),
    /// The file was read and is not a valid config.
    #[error("{text}")]
    Invalid {
        /// The error in one line.
        text: String,
        /// The error with the line of the file that it is in.
        rendered: String,
    },
}

/// Checks the file at `path`, and returns its digest.
///
/// # Errors
/// Fails if the file cannot be read or is not a valid config.
pub(crate) fn check(path: &Path) -> Result<String, CheckError> {
    let bytes = config::read(path, MAX_CONFIG).map_err(|e| match e {
        ReadError::Io(e) => {
            CheckError::Unreadable(format!("cannot read `{}`: {e}", path.display()))
        }
        ReadError::Unacceptable(why) => {
            let text = format!("`{}`: {why}", path.display());
            CheckError::Invalid {
                rendered: text.clone(),
                text,
            }
        }
    })?;
    config::parse(&bytes).map_err(|e| CheckError::Invalid {
        text: format!("`{}`: {e}", path.display()),
        rendered: e.render(path, &bytes),
    })?;
    Ok(config::digest(&bytes))
}
