//! A directory as one tar archive, which is what is digested and stored.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io::{self, Read},
    os::unix::ffi::OsStrExt,
};

use tar::{Archive, Builder, Entry, EntryType, Header};

use super::{Node, Tree};
use crate::config::MAX_TARGET;

/// The most bytes of a name or link target that a header of the archive holds (100, by the tar
/// format). A longer text is in an entry of its own before the entry.
const IN_HEADER: usize = 100;

impl Tree {
    /// Returns the directory as an archive that `tar tvf` lists. It is the same for the same
    /// content: sorted, without times and owners.
    ///
    /// # Errors
    /// Does not fail: it writes to memory.
    pub fn archive(&self) -> io::Result<Vec<u8>> {
        let mut builder = Builder::new(Vec::new());
        self.append(&mut builder, b"./")?;
        builder.into_inner()
    }

    fn append(&self, builder: &mut Builder<Vec<u8>>, path: &[u8]) -> io::Result<()> {
        append(builder, EntryType::Directory, self.mode, path, b"", b"")?;
        for (name, node) in &self.entries {
            let mut path = [path, name.as_bytes()].concat();
            match node {
                Node::File(mode, bytes) => {
                    append(builder, EntryType::Regular, *mode, &path, b"", bytes)?
                }
                Node::Link(target) => {
                    // The kernel gives every link the mode 777 (symlink(7)).
                    let target = target.as_bytes();
                    append(builder, EntryType::Symlink, 0o777, &path, target, b"")?
                }
                Node::Tree(tree) => {
                    path.push(b'/');
                    tree.append(builder, &path)?;
                }
            }
        }
        Ok(())
    }

    /// Returns the directory that [`Tree::archive`] made `bytes` of.
    ///
    /// # Errors
    /// Fails if it is not such an archive.
    pub fn unpack(bytes: &[u8]) -> io::Result<Self> {
        let mut root: Option<Self> = None;
        for entry in Archive::new(bytes).entries()? {
            let mut entry = entry?;
            let path = entry.path_bytes().into_owned();
            let names: Vec<&[u8]> = path
                .split(|b| *b == b'/')
                .filter(|name| !name.is_empty() && *name != b".")
                .collect();
            // An archive may come from another machine: none of its names leads out of it.
            if names.contains(&&b".."[..]) {
                return Err(not_an_archive("a name in it leads out of the directory"));
            }
            let node = node_of(&mut entry)?;
            match (names.split_last(), root.as_mut()) {
                (Some((name, above)), Some(tree)) => {
                    let dir = directory_at(tree, above)?;
                    dir.entries.insert(OsStr::from_bytes(name).into(), node);
                }
                // The directory itself is the first entry.
                (None, None) => match node {
                    Node::Tree(tree) => root = Some(tree),
                    _ => return Err(not_an_archive("the first entry is not a directory")),
                },
                _ => {
                    return Err(not_an_archive(
                        "the directory itself is not the first entry",
                    ));
                }
            }
        }
        root.ok_or_else(|| not_an_archive("it is empty"))
    }
}

fn not_an_archive(why: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("not an archive of a directory: {why}"),
    )
}

/// Reads one entry of an archive; a directory is empty as yet.
fn node_of(entry: &mut Entry<'_, &[u8]>) -> io::Result<Node> {
    let mode = entry.header().mode()?;
    match entry.header().entry_type() {
        EntryType::Directory => Ok(Node::Tree(Tree {
            mode,
            entries: BTreeMap::new(),
        })),
        EntryType::Symlink => {
            let target = entry
                .link_name_bytes()
                .ok_or_else(|| not_an_archive("a link without a target"))?;
            Ok(Node::Link(OsStr::from_bytes(&target).into()))
        }
        EntryType::Regular => {
            let mut content = Vec::new();
            entry.by_ref().take(MAX_TARGET).read_to_end(&mut content)?;
            Ok(Node::File(mode, content.into()))
        }
        _ => Err(not_an_archive("an entry of an unexpected type")),
    }
}

/// Returns the directory below `tree` with these names.
fn directory_at<'a>(tree: &'a mut Tree, names: &[&[u8]]) -> io::Result<&'a mut Tree> {
    let mut tree = tree;
    for name in names {
        match tree.entries.get_mut(OsStr::from_bytes(name)) {
            Some(Node::Tree(inner)) => tree = inner,
            _ => return Err(not_an_archive("an entry without its directory")),
        }
    }
    Ok(tree)
}

/// Appends one entry with its name and link target unchanged. The setters of the crate would split
/// a link target into parts and join it in another form.
fn append(
    builder: &mut Builder<Vec<u8>>,
    kind: EntryType,
    mode: u32,
    path: &[u8],
    link: &[u8],
    bytes: &[u8],
) -> io::Result<()> {
    for (kind, text) in [
        (EntryType::GNULongName, path),
        (EntryType::GNULongLink, link),
    ] {
        if text.len() > IN_HEADER {
            let header = header(kind, 0, b"././@LongLink", b"", text.len() + 1);
            builder.append(&header, text.chain(&b"\0"[..]))?;
        }
    }
    builder.append(&header(kind, mode, path, link, bytes.len()), bytes)
}

fn header(kind: EntryType, mode: u32, path: &[u8], link: &[u8], size: usize) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size as u64);
    let old = header.as_old_mut();
    for (field, text) in [(&mut old.name, path), (&mut old.linkname, link)] {
        field
            .iter_mut()
            .zip(text)
            .for_each(|(to, from)| *to = *from);
    }
    header.set_cksum();
    header
}
