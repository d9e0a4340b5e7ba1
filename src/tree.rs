//! A directory as a config: names, types, modes, link targets and bytes. One archive that `tar tvf`
//! lists is its content and what is digested.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    os::{
        fd::OwnedFd,
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{self, AtFlags, Mode, OFlags, Statx, StatxFlags},
    io::Errno,
};
use tar::{Builder, EntryType, Header};

use crate::config::{MAX_TARGET, ReadError};

mod known;
mod unpack;

pub use self::known::{Identity, Known, NotRemoved};

/// So many entries are taken for a config.
pub const MAX_ENTRIES: usize = 10_000;
/// So deep may directories lie in each other; each level holds a descriptor while it is read.
pub const MAX_DEPTH: usize = 64;
/// What a name and a link's target have room for in a header; a longer one stands in an entry
/// before it.
const IN_HEADER: usize = 100;

/// A directory; `entries` by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// Permission bits, 12 of them.
    pub mode: u32,
    /// What is in it.
    pub entries: BTreeMap<OsString, Node>,
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A regular file: its permission bits and its bytes.
    File(u32, Arc<[u8]>),
    /// A symbolic link and what it says, which is never followed.
    Link(OsString),
    /// A directory.
    Tree(Tree),
}

/// One entry of two directories that is not the same in both.
#[derive(Debug)]
pub struct Difference<'a> {
    /// Below the directory.
    pub path: PathBuf,
    /// What it was.
    pub old: Option<&'a Node>,
    /// What it becomes.
    pub new: Option<&'a Node>,
}

/// Looks at every entry, the directory itself first (an empty path), before it is read: a sentence
/// refuses it.
pub type Check<'a> = &'a mut dyn FnMut(&Path, &Statx) -> Result<(), String>;

/// A path as it can be shown on one line, whatever signs are in it.
#[must_use]
pub fn shown(path: &Path) -> String {
    path.to_string_lossy()
        .chars()
        .map(|c| {
            if c.is_control() {
                c.escape_default().to_string()
            } else {
                c.into()
            }
        })
        .collect()
}

/// Status of `name` in `dir` itself, never of what a link leads to; an empty name is `dir`.
///
/// # Errors
/// The system's.
pub fn status(dir: &OwnedFd, name: &OsStr) -> Result<Statx, Errno> {
    let flags = if name.is_empty() {
        AtFlags::EMPTY_PATH
    } else {
        AtFlags::SYMLINK_NOFOLLOW
    };
    fs::statx(
        dir,
        name,
        flags,
        StatxFlags::BASIC_STATS | StatxFlags::BTIME,
    )
}

/// Opens the directory `name` in `dir`; a link is none.
///
/// # Errors
/// The system's.
pub fn open(dir: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    fs::openat(
        dir,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
}

/// Names in a directory, without itself and its parent; of a larger one so many as `limit` and one
/// more.
///
/// # Errors
/// The system's.
pub fn names(dir: &OwnedFd, limit: usize) -> Result<BTreeSet<OsString>, Errno> {
    let mut names = BTreeSet::new();
    for entry in fs::Dir::read_from(dir)? {
        let name = OsStr::from_bytes(entry?.file_name().to_bytes()).to_owned();
        if name != "." && name != ".." {
            names.insert(name);
        }
        if names.len() > limit {
            break;
        }
    }
    Ok(names)
}

/// Looks at every entry once it is open, links excepted, with its path and its status.
pub type Visit<'a> = &'a mut dyn FnMut(&Path, &Statx, Option<&OwnedFd>) -> io::Result<()>;

struct Reader<'a> {
    check: Check<'a>,
    visit: Visit<'a>,
    entries: usize,
    bytes: u64,
}

