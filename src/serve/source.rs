//! Where the config of the server comes from: a file, a key in a store, or both.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::failure::Failure;
use crate::{
    config::{self, Config, Layer, MAX_CONFIG},
    diagnostic::ConfigError,
    fleet::Key,
    host::store,
    screen,
    self_report::{LayerOrigin, LayerReport},
};

/// The layers of the config. The store lies over the file.
#[derive(Debug, Clone)]
pub(super) struct ConfigSource {
    file: Option<PathBuf>,
    store: Option<Key>,
    /// A file with the value that a key would have; only `hello check` has one.
    over: Option<PathBuf>,
}

/// A config, and the bytes that it was parsed from.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) config: Config,
    /// The digest of all layers.
    pub(super) sha256: String,
    /// The layers, the first below the others.
    pub(super) layers: Vec<LayerReport>,
}

/// What was read in one attempt.
#[derive(Debug)]
pub(super) struct Reading {
    /// The layers that were read, also those of a config that is not valid.
    pub(super) layers: Vec<LayerReport>,
    /// The digest of all layers; none if one was not read.
    pub(super) sha256: Option<String>,
    pub(super) result: Result<Config, LoadError>,
}

/// Why there is no new config.
#[derive(Debug)]
pub(super) enum LoadError {
    /// A layer could not be read: its place, and the reason.
    Unread { origin: LayerOrigin, why: String },
    /// A layer is not valid, or all of them together are not.
    Invalid {
        /// In one line.
        text: String,
        /// With the line of the layer that it is in.
        rendered: String,
    },
}

/// The bytes of one layer.
struct Content {
    origin: LayerOrigin,
    bytes: Vec<u8>,
    rev: Option<String>,
}

impl Content {
    fn report(&self) -> LayerReport {
        LayerReport {
            origin: self.origin.clone(),
            sha256: config::digest(&self.bytes),
            rev: self.rev.clone(),
        }
    }
}

impl ConfigSource {
    /// The path becomes absolute, because the self-report names it.
    pub(super) fn new(file: Option<&Path>, store: Option<Key>) -> io::Result<Self> {
        Ok(Self {
            file: file.map(std::path::absolute).transpose()?,
            store,
            over: None,
        })
    }

    /// Returns the same layers with the value of a key in the file `over`, instead of a store.
    pub(super) fn with_value(self, over: PathBuf) -> Self {
        Self {
            over: Some(over),
            ..self
        }
    }

    /// Returns true if a read needs an answer of a store.
    pub(super) fn has_store(&self) -> bool {
        self.store.is_some()
    }

    /// Returns the place of each layer.
    pub(super) fn origins(&self) -> Vec<LayerOrigin> {
        let file = self.file.iter().cloned().map(LayerOrigin::Path);
        let store = self
            .store
            .iter()
            .map(|key| LayerOrigin::Url(key.url.clone()));
        file.chain(store).collect()
    }

    /// Returns the path of the file; empty without one.
    pub(super) fn path(&self) -> PathBuf {
        self.file.clone().unwrap_or_default()
    }

    /// Reads a config that is in files alone.
    pub(super) fn read(&self) -> Reading {
        let files = self.file.iter().chain(&self.over);
        self.reading(files.map(|path| read_file(path)).collect())
    }

    /// Tells whether a file is one layer of several, which may leave out keys.
    fn has_layers(&self) -> bool {
        self.has_store() || self.over.is_some()
    }

    /// Reads every layer. The store has the deadline of its access.
    pub(super) async fn read_all(&self) -> Reading {
        let mut contents: Vec<_> = self.file.iter().map(|path| read_file(path)).collect();
        if let Some(key) = &self.store {
            contents.push(read_key(key).await);
        }
        self.reading(contents)
    }

