//! The content of all subjects of a group, as it was read last.

use std::collections::{BTreeMap, BTreeSet};

#[cfg(test)]
use super::content::Content;
use super::{content::Digest, keys::KeyWatches, subject::Subject};
use crate::runtime::off_thread;

/// The content of all subjects of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Observed(pub(super) BTreeMap<Subject, Digest>);

impl Observed {
    /// Reads every path now, on another thread, and takes the last reading of every key.
    pub(super) async fn read(subjects: BTreeSet<Subject>, keys: &KeyWatches) -> Self {
        let read = |subject: &Subject| Some((subject.clone(), keys.digest(subject.key()?)?));
        let of_keys: Vec<(Subject, Digest)> = subjects.iter().filter_map(read).collect();
        let of_paths = off_thread(move || {
            let read = |subject: Subject| subject.digest_of_path().map(|digest| (subject, digest));
            subjects.into_iter().filter_map(read).collect::<Vec<_>>()
        });
        Self(of_paths.await.into_iter().chain(of_keys).collect())
    }

    /// Returns the part of these subjects.
    pub(super) fn of(&self, subjects: &BTreeSet<Subject>) -> Self {
        let read = |subject: &Subject| Some((subject.clone(), self.0.get(subject)?.clone()));
        Self(subjects.iter().filter_map(read).collect())
    }

    /// Tells whether a subject has another content than before. A subject that is no longer
    /// observed does not count.
    pub(super) fn differs_from(&self, before: &Self) -> bool {
        self.differences(before).next().is_some()
    }

    /// Returns the subjects that have another content than before.
    pub(super) fn differences(&self, before: &Self) -> impl Iterator<Item = &Subject> {
        self.0
            .iter()
            .filter(|(subject, digest)| before.0.get(subject) != Some(digest))
            .map(|(subject, _)| subject)
    }

    /// Returns the content of one subject with this text, for a test.
    #[cfg(test)]
    pub(super) fn of_text(text: &str) -> Self {
        let subject = Subject::Path {
            named: "/x".into(),
            includes: Vec::new(),
        };
        let digest = Digest {
            content: Content::Sha256(text.into()),
            included: String::new(),
        };
        Self(BTreeMap::from([(subject, digest)]))
    }
}