impl Reader<'_> {
    fn tree(&mut self, dir: &OwnedFd, path: &Path, depth: usize) -> Result<Tree, ReadError> {
        let at =
            |e: Errno| ReadError::Io(io::Error::new(e.kind(), format!("`{}`: {e}", shown(path))));
        let stat = status(dir, OsStr::new("")).map_err(at)?;
        (self.check)(path, &stat).map_err(ReadError::Unacceptable)?;
        (self.visit)(path, &stat, Some(dir))?;
        if depth > MAX_DEPTH {
            return Err(ReadError::Unacceptable(format!(
                "`{}` lies more than {MAX_DEPTH} directories deep",
                shown(path)
            )));
        }
        let mut entries = BTreeMap::new();
        for name in names(dir, MAX_ENTRIES).map_err(at)? {
            let path = path.join(&name);
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(ReadError::Unacceptable(format!(
                    "it has more than {MAX_ENTRIES} entries"
                )));
            }
            let node = self.node(dir, &name, &path, depth)?;
            entries.insert(name, node);
        }
        Ok(Tree {
            mode: bits(&stat),
            entries,
        })
    }

    fn node(
        &mut self,
        dir: &OwnedFd,
        name: &OsStr,
        path: &Path,
        depth: usize,
    ) -> Result<Node, ReadError> {
        let at =
            |e: Errno| ReadError::Io(io::Error::new(e.kind(), format!("`{}`: {e}", shown(path))));
        let kind = |stat: &Statx| fs::FileType::from_raw_mode(stat.stx_mode.into());
        let stat = status(dir, name).map_err(at)?;
        self.take(name.as_bytes().len() as u64)?;
        match kind(&stat) {
            fs::FileType::Directory => Ok(Node::Tree(self.tree(
                &open(dir, name).map_err(at)?,
                path,
                depth + 1,
            )?)),
            fs::FileType::Symlink => {
                (self.check)(path, &stat).map_err(ReadError::Unacceptable)?;
                (self.visit)(path, &stat, None)?;
                let target = OsString::from_vec(
                    fs::readlinkat(dir, name, Vec::new())
                        .map_err(at)?
                        .into_bytes(),
                );
                self.take(target.as_bytes().len() as u64)?;
                Ok(Node::Link(target))
            }
            fs::FileType::RegularFile => {
                let flags = OFlags::RDONLY
                    | OFlags::NOFOLLOW
                    | OFlags::NONBLOCK
                    | OFlags::NOCTTY
                    | OFlags::CLOEXEC;
                let fd = fs::openat(dir, name, flags, Mode::empty()).map_err(at)?;
                // Of what was opened, not of what stood there a moment ago.
                let stat = status(&fd, OsStr::new("")).map_err(at)?;
                if kind(&stat) != fs::FileType::RegularFile {
                    return Err(strange(path, kind(&stat)));
                }
                (self.check)(path, &stat).map_err(ReadError::Unacceptable)?;
                (self.visit)(path, &stat, Some(&fd))?;
                let left = MAX_TARGET.saturating_sub(self.bytes);
                let mut bytes = Vec::new();
                if stat.stx_size <= left {
                    File::from(fd).take(left + 1).read_to_end(&mut bytes)?;
                }
                self.take(stat.stx_size.max(bytes.len() as u64))?;
                Ok(Node::File(bits(&stat), bytes.into()))
            }
            other => Err(strange(path, other)),
        }
    }

    fn take(&mut self, bytes: u64) -> Result<(), ReadError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MAX_TARGET {
            Err(ReadError::Unacceptable(format!(
                "it is larger than {MAX_TARGET} bytes in all"
            )))
        } else {
            Ok(())
        }
    }
}

fn bits(stat: &Statx) -> u32 {
    u32::from(stat.stx_mode) & 0o7777
}

fn strange(path: &Path, kind: fs::FileType) -> ReadError {
    ReadError::Unacceptable(format!(
        "`{}` in it is neither file, directory nor link ({kind:?})",
        shown(path)
    ))
}

impl Tree {
    /// Reads an open directory, never through a link; what `check` refuses, what is neither file,
    /// directory nor link, and what is too large or deep ends it.
    ///
    /// # Errors
    /// See [`ReadError`]; the entry is named.
    pub fn read(dir: &OwnedFd, check: Check<'_>) -> Result<Self, ReadError> {
        Self::visited(dir, check, &mut |_, _, _| Ok(()))
    }

