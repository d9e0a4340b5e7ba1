//! A directory from its archive: what an earlier run kept of it.

use std::{
    ffi::OsStr,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
};

use tar::{Archive, EntryType};

use super::{Node, Tree};
use crate::config::MAX_TARGET;

impl Tree {
    /// The directory that [`Tree::archive`] made `bytes` of.
    ///
    /// # Errors
    /// When it is no such archive.
    pub fn unpack(bytes: &[u8]) -> io::Result<Self> {
        let odd = |what: &str| {
            io::Error::new(
                io::ErrorKind::InvalidData,
                format!("no archive of a directory: {what}"),
            )
        };
        let mut root: Option<Self> = None;
        for entry in Archive::new(bytes).entries()? {
            let mut entry = entry?;
            let (kind, mode, path) = (
                entry.header().entry_type(),
                entry.header().mode()?,
                entry.path_bytes().into_owned(),
            );
            let names: Vec<&[u8]> = path
                .split(|b| *b == b'/')
                .filter(|name| !name.is_empty() && *name != b".")
                .collect();
            let node = match kind {
                EntryType::Directory => Node::Tree(Self {
                    mode,
                    entries: Default::default(),
                }),
                EntryType::Symlink => Node::Link(
                    OsStr::from_bytes(
                        &entry
                            .link_name_bytes()
                            .ok_or_else(|| odd("a link to nowhere"))?,
                    )
                    .into(),
                ),
                EntryType::Regular => {
                    let mut content = Vec::new();
                    entry.by_ref().take(MAX_TARGET).read_to_end(&mut content)?;
                    Node::File(mode, content.into())
                }
                _ => return Err(odd("a strange entry")),
            };
            let (Some((name, above)), Some(tree)) = (names.split_last(), root.as_mut()) else {
                // The directory itself comes first.
                match node {
                    Node::Tree(tree) if names.is_empty() && root.is_none() => root = Some(tree),
                    _ => return Err(odd("it does not begin with the directory itself")),
                }
                continue;
            };
            let mut tree = tree;
            for name in above {
                match tree.entries.get_mut(OsStr::from_bytes(name)) {
                    Some(Node::Tree(inner)) => tree = inner,
                    _ => return Err(odd("an entry of no directory")),
                }
            }
            tree.entries.insert(OsStr::from_bytes(name).into(), node);
        }
        root.ok_or_else(|| odd("it is empty"))
    }
}
