//! A target that is a directory. After the exchange the old directory stays next to it under a
//! hidden name until the run ends, so that a rollback writes nothing.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
};

use rustix::fs::Statx;

use self::snapshot::{digest_of, read, read_with_entries, snapshot};
use super::{
    entries::Entries,
    error::{InstallError, InstallReason},
    late_edit::LateEdit,
    slot::{SideEntry, Snapshot, TargetSlot},
    stat::ctime,
};
use crate::{
    config::ReadError,
    runs::Stage,
    step::Content,
    tree::{Difference, Identity, Node, Tree, open, shown, status},
};

mod fill;
mod snapshot;
mod stage;

#[cfg(test)]
mod tests;

/// A directory to replace.
#[derive(Debug)]
pub(crate) struct TreeTarget {
    pub(super) slot: TargetSlot,
}

impl TreeTarget {
    pub(super) fn new(slot: TargetSlot) -> Self {
        Self { slot }
    }

    pub(super) fn read(&self) -> Result<Content, InstallError> {
        let tree = self
            .open()
            .and_then(|dir| read(&dir, |_| None))
            .map_err(|e| self.slot.refused(InstallReason::from(e)))?;
        Content::from_tree(tree).map_err(|e| self.slot.io(e))
    }

    pub(super) fn survey(&mut self) -> Result<Content, InstallError> {
        let (tree, entries) = self
            .open()
            .and_then(|dir| read_with_entries(&dir))
            .map_err(|e| self.slot.refused(InstallReason::from(e)))?;
        self.slot.expected = Some(entries);
        Content::from_tree(tree).map_err(|e| self.slot.io(e))
    }

    fn open(&self) -> Result<std::os::fd::OwnedFd, ReadError> {
        open(&self.slot.dir, &self.slot.name).map_err(|e| ReadError::Io(e.into()))
    }

    pub(super) fn digest(&self) -> Option<String> {
        digest_of(&self.slot.dir, &self.slot.name)
    }

    /// Returns the last change of the directory or any entry, in nanoseconds since 1970.
    pub(super) fn ctime(&self) -> Option<i128> {
        let dir = self.open().ok()?;
        let mut newest = status(&dir, OsStr::new("")).ok().map(|stat| ctime(&stat))?;
        let mut update = |_: &Path, stat: &Statx| {
            newest = newest.max(ctime(stat));
            Ok(())
        };
        Tree::read(&dir, &mut update).ok()?;
        Some(newest)
    }

    pub(super) fn install(
        &mut self,
        from: &str,
        to: &Content,
        run: &str,
    ) -> Result<bool, InstallError> {
        let now = snapshot(&self.slot.dir, &self.slot.name);
        if self.slot.is_done(now.as_ref(), from, to)? {
            return Ok(false);
        }
        let (name, attributes) = match self.verified_staged(to) {
            Some(staged) => staged,
            None => self.restage(to, run)?,
        };
        self.record_live(&name, now)?;
        match self.slot.exchange(&name, from, snapshot)? {
            Ok(replaced) => {
                if let Some(staged) = &mut self.slot.staged {
                    staged.known.whole.extend(replaced.entries.identities());
                    staged.original = replaced.tree.map(|tree| (tree, replaced.entries));
                }
                self.slot.expected = Some(attributes);
                Ok(true)
            }
            Err(e) => Err(self.slot.refused(InstallReason::NotExchanged(e.into()))),
        }
    }

    /// Returns the name and attributes of the entry next to the target, if it is `to` as this run
    /// wrote it, or as it was exchanged away.
    fn verified_staged(&self, to: &Content) -> Option<(OsString, Entries)> {
        let side = self.slot.staged.as_ref()?;
        let staged =
            snapshot(&self.slot.dir, &side.name).filter(|staged| staged.sha256 == to.sha256)?;
        let is_known = staged
            .entries
            .identities()
            .all(|identity| side.known.whole.contains(&identity));
        let is_unchanged = side
            .original
            .as_ref()
            .is_none_or(|(_, original)| original.difference(&staged.entries).is_none());
        (is_known && is_unchanged).then(|| (side.name.clone(), staged.entries))
    }