    /// The same, with a visit of every entry.
    ///
    /// # Errors
    /// See [`Tree::read`].
    pub fn visited(dir: &OwnedFd, check: Check<'_>, visit: Visit<'_>) -> Result<Self, ReadError> {
        Reader {
            check,
            visit,
            entries: 0,
            bytes: 0,
        }
        .tree(dir, Path::new(""), 0)
    }

    /// One archive, the same for the same content: sorted, without times and owners.
    ///
    /// # Errors
    /// None that memory can give.
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
                // The kernel gives every link this mode.
                Node::Link(target) => append(
                    builder,
                    EntryType::Symlink,
                    0o777,
                    &path,
                    target.as_bytes(),
                    b"",
                )?,
                Node::Tree(tree) => {
                    path.push(b'/');
                    tree.append(builder, &path)?;
                }
            }
        }
        Ok(())
    }

    /// What becomes of this live directory when `new` is put over it. Modes stay where the type
    /// does, new entries have their own; what only the live directory has stays, unless `prune`.
    ///
    /// # Errors
    /// What would become too large; a directory with something in it that a file or link would take
    /// the place of, without `prune`.
    pub fn overlaid(&self, new: &Self, prune: bool) -> Result<Self, String> {
        let over = self.overlaid_at(new, prune, Path::new(""))?;
        match over.size() {
            (entries, _) if entries > MAX_ENTRIES => Err(format!(
                "with what stays there it would have more than {MAX_ENTRIES} entries"
            )),
            (_, bytes) if bytes > MAX_TARGET => Err(format!(
                "with what stays there it would be larger than {MAX_TARGET} bytes in all"
            )),
            _ => Ok(over),
        }
    }

    fn overlaid_at(&self, new: &Self, prune: bool, path: &Path) -> Result<Self, String> {
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
                    return Err(format!(
                        "`{}` is a directory with something in it and would become none; if that \
                         may go, say --prune",
                        shown(&path)
                    ));
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

    /// Entries that differ, by path.
    #[must_use]
    pub fn differences<'a>(&'a self, new: &'a Self) -> Vec<Difference<'a>> {
        let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
        self.flatten(Path::new(""), &mut before);
        new.flatten(Path::new(""), &mut after);
        let paths: BTreeSet<&PathBuf> = before.keys().chain(after.keys()).collect();
        let all = paths.into_iter().map(|path| Difference {
            path: path.clone(),
            old: before.get(path).copied(),
            new: after.get(path).copied(),
        });
        all.filter(|d| match (d.old, d.new) {
            // What is in it is told by itself.
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

    /// Whether everybody may read every file in it; when not, its content is a secret.
    #[must_use]
    pub fn is_public(&self) -> bool {
        let public = |node: &Node| match node {
            Node::File(mode, _) => mode & 0o004 != 0,
            Node::Link(_) => true,
            Node::Tree(tree) => tree.is_public(),
        };
        self.mode & 0o005 == 0o005 && self.entries.values().all(public)
    }

    /// Number of entries, and their bytes as the limits count them: names, link targets and
    /// content.
    #[must_use]
    pub fn size(&self) -> (usize, u64) {
        let mut all = (0, 0);
        for (name, node) in &self.entries {
            let (entries, bytes) = match node {
                Node::File(_, bytes) => (0, bytes.len() as u64),
                Node::Link(target) => (0, target.as_bytes().len() as u64),
                Node::Tree(tree) => tree.size(),
            };
            all = (
                all.0 + 1 + entries,
                all.1 + name.as_bytes().len() as u64 + bytes,
            );
        }
        all
    }
}

fn append(
    builder: &mut Builder<Vec<u8>>,
    kind: EntryType,
    mode: u32,
    path: &[u8],
    link: &[u8],
    bytes: &[u8],
) -> io::Result<()> {
    // As they are: the crate's own setters would take a link's target apart and put it together in
    // its own way.
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

#[cfg(test)]
mod tests;