    fn reading(&self, contents: Vec<Result<Content, LoadError>>) -> Reading {
        let mut layers = Vec::new();
        let mut parsed = Vec::new();
        let mut error = None;
        for content in contents {
            match content {
                Ok(content) => {
                    layers.push(content.report());
                    match self.parse(&content) {
                        Ok(layer) => parsed.push(layer),
                        Err(invalid) => drop(error.get_or_insert(invalid)),
                    }
                }
                // It comes before a fault in another layer: nothing is known of this one.
                Err(unread) => {
                    return Reading {
                        layers,
                        sha256: None,
                        result: Err(unread),
                    };
                }
            }
        }
        let merged = || {
            Layer::merged(parsed).ok_or_else(|| {
                let text = "no layer gives `message`".to_owned();
                LoadError::Invalid {
                    rendered: text.clone(),
                    text,
                }
            })
        };
        Reading {
            sha256: Some(config::digest_of_layers(
                layers.iter().map(|layer| layer.sha256.as_str()),
            )),
            layers,
            result: error.map_or_else(merged, Err),
        }
    }

    /// Parses a layer. A file alone is a whole config, and its errors say so.
    fn parse(&self, content: &Content) -> Result<Layer, LoadError> {
        let place = place(&content.origin);
        let invalid = |why: ConfigError| LoadError::Invalid {
            text: if self.has_layers() {
                format!("{place}: {why}")
            } else {
                why.to_string()
            },
            rendered: why.render(Path::new(&place), &content.bytes),
        };
        if self.has_layers() {
            Layer::parse(&content.bytes).map_err(invalid)
        } else {
            config::parse(&content.bytes)
                .map(Layer::from)
                .map_err(invalid)
        }
    }
}

impl Reading {
    /// Returns the config that a server starts with.
    ///
    /// # Errors
    /// Fails if a layer could not be read or is not valid; the error shows its line.
    pub(super) fn loaded(self) -> Result<Loaded, Failure> {
        let sha256 = self.sha256.unwrap_or_default();
        match self.result {
            Ok(config) => Ok(Loaded {
                config,
                sha256,
                layers: self.layers,
            }),
            Err(LoadError::Unread { origin, why }) => Err(match origin {
                LayerOrigin::Path(path) => Failure::Unreadable(path, why),
                LayerOrigin::Url(url) => Failure::Store(url, why),
            }),
            Err(LoadError::Invalid { rendered, .. }) => Err(Failure::Invalid(rendered)),
        }
    }
}

/// Returns the path or the URL of a layer.
pub(super) fn place(origin: &LayerOrigin) -> String {
    match origin {
        LayerOrigin::Path(path) => path.display().to_string(),
        LayerOrigin::Url(url) => url.clone(),
    }
}

fn read_file(path: &Path) -> Result<Content, LoadError> {
    let origin = LayerOrigin::Path(path.into());
    match config::read(path, MAX_CONFIG) {
        Ok(bytes) => Ok(Content {
            origin,
            bytes,
            rev: None,
        }),
        Err(e) => Err(LoadError::Unread {
            origin,
            why: e.to_string(),
        }),
    }
}

/// Reads the value of a key. A key that is missing or empty may be that of a store that lost its
/// data, so it is no layer.
async fn read_key(key: &Key) -> Result<Content, LoadError> {
    let origin = LayerOrigin::Url(key.url.clone());
    let why = match store::get(key).await {
        Ok(Some(value)) if value.bytes.len() as u64 > MAX_CONFIG => {
            format!("the value is larger than {MAX_CONFIG} bytes")
        }
        Ok(Some(value)) if value.bytes.is_empty() => "the value is empty".into(),
        Ok(Some(value)) => {
            return Ok(Content {
                origin,
                bytes: value.bytes,
                rev: Some(value.rev.to_string()),
            });
        }
        Ok(None) => "the store has no such key".into(),
        Err(e) => e.to_string(),
    };
    // An answer of a store may repeat anything.
    let why = screen::line(&why).into_owned();
    Err(LoadError::Unread { origin, why })
}
