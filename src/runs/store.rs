//! The bytes of configs, each once: `bytes/SHA256`, and a hard link to it in the folder of every
//! run that needs it. Where links are not to be had it is a copy.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::state_dir;
use crate::{config, step::Content};

/// Largest content that is read back, in bytes: a directory's archive has a head for every entry
/// besides what is in it.
const MAX_STORED: u64 = 4 * config::MAX_TARGET;

/// More new contents than these are synced with their whole filesystem, which may have other things
/// to write.
const SINGLY: usize = 8;

/// Where the bytes of `state` are.
pub(super) fn folder_of(state: &Path) -> PathBuf {
    state.join("bytes")
}

/// The bytes of an earlier run's config, by digest; none where they are not kept any more, or are
/// not what they were.
#[must_use]
pub fn stored(state: &Path, sha256: &str) -> Option<Vec<u8>> {
    let bytes = config::read(&folder_of(state).join(sha256), MAX_STORED).ok()?;
    (config::digest(&bytes) == sha256).then_some(bytes)
}

/// What a run adds to the store: in its own folder already, and not yet for others.
#[derive(Debug)]
pub(super) struct Fresh<'a> {
    /// Open until it is synced, unless there are many.
    pub(super) file: Option<File>,
    blob: &'a Content,
}

/// Gives the run whose folder is `dir` all of `blobs`: a link to what is stored already, and the
/// rest as new files that are not yet synced.
pub(super) fn take<'a>(
    state: &Path,
    dir: &Path,
    blobs: &BTreeMap<&str, &'a Content>,
) -> io::Result<Vec<Fresh<'a>>> {
    let mut fresh = Vec::new();
    for (sha256, blob) in blobs {
        let (kept, own) = (folder_of(state).join(sha256), dir.join(sha256));
        // One that somebody else takes away in between is a new one.
        if !is(&kept, &blob.bytes) || std::fs::hard_link(&kept, &own).is_err() {
            let file = state_dir::create(&own, &blob.bytes)?;
            fresh.push(Fresh {
                file: (fresh.len() < SINGLY).then_some(file),
                blob,
            });
        }
    }
    Ok(fresh)
}

/// Stores what the run at `dir` has brought, which is synced by now.
pub(super) fn publish(state: &Path, dir: &Path, fresh: &[Fresh<'_>]) -> io::Result<()> {
    let bytes = folder_of(state);
    for Fresh { blob, .. } in fresh {
        let (kept, own) = (bytes.join(&blob.sha256), dir.join(&blob.sha256));
        match std::fs::hard_link(&own, &kept) {
            Ok(()) => continue,
            // Another run was faster; only what is not what its name says is written again.
            Err(_) if is(&kept, &blob.bytes) => continue,
            Err(_) => {}
        }
        let run = dir.file_name().unwrap_or_default().display();
        state_dir::replace(
            &kept,
            &bytes.join(format!(".{}.{run}", blob.sha256)),
            &blob.bytes,
        )?;
    }
    Ok(())
}

/// Whether the file at `path` has exactly these bytes.
fn is(path: &Path, wanted: &[u8]) -> bool {
    let same_size = path
        .symlink_metadata()
        .is_ok_and(|meta| meta.is_file() && meta.len() == wanted.len() as u64);
    same_size && config::read(path, MAX_STORED).is_ok_and(|bytes| bytes == wanted)
}

/// Takes away the bytes of this digest if no run has them any more; answers whether it did. Whoever
/// calls holds the lock of the store.
pub(super) fn drop_unused(state: &Path, sha256: &str) -> io::Result<bool> {
    let kept = folder_of(state).join(sha256);
    let Ok(meta) = kept.symlink_metadata() else {
        return Ok(false);
    };
    // Where links are not to be had, a run has a copy.
    if meta.nlink() > 1
        || state_dir::names(&state.join("runs"))?
            .iter()
            .any(|run| state.join("runs").join(run).join(sha256).exists())
    {
        return Ok(false);
    }
    std::fs::remove_file(kept)?;
    Ok(true)
}
