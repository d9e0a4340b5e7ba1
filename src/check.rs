//! `hello check`: would `hello serve` take this file? The same reader and the same parser.

use std::path::Path;

use crate::config::{self, MAX_CONFIG, ReadError};

/// Why it would not.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The file cannot be read: nothing is known of its content.
    #[error("{0}")]
    Unreadable(String),
    /// It was looked at and is no config.
    #[error("{text}")]
    Invalid {
        /// One line.
        text: String,
        /// With the faulty line itself.
        rendered: String,
    },
}

/// Checks `path`; answers its digest.
///
/// # Errors
/// See [`CheckError`].
pub fn check(path: &Path) -> Result<String, CheckError> {
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
