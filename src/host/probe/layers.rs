//! The layers that an instance reports, where its target is a key of a store.

use std::{
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    config::{self, MAX_CONFIG, ReadError},
    fleet::Key,
    refusal::Refusal,
    self_report::{LayerOrigin, LayerReport, SelfReport},
    step::{FileLayer, short},
};

/// Why the layers of an instance cannot be judged. The text has no subject.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoLayers {
    #[error("does not read `{url}`; it reads {}", if .layers.is_empty() {
        "one file"
    } else {
        layers.as_str()
    })]
    OtherKey { url: String, layers: String },
    #[error("the file below its key cannot be read: `{}`: {}", .0.display(), .1)]
    Unreadable(PathBuf, ReadError),
    #[error("the file below its key belongs to uid {owner}, which is not its user: `{}`",
            .path.display())]
    OtherOwner { path: PathBuf, owner: u32 },
    #[error(
        "runs {} of the file below its key, and `{}` is {} by now: a reload would load that too",
        short(.runs), .path.display(), short(.disk)
    )]
    Changed {
        path: PathBuf,
        runs: String,
        disk: String,
    },
}

/// Returns the layer of a key in the config that an instance serves.
///
/// # Errors
/// Fails if it reads another key, or none.
pub(crate) fn key_layer<'a>(
    report: &'a SelfReport,
    key: &Key,
) -> Result<&'a LayerReport, NoLayers> {
    let layers = &report.effective.layers;
    let is_key = |layer: &&LayerReport| layer.origin == LayerOrigin::Url(key.url.clone());
    layers.iter().find(is_key).ok_or_else(|| {
        let names: Vec<String> = layers.iter().map(name).collect();
        NoLayers::OtherKey {
            url: key.url.clone(),
            layers: names.join(" and "),
        }
    })
}

fn name(layer: &LayerReport) -> String {
    match &layer.origin {
        LayerOrigin::Path(path) => format!("`{}`", path.display()),
        LayerOrigin::Url(url) => format!("`{url}`"),
    }
}

/// Returns the file below the key of an instance, which must be the one that it runs. None if its
/// config comes from the key alone.
///
/// # Errors
/// Fails if the file cannot be read, or was changed since the instance loaded it.
pub(crate) fn file_layer(
    report: &SelfReport,
    pid: i32,
) -> Result<Option<Arc<FileLayer>>, Refusal<NoLayers>> {
    let file = report.effective.layers.iter().find_map(|layer| {
        let LayerOrigin::Path(path) = &layer.origin else {
            return None;
        };
        Some((path, &layer.sha256))
    });
    let Some((path, runs)) = file else {
        return Ok(None);
    };
    let bytes = read(path, pid)?;
    let sha256 = config::digest(&bytes);
    if sha256 != *runs {
        let why = NoLayers::Changed {
            path: path.clone(),
            runs: runs.clone(),
            disk: sha256,
        };
        return Err(Refusal::from(why)
            .with_hint("restore it, or adopt it first by a group whose `config` is that file"));
    }
    Ok(Some(Arc::new(FileLayer {
        path: path.clone(),
        bytes: bytes.into(),
        sha256,
    })))
}

/// Reads the file as the process sees it. Its path is the word of the process: a file of root that
/// not every user may read must not be read for it.
fn read(path: &Path, pid: i32) -> Result<Vec<u8>, NoLayers> {
    let failed = |e: ReadError| NoLayers::Unreadable(path.to_owned(), e);
    let io = |e: io::Error| failed(e.into());
    let seen = PathBuf::from(format!("/proc/{pid}/root"));
    let user = seen.parent().unwrap_or(&seen).metadata().map_err(io)?.uid();
    let seen = seen.join(path.strip_prefix("/").unwrap_or(path));
    let meta = seen.metadata().map_err(io)?;
    if user != 0 && meta.uid() != user && meta.mode() & 0o004 == 0 {
        return Err(NoLayers::OtherOwner {
            path: path.to_owned(),
            owner: meta.uid(),
        });
    }
    config::read(&seen, MAX_CONFIG).map_err(failed)
}
