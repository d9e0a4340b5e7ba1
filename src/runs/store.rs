//! The contents of configs, each once: `bytes/SHA256`, and a hard link to it in the folder of every
//! run that needs it. On a filesystem without hard links it is a copy.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{info, interrupted::plan_targets, layout, state_dir};
use crate::{config, event::TargetReport, step::Content};

/// Largest content that is read back, in bytes. The archive of a directory has a header for every
/// entry besides its bytes.
const MAX_STORED: u64 = 4 * config::MAX_TARGET;

/// Most new contents that are synced one by one. More are synced with their whole filesystem, which
/// may have other files to write.
const SINGLY: usize = 8;

/// Returns the folder of all contents.
pub(super) fn folder_of(state: &Path) -> PathBuf {
    state.join("bytes")
}

/// Returns the bytes of an earlier run's config, by digest; none where they are not kept any more,
/// or have changed.
#[must_use]
pub(crate) fn stored(state: &Path, sha256: &str) -> Option<Vec<u8>> {
    let bytes = config::read(&folder_of(state).join(sha256), MAX_STORED).ok()?;
    (config::digest(&bytes) == sha256).then_some(bytes)
}

/// The use of a stored content by a target of a run.
#[derive(Debug)]
pub(crate) struct ContentUse {
    /// The run's id.
    pub run: String,
    /// The target, which had the content before or after the run.
    pub target: TargetReport,
}

/// Returns every use of a content, oldest first.
///
/// # Errors
/// Fails if the state directory cannot be read.
pub(crate) fn uses(state: &Path, sha256: &str) -> io::Result<Vec<ContentUse>> {
    let mut uses = Vec::new();
    for run in info::run_ids(state)? {
        // Every run links the contents that it needs, so that other plans need not be read.
        if !layout::folder_of(state, &run).join(sha256).exists() {
            continue;
        }
        let has_it = |t: &TargetReport| t.to == sha256 || t.from.as_deref() == Some(sha256);
        let targets = plan_targets(state, &run).into_iter().filter(has_it);
        uses.extend(targets.map(|target| ContentUse {
            run: run.clone(),
            target,
        }));
    }
    Ok(uses)
}

/// Tells whether a content must not be shown, as the runs that used it recorded; none if none did.
#[must_use]
pub(crate) fn is_secret(uses: &[ContentUse]) -> Option<bool> {
    let recorded = uses.iter().filter_map(|one| one.target.secret);
    recorded.reduce(|any, secret| any || secret)
}

/// A content that a run adds to the store: already in its own folder, and not yet in the store.
#[derive(Debug)]
pub(super) struct Fresh<'a> {
    /// Open until it is synced; closed where there are many.
    pub(super) file: Option<File>,
    content: &'a Content,
}

/// Puts all of `contents` into `dir`, the folder of a run: links to stored contents, and new files
/// for the others. Returns the new files, not yet synced.
pub(super) fn take<'a>(
    state: &Path,
    dir: &Path,
    contents: &BTreeMap<&str, &'a Content>,
) -> io::Result<Vec<Fresh<'a>>> {
    let mut fresh = Vec::new();
    for (sha256, content) in contents {
        let (kept, own) = (folder_of(state).join(sha256), dir.join(sha256));
        // Another command may remove the stored content in between; it is a new one then.
        if !is(&kept, &content.bytes) || std::fs::hard_link(&kept, &own).is_err() {
            let file = state_dir::create(&own, &content.bytes)?;
            fresh.push(Fresh {
                file: (fresh.len() < SINGLY).then_some(file),
                content,
            });
        }
    }
    Ok(fresh)
}

/// Adds the synced new contents of the run at `dir` to the store.
pub(super) fn publish(state: &Path, dir: &Path, fresh: &[Fresh<'_>]) -> io::Result<()> {
    let bytes = folder_of(state);
    for Fresh { content, .. } in fresh {
        let (kept, own) = (bytes.join(&content.sha256), dir.join(&content.sha256));
        match std::fs::hard_link(&own, &kept) {
            Ok(()) => continue,
            // Another run was faster. A stored content is written again only if its bytes are
            // wrong.
            Err(_) if is(&kept, &content.bytes) => continue,
            Err(_) => {}
        }
        let run = dir.file_name().unwrap_or_default().display();
        state_dir::replace(
            &kept,
            &bytes.join(format!(".{}.{run}", content.sha256)),
            &content.bytes,
        )?;
    }
    Ok(())
}

/// Returns true if the file at `path` has exactly these bytes.
fn is(path: &Path, wanted: &[u8]) -> bool {
    let same_size = path
        .symlink_metadata()
        .is_ok_and(|meta| meta.is_file() && meta.len() == wanted.len() as u64);
    same_size && config::read(path, MAX_STORED).is_ok_and(|bytes| bytes == wanted)
}

/// Removes a content if no run has it any more. Returns true if it did. The caller holds the lock
/// of the store.
pub(super) fn drop_unused(state: &Path, sha256: &str) -> io::Result<bool> {
    let kept = folder_of(state).join(sha256);
    let Ok(meta) = kept.symlink_metadata() else {
        return Ok(false);
    };
    // On a filesystem without hard links, a run has a copy.
    if meta.nlink() > 1
        || state_dir::names(&state.join("runs"))?
            .iter()
            .any(|run| layout::folder_of(state, run).join(sha256).exists())
    {
        return Ok(false);
    }
    std::fs::remove_file(kept)?;
    Ok(true)
}
