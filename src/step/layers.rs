//! The file below the key of a store: `hello serve` merges both.

use std::{path::PathBuf, sync::Arc};

use crate::{
    config::{Config, Layer},
    diagnostic::ConfigError,
};

/// A file that an instance reads besides its target, which is a key and lies over it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileLayer {
    /// Its path, as the instance names it.
    pub path: PathBuf,
    /// Its bytes at the survey, which the instance runs.
    pub bytes: Arc<[u8]>,
    /// The digest of the bytes.
    pub sha256: String,
}

/// Why layers are no config.
#[derive(Debug)]
pub(crate) enum LayersError {
    /// The file is not valid.
    File(ConfigError),
    /// The value of the key is not valid.
    Key(ConfigError),
    /// No layer gives `message`.
    NoMessage,
}

impl FileLayer {
    /// Merges the value of a key over the file, as the server does.
    ///
    /// # Errors
    /// Fails if a layer is not valid, or if they are no config together.
    pub(crate) fn merged(file: Option<&Self>, value: &[u8]) -> Result<Config, LayersError> {
        let under = file
            .map(|file| Layer::parse(&file.bytes))
            .transpose()
            .map_err(LayersError::File)?;
        let over = Layer::parse(value).map_err(LayersError::Key)?;
        Layer::merged(under.into_iter().chain([over])).ok_or(LayersError::NoMessage)
    }
}
