//! What the `source` of each group has for its targets: files that another program staged, and keys
//! of stores.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use futures_util::{StreamExt, stream};

use crate::{
    event::{Event, SourceReport, Verdict},
    fleet::{ContentSource, Group, Key},
    host::{store, target::source::read_source},
    step::{Content, StagedSource},
};

/// The most keys that are read at the same time. Each value may have 16 MiB.
const AT_ONCE: usize = 8;

/// The sources of the groups of a run. Each key is read once, whatever number of targets gets its
/// value.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    groups: BTreeSet<String>,
    /// The value of each key, by its URL.
    values: BTreeMap<String, StagedSource>,
}

impl Sources {
    /// Reads the key of each group whose `source` is one. The files of other groups are read with
    /// their targets.
    pub(crate) async fn read(groups: impl Iterator<Item = &Group>) -> Self {
        let mut sources = Self::default();
        let mut keys: BTreeMap<&str, &Key> = BTreeMap::new();
        for group in groups {
            sources.groups.insert(group.name.clone());
            if let Some(key) = group.source.as_ref().and_then(ContentSource::key) {
                keys.insert(&key.url, key);
            }
        }
        let read = stream::iter(keys.into_values())
            .map(|key| async move { (key.url.clone(), value_of(key).await) })
            .buffer_unordered(AT_ONCE);
        sources.values = read.collect().await;
        sources
    }

    /// Returns what the source of each group has for the target at `path`, by the group.
    pub(crate) fn staged<'a>(
        &self,
        groups: impl Iterator<Item = &'a Group>,
        path: &Path,
    ) -> BTreeMap<String, StagedSource> {
        groups
            .filter(|group| self.groups.contains(&group.name))
            .filter_map(|group| {
                let staged = match group.source.as_ref()? {
                    ContentSource::Path(source) => read_source(source, path),
                    ContentSource::Key(key) => self.values.get(&key.url)?.clone(),
                };
                Some((group.name.clone(), staged))
            })
            .collect()
    }

    /// Returns what the key of a group has. None if its `source` is no key, or was not read.
    pub(crate) fn key_of(&self, group: &Group) -> Option<&StagedSource> {
        let key = group.source.as_ref()?.key()?;
        self.values.get(&key.url)
    }

    /// Iterates over the keys that exist, each at its revision.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &SourceReport> {
        self.values
            .values()
            .filter_map(|staged| staged.key.as_ref())
    }

    /// Returns an event for each key that has a value.
    pub(crate) fn events(&self) -> impl Iterator<Item = Event> {
        self.values.values().filter_map(|staged| {
            let (Some(Ok(content)), Some(key)) = (&staged.content, &staged.key) else {
                return None;
            };
            Some(Event::SourceRead {
                url: key.url.clone(),
                rev: key.rev.clone(),
                sha256: content.sha256.clone(),
                bytes: content.bytes.len(),
            })
        })
    }
}

/// Reads a key. Its value is the new content as it is.
async fn value_of(key: &Key) -> StagedSource {
    let url = &key.url;
    let failed = |why: String| {
        let why = format!("cannot read `{url}`: {why}");
        StagedSource {
            named: PathBuf::from(url),
            content: Some(Err((Verdict::Failed, why))),
            key: None,
        }
    };
    let value = match store::get(key).await {
        Ok(Some(value)) => value,
        Ok(None) => return failed("there is no such key".into()),
        Err(why) => return failed(why.to_string()),
    };
    let content = if value.bytes.is_empty() {
        // An empty value is more likely a mistake than the wish for an empty config.
        let why = format!("the new config is not valid: `{url}`: its value is empty");
        Err((Verdict::Invalid, why))
    } else {
        Ok(Content::new(value.bytes))
    };
    StagedSource {
        named: PathBuf::from(url),
        content: Some(content),
        key: Some(SourceReport {
            url: url.clone(),
            rev: value.rev.to_string(),
        }),
    }
}
