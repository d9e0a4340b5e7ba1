//! Late edits: changes to a file or directory after the run exchanged it away, through a descriptor
//! that a process opened before.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::fd::OwnedFd,
    path::PathBuf,
};

use super::entries::Entries;
use crate::config::{self, MAX_TARGET};

/// One late edit.
#[derive(Debug)]
pub(crate) struct LateEdit {
    /// The target, or the entry of a target.
    pub(crate) path: PathBuf,
    /// The attribute that changed, or "content".
    pub(crate) what: String,
    /// The bytes that would be lost.
    pub(crate) bytes: Option<Vec<u8>>,
}

/// A file that was exchanged away and is held open.
#[derive(Debug)]
pub(super) struct ReplacedFile {
    file: File,
    sha256: String,
    entries: Entries,
}

impl ReplacedFile {
    pub(super) fn new(file: OwnedFd, sha256: &str, entries: Entries) -> Self {
        Self {
            file: file.into(),
            sha256: sha256.into(),
            entries,
        }
    }

    /// Returns the edit since then, for a target at `path`; none if nothing changed.
    pub(super) fn late_edit(mut self, path: PathBuf) -> Option<LateEdit> {
        let bytes = self.read().ok()?;
        let fd = OwnedFd::from(self.file);
        let changed = Entries::of(&fd)
            .ok()
            .and_then(|now| self.entries.difference(&now));
        if config::digest(&bytes) != self.sha256 {
            return Some(LateEdit {
                path,
                what: "content".into(),
                bytes: Some(bytes),
            });
        }
        changed.map(|what| LateEdit {
            path,
            what,
            bytes: None,
        })
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(4096);
        self.file.seek(SeekFrom::Start(0))?;
        (&self.file).take(MAX_TARGET + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}
