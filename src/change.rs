//! The change that the operator wants: whole contents, edits of keys, or the content on disk.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fmt::Display,
    io,
    path::{Path, PathBuf},
};

use crate::{
    config::{self, MAX_TARGET, ReadError, Unacceptable},
    event::{Abort, TargetKind, Verdict},
    refusal::Refusal,
    step::Content,
    tree::{Node, OverlayError, Tree},
    trust,
};

/// The change of one group's targets.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// A file or directory that was named, or why it cannot be used. That failure is reported
    /// later, in the order of the exit codes.
    Put {
        /// The path as the operator named it.
        named: PathBuf,
        /// Its kind: a file or a directory.
        kind: TargetKind,
        /// Its content, read once.
        content: Result<Content, Unacceptable>,
    },
    /// These keys of each target's own bytes are edited.
    Set(Vec<(String, String)>),
    /// The content on disk is adopted.
    Adopt,
}

/// The change of every group, read once.
#[derive(Debug, Clone)]
pub(crate) struct Changes {
    named: BTreeMap<String, Change>,
    others: Change,
    /// True if entries that only the live directory has are removed.
    pub prune: bool,
}

/// The arguments of a change as they were given.
#[derive(Debug, Clone, Default)]
pub(crate) struct ChangeRequest {
    /// `--config PATH`, a file or directory, for one group.
    pub config: Option<PathBuf>,
    /// `--config GROUP=PATH`, one for each group.
    pub configs: BTreeMap<String, PathBuf>,
    /// `--set KEY=VALUE`, with `@FILE` for a value that is read from a file.
    pub set: Vec<(String, String)>,
    /// `--prune`.
    pub prune: bool,
}

impl Changes {
    /// Returns changes whose contents are known.
    #[must_use]
    pub(crate) fn new(named: BTreeMap<String, Change>, others: Change, prune: bool) -> Self {
        Self {
            named,
            others,
            prune,
        }
    }

    /// Iterates over the change of each group that was named, and then that of all others.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Option<&str>, &Change)> {
        let named = self.named.iter();
        let named = named.map(|(group, change)| (Some(group.as_str()), change));
        named.chain([(None, &self.others)])
    }

    /// Reads every file and directory that was named, once and size-limited.
    ///
    /// # Errors
    /// Fails if one cannot be read.
    pub(crate) fn read(request: &ChangeRequest) -> Result<Self, Abort> {
        let mut edits = Vec::new();
        for (key, value) in &request.set {
            edits.push((key.clone(), value_of(key, value)?));
        }
        let others = match &request.config {
            Some(path) => read_candidate(path)?,
            None if edits.is_empty() => Change::Adopt,
            None => Change::Set(edits),
        };
        let named = request
            .configs
            .iter()
            .map(|(group, path)| Ok((group.clone(), read_candidate(path)?)))
            .collect::<Result<_, Abort>>()?;
        Ok(Self {
            named,
            others,
            prune: request.prune,
        })
    }

    /// Tells whether nothing was named: every group adopts the content on disk, or takes that of
    /// its `source`.
    #[must_use]
    pub(crate) fn adopt(&self) -> bool {
        self.named
            .values()
            .chain([&self.others])
            .all(|change| matches!(change, Change::Adopt))
    }

    /// Tells whether a group adopts the content on disk, or takes that of its `source`.
    #[must_use]
    pub(crate) fn adopts(&self, group: &str) -> bool {
        matches!(self.of(group), Change::Adopt)
    }

    /// Returns the change of `group`'s targets.
    #[must_use]
    pub(crate) fn of(&self, group: &str) -> &Change {
        self.named.get(group).unwrap_or(&self.others)
    }
}

fn read_candidate(path: &Path) -> Result<Change, Abort> {
    let named = path.to_owned();
    // Looked up before the read, which may fail.
    let kind = if path.is_dir() {
        TargetKind::Directory
    } else {
        TargetKind::File
    };
    match Content::read(path) {
        Ok(content) => Ok(Change::Put {
            named,
            kind: content.kind(),
            content: Ok(content),
        }),
        Err(ReadError::Unacceptable(why)) => Ok(Change::Put {
            named,
            kind,
            content: Err(why),
        }),
        Err(ReadError::Io(e)) => Err(Abort::new(
            Verdict::Failed,
            format!("cannot read `{}`: {e}", path.display()),
        )),
    }
}

