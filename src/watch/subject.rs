//! The subjects of a watch: where the wanted content of a group stands.

use std::{
    cmp::Ordering,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    content::{self, Digest},
    places::Places,
};
use crate::fleet::Key;

/// Something whose content decides what the instances of a group must run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// A file or a directory.
    Path {
        /// As a process or the fleet names it. Its links are followed at each read.
        named: PathBuf,
        /// The directives by which the file includes others.
        includes: Vec<String>,
    },
    /// A key of a store.
    Key(KeySubject),
}

/// A key of a store. Two of one URL are the same subject.
#[derive(Debug, Clone)]
pub(super) struct KeySubject(pub(super) Arc<Key>);

impl PartialEq for KeySubject {
    fn eq(&self, other: &Self) -> bool {
        self.0.url == other.0.url
    }
}

impl Eq for KeySubject {}

impl PartialOrd for KeySubject {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for KeySubject {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.url.cmp(&other.0.url)
    }
}

impl Subject {
    /// Returns the key; none of a path.
    pub(super) fn key(&self) -> Option<&KeySubject> {
        match self {
            Self::Path { .. } => None,
            Self::Key(key) => Some(key),
        }
    }

    /// Reads the present content of a path; none of a key.
    pub(super) fn digest_of_path(&self) -> Option<Digest> {
        match self {
            Self::Path { named, includes } => Some(content::digest(named, includes)),
            Self::Key(_) => None,
        }
    }

    /// Adds every place where a change of the content is seen. A key has none.
    pub(super) fn add_places(&self, places: &mut Places) {
        if let Self::Path { named, includes } = self {
            places.add(named, includes);
        }
    }

    /// Returns the name for people.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Path { named, .. } => named.display().to_string(),
            Self::Key(key) => key.0.url.clone(),
        }
    }

    /// Tells whether the subject leads to the target at the resolved path `target` now.
    pub(super) fn leads_to(&self, target: &Path) -> bool {
        match self {
            Self::Path { named, .. } => named.canonicalize().is_ok_and(|path| path == target),
            Self::Key(key) => key.0.target() == target,
        }
    }
}
