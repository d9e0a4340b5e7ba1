//! The difference of two contents: changed entries of a directory, and changed lines.

use std::time::Duration;

use super::Content;
use crate::{
    event::{EntryChange, EntryReport},
    tree::{Difference, Node, shown},
};

/// Longest time to look for the smallest difference of two texts; after that a coarser one is
/// shown.
const DIFF_LIMIT: Duration = Duration::from_secs(2);

/// One of the two contents in the head of a diff.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Side<'a> {
    /// Its name or path, on one line.
    pub name: &'a str,
    /// More about it; empty for nothing. Programs that read diffs ignore it.
    pub note: &'a str,
}

/// The difference of two contents.
#[derive(Debug, Default)]
pub(crate) struct ContentDifference {
    /// The changed entries of a directory.
    pub entries: Vec<EntryReport>,
    /// The changed lines, as a unified diff; none where nothing of it is text.
    pub diff: Option<String>,
}

impl ContentDifference {
    /// Compares two contents.
    #[must_use]
    pub(crate) fn of(old: &Content, new: &Content, sides: [Side<'_>; 2]) -> Self {
        let (Some(old_tree), Some(new_tree)) = (&old.tree, &new.tree) else {
            return Self {
                entries: Vec::new(),
                diff: unified(&old.bytes, &new.bytes, "", sides),
            };
        };
        let differences = old_tree.differences(new_tree);
        let text: String = differences
            .iter()
            .filter_map(|d| unified(bytes(d.old)?, bytes(d.new)?, &shown(&d.path), sides))
            .collect();
        Self {
            entries: differences.iter().map(entry).collect(),
            diff: Some(text).filter(|text| !text.is_empty()),
        }
    }
}

fn entry(difference: &Difference<'_>) -> EntryReport {
    let change = match (difference.old, difference.new) {
        (None, _) => EntryChange::Added,
        (Some(_), None) => EntryChange::Removed,
        (Some(_), Some(_)) => EntryChange::Changed,
    };
    let is_directory = matches!(difference.new.or(difference.old), Some(Node::Tree(_)));
    let end = if is_directory { "/" } else { "" };
    EntryReport {
        path: shown(&difference.path) + end,
        change,
    }
}

/// Returns the bytes of a file, and no bytes of an absent entry; none for a link or a directory.
fn bytes(node: Option<&Node>) -> Option<&[u8]> {
    match node {
        None => Some(b""),
        Some(Node::File(_, bytes)) => Some(bytes),
        Some(Node::Link(_) | Node::Tree(_)) => None,
    }
}

/// Returns the changed lines of two texts; none where one is not UTF-8. `path` is their path below
/// a directory.
fn unified(old: &[u8], new: &[u8], path: &str, sides: [Side<'_>; 2]) -> Option<String> {
    let old = std::str::from_utf8(old).ok()?;
    let new = std::str::from_utf8(new).ok()?;
    let head = |side: Side<'_>| {
        let slash = if path.is_empty() { "" } else { "/" };
        let tab = if side.note.is_empty() { "" } else { "\t" };
        format!("{}{slash}{path}{tab}{}", side.name, side.note)
    };
    let diff = similar::TextDiff::configure()
        .timeout(DIFF_LIMIT)
        .diff_lines(old, new);
    let [old, new] = sides.map(head);
    Some(diff.unified_diff().header(&old, &new).to_string())
}
