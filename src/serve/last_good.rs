//! The config that was applied last, kept in a directory: a server whose store is away at its start
//! serves that one.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    failure::Failure,
    source::{ConfigSource, Loaded, Reading},
};
use crate::{
    config, runs, runtime,
    self_report::{LayerOrigin, LayerReport},
    trust::ResolvedPath,
};

/// The name of the file.
const NAME: &str = "last-good.json";

/// The largest file that is read, in bytes: a config of 1 MiB in JSON, where a byte may become six.
const LIMIT: u64 = 8 << 20;

/// The version of the file.
const VERSION: u32 = 1;

/// The directory that the config is kept in.
#[derive(Debug)]
pub(super) struct LastGood(PathBuf);

/// The file: a config, and the layers that it was merged from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Kept {
    v: u32,
    sha256: String,
    layers: Vec<LayerReport>,
    /// The merged config, in TOML.
    config: String,
}

impl Kept {
    /// Returns the config that was read; none if it is not valid.
    pub(super) fn of(reading: &Reading) -> Option<Self> {
        let config = reading.result.as_ref().ok()?;
        Self::new(config, reading.sha256.as_ref()?, &reading.layers)
    }

    /// Returns the config that a server has loaded.
    pub(super) fn of_loaded(loaded: &Loaded) -> Option<Self> {
        Self::new(&loaded.config, &loaded.sha256, &loaded.layers)
    }

    fn new(config: &config::Config, sha256: &str, layers: &[LayerReport]) -> Option<Self> {
        Some(Self {
            v: VERSION,
            sha256: sha256.into(),
            layers: layers.into(),
            config: config.to_toml().ok()?,
        })
    }
}

impl LastGood {
    /// Opens the directory, and makes it if it is missing.
    ///
    /// # Errors
    /// Fails if it cannot be made, or if another user can write it.
    pub(super) fn open(dir: &Path) -> Result<Self, Failure> {
        let failed = |why: String| Failure::LastGood(dir.into(), why);
        fs::create_dir_all(dir).map_err(|e| failed(e.to_string()))?;
        let resolved = ResolvedPath::of(dir).map_err(|e| failed(e.to_string()))?;
        resolved.is_trusted().map_err(|e| failed(e.to_string()))?;
        Ok(Self(resolved.end))
    }

    /// Keeps a config, on a thread of its own. A config that cannot be kept is served all the same.
    pub(super) async fn keep(&self, kept: Kept) {
        let dir = self.0.clone();
        if let Err(error) = runtime::off_thread(move || write(&dir, &kept)).await {
            let dir = self.0.display();
            tracing::error!(%error, "the config is not kept in `{dir}` as the last good one");
        }
    }

    /// Reads the config that was kept for these layers.
    ///
    /// # Errors
    /// Fails if there is none, if it is of other layers, or if it cannot be read.
    pub(super) fn load(&self, source: &ConfigSource) -> Result<Loaded, Failure> {
        let path = self.0.join(NAME);
        let failed = |why: String| Failure::LastGood(path.clone(), why);
        let bytes = config::read(&path, LIMIT).map_err(|e| failed(e.to_string()))?;
        let kept: Kept = serde_json::from_slice(&bytes).map_err(|e| failed(e.to_string()))?;
        if kept.v != VERSION {
            return Err(failed("it is of another version".into()));
        }
        let origins: Vec<&LayerOrigin> = kept.layers.iter().map(|layer| &layer.origin).collect();
        if origins != source.origins().iter().collect::<Vec<_>>() {
            return Err(failed("it is of another file or another key".into()));
        }
        let config = config::parse(kept.config.as_bytes()).map_err(|e| failed(e.to_string()))?;
        Ok(Loaded {
            config,
            sha256: kept.sha256,
            layers: kept.layers,
        })
    }
}

/// Exchanges the file in one step, and syncs it.
fn write(dir: &Path, kept: &Kept) -> io::Result<()> {
    let staged = dir.join(format!("{NAME}.new"));
    // Only its owner may read it: the message may be a secret.
    runs::replace(&dir.join(NAME), &staged, &serde_json::to_vec(kept)?)?;
    runs::sync(dir)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    fn kept(message: &str) -> Kept {
        Kept {
            v: VERSION,
            sha256: "1".repeat(64),
            layers: vec![LayerReport {
                origin: LayerOrigin::Path("/a.toml".into()),
                sha256: "1".repeat(64),
                rev: None,
            }],
            config: format!("message = {message:?}\n"),
        }
    }

    #[test]
    fn the_config_that_was_kept_last_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let last_good = LastGood::open(dir.path()).unwrap();
        for message in ["one", "two"] {
            write(dir.path(), &kept(message)).unwrap();
        }
        let source = ConfigSource::new(Some(Path::new("/a.toml")), None).unwrap();
        let loaded = last_good.load(&source).unwrap();
        assert_eq!(loaded.config.message, "two");
        assert_eq!(loaded.sha256, "1".repeat(64));
    }

    #[test]
    fn the_config_of_another_file_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let last_good = LastGood::open(dir.path()).unwrap();
        write(dir.path(), &kept("one")).unwrap();
        let source = ConfigSource::new(Some(Path::new("/b.toml")), None).unwrap();
        let why = last_good.load(&source).unwrap_err().to_string();
        assert!(why.contains("of another file"), "{why}");
    }
}
