//! Edits that arrived in what a run has exchanged away, through a descriptor that was opened
//! before.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::fd::OwnedFd,
    path::PathBuf,
};

use super::entries::Entries;
use crate::config::{self, MAX_TARGET};

/// One such edit.
#[derive(Debug)]
pub(crate) struct Late {
    /// The target, or the entry of a target.
    pub(crate) path: PathBuf,
    /// Which attribute, or that it is the content.
    pub(crate) what: String,
    /// The bytes that would be lost.
    pub(crate) bytes: Option<Vec<u8>>,
}

/// A file that was exchanged away and is held open.
#[derive(Debug)]
pub(super) struct Old {
    file: File,
    sha256: String,
    entries: Entries,
}

impl Old {
    pub(super) fn new(file: OwnedFd, sha256: &str, entries: Entries) -> Self {
        Self {
            file: file.into(),
            sha256: sha256.into(),
            entries,
        }
    }

    /// What it has become since, at `path`; none where nothing was changed.
    pub(super) fn late(mut self, path: PathBuf) -> Option<Late> {
        let bytes = self.read().ok()?;
        let fd = OwnedFd::from(self.file);
        let changed = Entries::of(&fd)
            .ok()
            .and_then(|now| self.entries.difference(&now));
        match (config::digest(&bytes) == self.sha256, changed) {
            (true, None) => None,
            (true, Some(what)) => Some(Late {
                path,
                what,
                bytes: None,
            }),
            (false, _) => Some(Late {
                path,
                what: "content".into(),
                bytes: Some(bytes),
            }),
        }
    }

    fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity(4096);
        self.file.seek(SeekFrom::Start(0))?;
        (&self.file).take(MAX_TARGET + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}
