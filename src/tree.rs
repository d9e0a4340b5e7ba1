//! A directory as a config: names, types, modes, link targets and bytes. One archive that `tar tvf` lists is its content and what is digested.

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
/// What a name and a link's target have room for in a header; a longer one stands in an entry before it.
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

/// Looks at every entry, the directory itself first (an empty path), before it is read: a sentence refuses it.
pub type Check<'a> = &'a mut dyn FnMut(&Path, &Statx) -> Result<(), String>;

/// A path as it can be shown on one line, whatever signs are in it.
#[must_use]
pub fn shown(path: &Path) -> String {
    path.to_string_lossy().chars().map(|c| if c.is_control() { c.escape_default().to_string() } else { c.into() }).collect()
}

/// Status of `name` in `dir` itself, never of what a link leads to; an empty name is `dir`.
///
/// # Errors
/// The system's.
pub fn status(dir: &OwnedFd, name: &OsStr) -> Result<Statx, Errno> {
    let flags = if name.is_empty() { AtFlags::EMPTY_PATH } else { AtFlags::SYMLINK_NOFOLLOW };
    fs::statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

/// Opens the directory `name` in `dir`; a link is none.
///
/// # Errors
/// The system's.
pub fn open(dir: &OwnedFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    fs::openat(dir, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Names in a directory, without itself and its parent; of a larger one so many as `limit` and one more.
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
        let at = |e: Errno| ReadError::Io(io::Error::new(e.kind(), format!("`{}`: {e}", shown(path))));
        let stat = status(dir, OsStr::new("")).map_err(at)?;
        (self.check)(path, &stat).map_err(ReadError::Unacceptable)?;
        (self.visit)(path, &stat, Some(dir))?;
        if depth > MAX_DEPTH {
            return Err(ReadError::Unacceptable(format!("`{}` lies more than {MAX_DEPTH} directories deep", shown(path))));
        }
        let mut entries = BTreeMap::new();
        for name in names(dir, MAX_ENTRIES).map_err(at)? {
            let path = path.join(&name);
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(ReadError::Unacceptable(format!("it has more than {MAX_ENTRIES} entries")));
            }
            let node = self.node(dir, &name, &path, depth)?;
            entries.insert(name, node);
        }
        Ok(Tree { mode: bits(&stat), entries })
    }

    fn node(&mut self, dir: &OwnedFd, name: &OsStr, path: &Path, depth: usize) -> Result<Node, ReadError> {
        let at = |e: Errno| ReadError::Io(io::Error::new(e.kind(), format!("`{}`: {e}", shown(path))));
        let kind = |stat: &Statx| fs::FileType::from_raw_mode(stat.stx_mode.into());
        let stat = status(dir, name).map_err(at)?;
        self.take(name.as_bytes().len() as u64)?;
        match kind(&stat) {
            fs::FileType::Directory => Ok(Node::Tree(self.tree(&open(dir, name).map_err(at)?, path, depth + 1)?)),
            fs::FileType::Symlink => {
                (self.check)(path, &stat).map_err(ReadError::Unacceptable)?;
                (self.visit)(path, &stat, None)?;
                let target = OsString::from_vec(fs::readlinkat(dir, name, Vec::new()).map_err(at)?.into_bytes());
                self.take(target.as_bytes().len() as u64)?;
                Ok(Node::Link(target))
            }
            fs::FileType::RegularFile => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
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
        if self.bytes > MAX_TARGET { Err(ReadError::Unacceptable(format!("it is larger than {MAX_TARGET} bytes in all"))) } else { Ok(()) }
    }
}

fn bits(stat: &Statx) -> u32 {
    u32::from(stat.stx_mode) & 0o7777
}

fn strange(path: &Path, kind: fs::FileType) -> ReadError {
    ReadError::Unacceptable(format!("`{}` in it is neither file, directory nor link ({kind:?})", shown(path)))
}

impl Tree {
    /// Reads an open directory, never through a link; what `check` refuses, what is neither file, directory nor link, and what is too large or deep ends it.
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
        Reader { check, visit, entries: 0, bytes: 0 }.tree(dir, Path::new(""), 0)
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
                Node::File(mode, bytes) => append(builder, EntryType::Regular, *mode, &path, b"", bytes)?,
                // The kernel gives every link this mode.
                Node::Link(target) => append(builder, EntryType::Symlink, 0o777, &path, target.as_bytes(), b"")?,
                Node::Tree(tree) => {
                    path.push(b'/');
                    tree.append(builder, &path)?;
                }
            }
        }
        Ok(())
    }

    /// What becomes of this live directory when `new` is put over it. Modes stay where the type does, new entries have their own; what only the
    /// live directory has stays, unless `prune`.
    ///
    /// # Errors
    /// What would become too large; a directory with something in it that a file or link would take the place of, without `prune`.
    pub fn overlaid(&self, new: &Self, prune: bool) -> Result<Self, String> {
        let over = self.overlaid_at(new, prune, Path::new(""))?;
        match over.size() {
            (entries, _) if entries > MAX_ENTRIES => Err(format!("with what stays there it would have more than {MAX_ENTRIES} entries")),
            (_, bytes) if bytes > MAX_TARGET => Err(format!("with what stays there it would be larger than {MAX_TARGET} bytes in all")),
            _ => Ok(over),
        }
    }

    fn overlaid_at(&self, new: &Self, prune: bool, path: &Path) -> Result<Self, String> {
        let mut entries = if prune { BTreeMap::new() } else { self.entries.clone() };
        for (name, node) in &new.entries {
            let path = path.join(name);
            let node = match (self.entries.get(name), node) {
                (Some(Node::Tree(live)), Node::Tree(new)) => Node::Tree(live.overlaid_at(new, prune, &path)?),
                (Some(Node::Tree(live)), _) if !prune && !live.entries.is_empty() => {
                    return Err(format!("`{}` is a directory with something in it and would become none; if that may go, say --prune", shown(&path)));
                }
                (Some(Node::File(mode, _)), Node::File(_, bytes)) => Node::File(*mode, bytes.clone()),
                (_, node) => node.clone(),
            };
            entries.insert(name.clone(), node);
        }
        Ok(Self { mode: self.mode, entries })
    }

    /// Entries that differ, by path.
    #[must_use]
    pub fn differences<'a>(&'a self, new: &'a Self) -> Vec<Difference<'a>> {
        let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
        self.flatten(Path::new(""), &mut before);
        new.flatten(Path::new(""), &mut after);
        let paths: BTreeSet<&PathBuf> = before.keys().chain(after.keys()).collect();
        let all = paths.into_iter().map(|path| Difference { path: path.clone(), old: before.get(path).copied(), new: after.get(path).copied() });
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

    /// Number of entries, and their bytes as the limits count them: names, link targets and content.
    #[must_use]
    pub fn size(&self) -> (usize, u64) {
        let mut all = (0, 0);
        for (name, node) in &self.entries {
            let (entries, bytes) = match node {
                Node::File(_, bytes) => (0, bytes.len() as u64),
                Node::Link(target) => (0, target.as_bytes().len() as u64),
                Node::Tree(tree) => tree.size(),
            };
            all = (all.0 + 1 + entries, all.1 + name.as_bytes().len() as u64 + bytes);
        }
        all
    }
}

