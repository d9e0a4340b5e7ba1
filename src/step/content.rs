//! The content of a target, and its digest.

use std::{io, path::Path, sync::Arc};

use rustix::fs::FileType;

use crate::{
    config::{self, MAX_TARGET, ReadError},
    event::TargetKind,
    fleet::url_of,
    tree::Tree,
    trust,
};

/// The content of a file or a directory, and its digest; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// A file's bytes, or a directory as one archive.
    pub bytes: Arc<[u8]>,
    /// Lower-case hex SHA-256 of `bytes`.
    pub sha256: String,
    /// The entries of a directory; none for a file.
    pub tree: Option<Arc<Tree>>,
}

impl Content {
    /// Returns the content of a file.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self {
            sha256: config::digest(&bytes),
            bytes: bytes.into(),
            tree: None,
        }
    }

    /// Returns the content of a directory.
    ///
    /// # Errors
    /// Fails if the archive cannot be written to memory.
    pub fn from_tree(tree: Tree) -> io::Result<Self> {
        let bytes = tree.archive()?;
        Ok(Self {
            tree: Some(Arc::new(tree)),
            ..Self::new(bytes)
        })
    }

    /// Returns the content that an earlier run stored; none if a directory's bytes are no archive.
    #[must_use]
    pub fn from_stored(bytes: Vec<u8>, kind: TargetKind) -> Option<Self> {
        match kind {
            TargetKind::File | TargetKind::Key => Some(Self::new(bytes)),
            TargetKind::Directory => Tree::unpack(&bytes).and_then(Self::from_tree).ok(),
        }
    }

    /// Reads the file or directory at `path`, within the limits of a target.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn read(path: &Path) -> Result<Self, ReadError> {
        let fd = trust::open_named(path)?;
        let mode = rustix::fs::fstat(&fd).map_err(io::Error::from)?.st_mode;
        // Anything but a directory is read as a file, which refuses devices and pipes.
        if FileType::from_raw_mode(mode) != FileType::Directory {
            return config::read_fd(fd, MAX_TARGET).map(Self::new);
        }
        Ok(Self::from_tree(Tree::read(&fd, &mut |_, _| Ok(()))?)?)
    }

    /// Returns the bytes of a file; none of a directory.
    #[must_use]
    pub fn file(&self) -> Option<&[u8]> {
        self.tree.is_none().then_some(&*self.bytes)
    }

    /// Tells whether this is a file or a directory.
    #[must_use]
    pub fn kind(&self) -> TargetKind {
        if self.tree.is_some() {
            TargetKind::Directory
        } else {
            TargetKind::File
        }
    }
}

/// Returns the kind of the target at `path`, which has this content. A key has that of a file.
#[must_use]
pub(crate) fn kind_of(path: &Path, content: &Content) -> TargetKind {
    match url_of(path) {
        Some(_) => TargetKind::Key,
        None => content.kind(),
    }
}

/// Returns the first 12 digits of a digest, which are enough to tell configs apart by eye.
#[must_use]
pub(crate) fn short(sha256: &str) -> &str {
    sha256.get(..12).unwrap_or(sha256)
}