    /// Stages `to` again, because the entry next to the target was edited. That entry stays until
    /// the end of the run.
    fn restage(&mut self, to: &Content, run: &str) -> Result<(OsString, Entries), InstallError> {
        self.slot.retired.extend(self.slot.staged.take());
        let run = self.slot.unused_run_name(format!("{run}-again"));
        self.stage(to, &run)?;
        self.verified_staged(to).ok_or_else(|| self.slot.drifted())
    }

    /// Records the live entries before they are exchanged away, if they are other inodes than when
    /// the new directory was staged.
    fn record_live(&self, name: &OsStr, now: Option<Snapshot>) -> Result<(), InstallError> {
        let live: Vec<Identity> = now
            .map(|now| now.entries.identities().collect())
            .unwrap_or_default();
        let is_known = |identity: &Identity| {
            self.slot
                .staged
                .as_ref()
                .is_some_and(|staged| staged.known.whole.contains(identity))
        };
        if live.iter().all(is_known) {
            Ok(())
        } else {
            self.slot.record(name, Stage::Whole, live)
        }
    }

    /// As [`super::Target::late_edits`].
    pub(super) fn late_edits(&mut self) -> Vec<LateEdit> {
        let dir = self.slot.dir.clone();
        let path = self.slot.path.clone();
        let mut edits = Vec::new();
        for side in self.slot.staged.iter_mut().chain(&mut self.slot.retired) {
            if side.original.is_some() {
                edits.extend(edits_in(side, &path, snapshot(&dir, &side.name)));
            }
        }
        edits
    }
}

/// Returns the changes of an entry since it was exchanged away; `path` is the target. The bytes of
/// each edited entry are returned, so it becomes known, and is removed with the rest.
fn edits_in(side: &mut SideEntry, path: &Path, now: Option<Snapshot>) -> Vec<LateEdit> {
    let Some((original_tree, original)) = &side.original else {
        return Vec::new();
    };
    let Some(now) = now else {
        let name = shown(Path::new(&side.name));
        return vec![LateEdit {
            path: path.to_owned(),
            what: format!("`{name}` cannot be read any more"),
            bytes: None,
        }];
    };
    let Some(tree) = now.tree else {
        return Vec::new();
    };
    let mut edits: BTreeMap<PathBuf, (String, Option<Vec<u8>>)> = BTreeMap::new();
    for difference in original_tree.differences(&tree) {
        let Some((what, bytes)) = content_edit(&difference) else {
            continue;
        };
        if bytes.is_some() {
            let identity = now.entries.identity(&difference.path);
            side.known.whole.extend(identity);
        }
        edits.insert(difference.path, (what.to_owned(), bytes));
    }
    for entry in original.paths() {
        if let Some(what) = original.difference_at(&now.entries, entry) {
            side.known.whole.extend(now.entries.identity(entry));
            edits.entry(entry.to_owned()).or_insert((what, None));
        }
    }
    let edit = |(entry, (what, bytes)): (PathBuf, _)| LateEdit {
        path: path.join(entry),
        what,
        bytes,
    };
    edits.into_iter().map(edit).collect()
}

/// Describes a changed entry, with its bytes. A directory is none: its entries are listed one by
/// one. A file whose bytes are the same is none either: its attributes are compared elsewhere.
fn content_edit(difference: &Difference<'_>) -> Option<(&'static str, Option<Vec<u8>>)> {
    match (difference.old, difference.new) {
        (_, None) => Some(("removed", None)),
        (Some(Node::File(_, old)), Some(Node::File(_, new))) if old == new => None,
        (_, Some(Node::File(_, bytes))) => Some(("content", Some(bytes.to_vec()))),
        (_, Some(Node::Link(target))) => Some(("link", Some(target.as_encoded_bytes().to_vec()))),
        (_, Some(Node::Tree(_))) => None,
    }
}