fn append(builder: &mut Builder<Vec<u8>>, kind: EntryType, mode: u32, path: &[u8], link: &[u8], bytes: &[u8]) -> io::Result<()> {
    // As they are: the crate's own setters would take a link's target apart and put it together in its own way.
    for (kind, text) in [(EntryType::GNULongName, path), (EntryType::GNULongLink, link)] {
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
        field.iter_mut().zip(text).for_each(|(to, from)| *to = *from);
    }
    header.set_cksum();
    header
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::os::unix::fs::{PermissionsExt, symlink};

    use proptest::prelude::*;

    use super::*;

    fn file(text: &str) -> Node {
        Node::File(0o644, text.as_bytes().into())
    }

    fn tree<const N: usize>(entries: [(&str, Node); N]) -> Tree {
        Tree { mode: 0o755, entries: entries.into_iter().map(|(name, node)| (name.into(), node)).collect() }
    }

    fn read(path: &Path) -> Result<Tree, ReadError> {
        Tree::read(&File::open(path).unwrap().into(), &mut |_, _| Ok(()))
    }

    /// Path, mode, link target and bytes.
    type Unpacked = (Vec<u8>, u32, Vec<u8>, Vec<u8>);

    /// Reads an archive as anybody would.
    fn unpacked(archive: &[u8]) -> Vec<Unpacked> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let (mut bytes, header) = (Vec::new(), entry.header().clone());
            assert_eq!((header.mtime().unwrap(), header.uid().unwrap(), header.gid().unwrap()), (0, 0, 0));
            entry.read_to_end(&mut bytes).unwrap();
            (entry.path_bytes().into_owned(), header.mode().unwrap(), entry.link_name_bytes().unwrap_or_default().into_owned(), bytes)
        });
        entries.collect()
    }

    #[test]
    fn an_archive_says_everything_and_is_read_by_others() {
        let long = "n".repeat(255);
        let far = format!("{}/..//x", "../".repeat(60));
        let inner = Tree { mode: 0o2750, entries: [(long.clone().into(), file("x"))].into() };
        let all = tree([("a\nb c", file("1\n")), ("empty", file("")), ("l", Node::Link(far.clone().into())), ("sub", Node::Tree(inner))]);
        let archive = all.archive().unwrap();
        let want = [
            ("./", 0o755, "", ""),
            ("./a\nb c", 0o644, "", "1\n"),
            ("./empty", 0o644, "", ""),
            ("./l", 0o777, &far, ""),
            ("./sub/", 0o2750, "", ""),
            (&format!("./sub/{long}"), 0o644, "", "x"),
        ];
        let want: Vec<_> = want.into_iter().map(|(p, m, l, b)| (p.as_bytes().to_vec(), m, l.as_bytes().to_vec(), b.as_bytes().to_vec())).collect();
        assert_eq!(unpacked(&archive), want);
        assert_eq!(archive, all.clone().archive().unwrap());
        assert_eq!(Tree::unpack(&archive).unwrap(), all);
        assert!(Tree::unpack(b"").is_err() && Tree::unpack(&archive[512..]).is_err() && Tree::unpack(&archive[..700]).is_err());
    }

    #[test]
    fn what_is_read_is_what_stands_there() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::create_dir(at("sub")).unwrap();
        std::fs::write(at("sub/a"), "1").unwrap();
        symlink("/etc/shadow", at("l")).unwrap();
        symlink("sub", at("d")).unwrap();
        for (path, mode) in [(".", 0o755), ("sub", 0o700), ("sub/a", 0o640)] {
            std::fs::set_permissions(at(path), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let sub = Tree { mode: 0o700, entries: [("a".into(), Node::File(0o640, b"1"[..].into()))].into() };
        let wanted = tree([("l", Node::Link("/etc/shadow".into())), ("d", Node::Link("sub".into())), ("sub", Node::Tree(sub))]);
        assert_eq!(read(dir.path()).unwrap(), wanted);
        assert_eq!((wanted.is_public(), wanted.size()), (false, (4, "l/etc/shadowdsubsuba1".len() as u64)));
    }

    #[test]
    fn what_is_no_config_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let says = |wanted: &str| {
            let said = read(dir.path()).unwrap_err().to_string();
            assert!(said.contains(wanted), "{said}");
        };
        let deep = dir.path().join("d/".repeat(MAX_DEPTH + 1));
        std::fs::create_dir_all(&deep).unwrap();
        says("more than 64 directories deep");
        std::fs::remove_dir_all(dir.path().join("d")).unwrap();
        let fifo = dir.path().join("pi\npe");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        says("`pi\\npe` in it is neither");
        std::fs::remove_file(&fifo).unwrap();
        for name in ["x", "y"] {
            std::fs::write(dir.path().join(name), vec![0; usize::try_from(MAX_TARGET).unwrap() / 2]).unwrap();
        }
        says("larger than");
        std::fs::remove_file(dir.path().join("x")).unwrap();
        for at in 0..MAX_ENTRIES {
            std::fs::write(dir.path().join(at.to_string()), "").unwrap();
        }
        says("more than 10000 entries");
    }

    #[test]
    fn put_over_a_live_directory_modes_stay_and_what_is_not_new_stays_or_goes() {
        let live = tree([
            ("a", Node::File(0o600, b"old"[..].into())),
            ("sub", Node::Tree(tree([("x", file("x"))]))),
            ("gone", file("1")),
            ("l", Node::Link("a".into())),
        ]);
        let new = tree([("a", file("new")), ("sub", Node::Tree(Tree { mode: 0o700, ..tree([("y", file("y"))]) })), ("l", file("no link"))]);
        let over = live.overlaid(&new, false).unwrap();
        let sub = Node::Tree(tree([("x", file("x")), ("y", file("y"))]));
        assert_eq!(over, tree([("a", Node::File(0o600, b"new"[..].into())), ("sub", sub), ("gone", file("1")), ("l", file("no link"))]));
        let pruned = live.overlaid(&new, true).unwrap();
        let sub = Node::Tree(tree([("y", file("y"))]));
        assert_eq!(pruned, tree([("a", Node::File(0o600, b"new"[..].into())), ("sub", sub), ("l", file("no link"))]));
        let told: Vec<_> = live.differences(&pruned).into_iter().map(|d| (d.path.display().to_string(), d.old.is_some(), d.new.is_some())).collect();
        let wanted = [("a", true, true), ("gone", true, false), ("l", true, true), ("sub/x", true, false), ("sub/y", false, true)];
        assert_eq!(told, wanted.map(|(path, old, new)| (path.to_owned(), old, new)));
        let half = |name: &str| tree([(name, Node::File(0o644, vec![0; usize::try_from(MAX_TARGET).unwrap() / 2].into()))]);
        assert!(half("a").overlaid(&half("b"), false).unwrap_err().contains("larger than") && half("a").overlaid(&half("b"), true).is_ok());
        let over = tree([("sub", file("no directory"))]);
        assert!(live.overlaid(&over, false).unwrap_err().contains("`sub`") && live.overlaid(&over, true).is_ok());
    }

    /// Small trees over few names, so that they meet.
    fn trees() -> impl Strategy<Value = Tree> {
        let leaf = prop_oneof![(0..3u8).prop_map(|n| file(&n.to_string())), (0..2u8).prop_map(|n| Node::Link(n.to_string().into()))];
        let node = leaf.prop_recursive(3, 12, 3, |inner| {
            proptest::collection::btree_map((0..3u8).prop_map(|n| n.to_string().into()), inner, 0..3)
                .prop_map(|entries| Node::Tree(Tree { mode: 0o755, entries }))
        });
        proptest::collection::btree_map((0..3u8).prop_map(|n| n.to_string().into()), node, 0..3).prop_map(|entries| Tree { mode: 0o755, entries })
    }

    proptest! {
        #[test]
        fn the_archive_is_the_content(one in trees(), other in trees()) {
            prop_assert_eq!(one == other, one.archive().unwrap() == other.archive().unwrap());
            prop_assert_eq!(Tree::unpack(&one.archive().unwrap()).unwrap(), one.clone());
            prop_assert_eq!(one == other, one.differences(&other).is_empty());
        }

        #[test]
        fn pruned_it_is_the_new_one_and_put_twice_it_is_the_same(live in trees(), new in trees()) {
            prop_assert_eq!(&live.overlaid(&new, true).unwrap(), &new);
            if let Ok(over) = live.overlaid(&new, false) {
                prop_assert_eq!(&over.overlaid(&new, false).unwrap(), &over);
                prop_assert!(over.differences(&new).iter().all(|d| d.new.is_none()), "everything new is in it");
            }
        }
    }
}