/// Why a content cannot become that of a target.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PutError {
    #[error("nothing is in it")]
    Empty,
    #[error(transparent)]
    Overlay(#[from] Refusal<OverlayError>),
    /// The directory cannot be written as an archive.
    #[error(transparent)]
    Archive(#[from] io::Error),
    #[error("it is no directory, and what it would replace is one")]
    NoDirectory,
    #[error("it is no regular file but a directory, and what it would replace is a file")]
    NoFile,
    #[error("it is a link")]
    Link,
}

/// Returns the content of a live file or directory after `new` replaces it.
///
/// # Errors
/// Fails if one is a file and the other a directory, if `new` is an empty
/// directory, or as [`Tree::overlaid`] does.
pub(crate) fn put(live: &Content, new: &Content, prune: bool) -> Result<Content, PutError> {
    match (&live.tree, &new.tree) {
        // An empty directory is more likely a mistake than the wish to remove every file.
        (Some(_), Some(new)) if new.entries.is_empty() => Err(PutError::Empty),
        (Some(live), Some(new)) => Ok(Content::from_tree(live.overlaid(new, prune)?)?),
        _ => fits(live.kind(), new.kind()).map(|()| new.clone()),
    }
}

/// Checks that a target of one kind can become the other.
///
/// # Errors
/// Fails if it cannot.
pub(crate) fn fits(live: TargetKind, new: TargetKind) -> Result<(), PutError> {
    match (live, new) {
        (TargetKind::Directory, TargetKind::File) => Err(PutError::NoDirectory),
        (TargetKind::File, TargetKind::Directory) => Err(PutError::NoFile),
        _ => Ok(()),
    }
}

/// Returns the entry of a directory for the target of that name, in a group with several; none if
/// the target stays.
///
/// # Errors
/// Fails if the entry is a link. Links are not followed.
pub(crate) fn entry(tree: &Tree, name: &OsStr) -> Result<Option<Content>, PutError> {
    match tree.entries.get(name) {
        None => Ok(None),
        Some(Node::File(_, bytes)) => Ok(Some(Content::new(bytes.to_vec()))),
        Some(Node::Tree(tree)) => Ok(Some(Content::from_tree(tree.clone())?)),
        Some(Node::Link(_)) => Err(PutError::Link),
    }
}

/// Returns the value itself, or the text of its `@FILE` without the last line end.
fn value_of(key: &str, value: &str) -> Result<String, Abort> {
    let Some(path) = value.strip_prefix('@') else {
        return Ok(value.to_owned());
    };
    let failed = |why: &dyn Display| {
        Abort::new(
            Verdict::Failed,
            format!("cannot read `{path}` for --set {key}: {why}"),
        )
    };
    let file = trust::open_named(Path::new(path)).map_err(|e| failed(&e))?;
    let bytes = config::read_fd(file, MAX_TARGET).map_err(|e| failed(&e))?;
    let mut text = String::from_utf8(bytes).map_err(|_| failed(&"not UTF-8 text"))?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

/// Why a key of a file cannot be edited.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EditError {
    #[error("not UTF-8 text, so --set cannot edit it (use --config)")]
    NotText,
    #[error("not TOML, so --set cannot edit it (use --config): {}", .0.message())]
    NotToml(#[from] toml_edit::TomlError),
    #[error("`{0}` is not a key")]
    NoKey(String),
    #[error("`{key}`: `{part}` is not a table")]
    NoTable { key: String, part: String },
    #[error("`{0}` is a table, which --set does not replace")]
    Table(String),
}

/// Edits keys (dotted for tables) of a TOML file; comments and order stay.
///
/// # Errors
/// Fails if the bytes are not TOML, or a key is below a value that is not a table.
pub(crate) fn edit(bytes: &[u8], edits: &[(String, String)]) -> Result<Vec<u8>, EditError> {
    let text = std::str::from_utf8(bytes).map_err(|_| EditError::NotText)?;
    let mut doc: toml_edit::DocumentMut = text.parse()?;
    for (key, value) in edits {
        let path = toml_edit::Key::parse(key).map_err(|_| EditError::NoKey(key.clone()))?;
        let Some((last, tables)) = path.split_last() else {
            continue;
        };
        let mut table: &mut dyn toml_edit::TableLike = doc.as_table_mut();
        for part in tables {
            let item = table.entry(part.get()).or_insert_with(toml_edit::table);
            table = item.as_table_like_mut().ok_or_else(|| EditError::NoTable {
                key: key.clone(),
                part: part.get().to_owned(),
            })?;
        }
        let old = table.get(last.get());
        if old.is_some_and(|item| !item.is_value()) {
            return Err(EditError::Table(key.clone()));
        }
        let old = old.and_then(toml_edit::Item::as_value);
        // A value of the old type is read as TOML; any other is the literal text.
        let mut new = match value.parse::<toml_edit::Value>() {
            Ok(v) if old.is_none_or(|o| o.type_name() == v.type_name()) => v,
            _ => toml_edit::Value::from(value.as_str()),
        };
        match old.map(|o| o.decor().clone()) {
            Some(decor) => *new.decor_mut() = decor,
            None => new.decor_mut().clear(),
        }
        // The old item is overwritten: a key that is inserted again would lose the comments above
        // it.
        match table.get_mut(last.get()) {
            Some(item) => *item = toml_edit::Item::Value(new),
            None => drop(table.insert(last.get(), toml_edit::Item::Value(new))),
        }
    }
    Ok(doc.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;

    fn edited(text: &str, key: &str, value: &str) -> String {
        String::from_utf8(edit(text.as_bytes(), &[(key.into(), value.into())]).unwrap()).unwrap()
    }

    #[test]
    fn comments_order_and_types_stay() {
        let text = "# top\na = 1 # one\n\n[t.u]\nb = \"x\" # two\nc = 3\n";
        assert_eq!(edited(text, "a", "5"), text.replace("a = 1", "a = 5"));
        assert_eq!(edited(text, "t.u.b", "5"), text.replace("\"x\"", "\"5\""));
        assert_eq!(
            edited(text, "t.u.b", "a \"quoted\" one"),
            text.replace("\"x\"", "'a \"quoted\" one'")
        );
        assert!(edited(text, "n", "true").contains("\nn = true\n"));
    }

    #[test]
    fn an_edit_of_something_else_than_a_toml_table_fails() {
        for (text, key) in [
            ("a = 1\n", "a.b"),
            ("[t]\n", "t"),
            ("a = ", "a"),
            ("a = 1\n", ""),
        ] {
            assert!(
                edit(text.as_bytes(), &[(key.into(), "x".into())]).is_err(),
                "{text:?} {key:?}"
            );
        }
        assert!(edit(b"\xff", &[("a".into(), "x".into())]).is_err());
    }
}
