//! The subjects of a watch: where the wanted content of a group stands.

use std::path::{Path, PathBuf};

use super::{
    content::{self, Digest},
    places::Places,
};

/// Something whose content decides what the instances of a group must run.
///
/// A key of a store is the second kind of subject. Its wait for a newer revision takes the place of
/// the watched places, and its read that of the file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// A file or a directory.
    Path {
        /// As a process or the fleet names it. Its links are followed at each read.
        named: PathBuf,
        /// The directives by which the file includes others.
        includes: Vec<String>,
    },
}

impl Subject {
    /// Reads the present content.
    pub(super) fn digest(&self) -> Digest {
        match self {
            Self::Path { named, includes } => content::digest(named, includes),
        }
    }

    /// Adds every place where a change of the content is seen.
    pub(super) fn add_places(&self, places: &mut Places) {
        match self {
            Self::Path { named, includes } => places.add(named, includes),
        }
    }

    /// Returns the name for people.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Path { named, .. } => named.display().to_string(),
        }
    }

    /// Tells whether the subject leads to the target at the resolved path `target` now.
    pub(super) fn leads_to(&self, target: &Path) -> bool {
        match self {
            Self::Path { named, .. } => named.canonicalize().is_ok_and(|path| path == target),
        }
    }
}
