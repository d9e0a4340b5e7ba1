//! A directory as a config: names, types, modes, link targets and bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{config::MAX_TARGET, refusal::Refusal};

mod archive;
mod entry;
mod known;
mod read;

pub(crate) use self::entry::{bits, kind, named_in, open_file};
pub(crate) use self::{
    entry::{names, open, shown, status},
    known::{Identity, Known},
};

/// The most entries of a directory that is a config. A run holds each of them in memory.
pub(crate) const MAX_ENTRIES: usize = 10_000;

/// The most directories inside each other. Each level holds a descriptor while it is read.
pub(crate) const MAX_DEPTH: usize = 64;

/// A directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Its 12 permission bits.
    pub mode: u32,
    /// The entries by name.
    pub entries: BTreeMap<OsString, Node>,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A regular file: its permission bits and its bytes.
    File(u32, Arc<[u8]>),
    /// A symbolic link and its target; it is never followed.
    Link(OsString),
    /// A directory.
    Tree(Tree),
}

/// One entry that differs between two directories.
#[derive(Debug)]
pub struct Difference<'a> {
    /// The path inside the directory.
    pub path: PathBuf,
    /// The entry of the old directory; none if it is new.
    pub old: Option<&'a Node>,
    /// The entry of the new directory; none if it was removed.
    pub new: Option<&'a Node>,
}

/// Why a directory cannot be copied over a live one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OverlayError {
    #[error("with the entries that stay it would have more than {MAX_ENTRIES} entries")]
    TooManyEntries,
    #[error("with the entries that stay it would be larger than {MAX_TARGET} bytes in total")]
    TooLarge,
    /// The directory at this path inside it has entries.
    #[error(
        "`{}` is a directory that is not empty, and a file or link would replace it",
        shown(.0)
    )]
    NotEmpty(PathBuf),
}

impl Tree {
    /// Returns this live directory with `new` copied over it. An entry that keeps its type keeps
    /// its mode, and a new entry has its own. Entries that only the live directory has stay, unless
    /// `prune`.
    ///
    /// # Errors
    /// Fails if the result is too large. Without `prune` it fails also if a file or link would
    /// replace a directory that is not empty.
    pub(crate) fn overlaid(&self, new: &Self, prune: bool) -> Result<Self, Refusal<OverlayError>> {
        let over = self.overlaid_at(new, prune, Path::new(""))?;
        match over.size() {
            (entries, _) if entries > MAX_ENTRIES => Err(OverlayError::TooManyEntries.into()),
            (_, bytes) if bytes > MAX_TARGET => Err(OverlayError::TooLarge.into()),
            _ => Ok(over),
        }
    }

    fn overlaid_at(
        &self,
        new: &Self,
        prune: bool,
        path: &Path,
    ) -> Result<Self, Refusal<OverlayError>> {
        let mut entries = if prune {
            BTreeMap::new()
        } else {
            self.entries.clone()
        };
        for (name, node) in &new.entries {
            let path = path.join(name);
            let node = match (self.entries.get(name), node) {
                (Some(Node::Tree(live)), Node::Tree(new)) => {
                    Node::Tree(live.overlaid_at(new, prune, &path)?)
                }
                (Some(Node::Tree(live)), _) if !prune && !live.entries.is_empty() => {
                    let why = Refusal::from(OverlayError::NotEmpty(path));
                    return Err(why.with_hint("to remove it, add --prune"));
                }
                (Some(Node::File(mode, _)), Node::File(_, bytes)) => {
                    Node::File(*mode, bytes.clone())
                }
                (_, node) => node.clone(),
            };
            entries.insert(name.clone(), node);
        }
        Ok(Self {
            mode: self.mode,
            entries,
        })
    }

    /// Returns the entries that differ, sorted by path. Two directories differ if their modes do;
    /// their entries are listed one by one.
    #[must_use]
    pub fn differences<'a>(&'a self, new: &'a Self) -> Vec<Difference<'a>> {
        let mut before = BTreeMap::new();
        self.flatten(Path::new(""), &mut before);
        let mut after = BTreeMap::new();
        new.flatten(Path::new(""), &mut after);
        let paths: BTreeSet<&PathBuf> = before.keys().chain(after.keys()).collect();
        paths
            .into_iter()
            .map(|path| Difference {
                path: path.clone(),
                old: before.get(path).copied(),
                new: after.get(path).copied(),
            })
            .filter(|entry| match (entry.old, entry.new) {
                (Some(Node::Tree(old)), Some(Node::Tree(new))) => old.mode != new.mode,
                (old, new) => old != new,
            })
            .collect()
    }

    fn flatten<'a>(&'a self, path: &Path, into: &mut BTreeMap<PathBuf, &'a Node>) {
        for (name, node) in &self.entries {
            let path = path.join(name);
            if let Node::Tree(tree) = node {
                tree.flatten(&path, into);
            }
            into.insert(path, node);
        }
    }

    /// Tells whether every user may read every file in it. If not, its content is a secret.
    #[must_use]
    pub fn is_public(&self) -> bool {
        let public = |node: &Node| match node {
            Node::File(mode, _) => mode & 0o004 != 0,
            Node::Link(_) => true,
            Node::Tree(tree) => tree.is_public(),
        };
        self.mode & 0o005 == 0o005 && self.entries.values().all(public)
    }

    /// Returns the number of entries, and the bytes of their names, link targets and content. The
    /// limits apply to these.
    #[must_use]
    pub fn size(&self) -> (usize, u64) {
        let mut entries = 0;
        let mut bytes = 0;
        for (name, node) in &self.entries {
            let (inner_entries, content) = match node {
                Node::File(_, content) => (0, content.len() as u64),
                Node::Link(target) => (0, target.as_bytes().len() as u64),
                Node::Tree(tree) => tree.size(),
            };
            entries += 1 + inner_entries;
            bytes += name.as_bytes().len() as u64 + content;
        }
        (entries, bytes)
    }
}

#[cfg(test)]
mod tests;
