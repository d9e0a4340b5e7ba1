//! Reads a directory, within the limits of a target.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Read},
    os::{
        fd::OwnedFd,
        unix::ffi::{OsStrExt, OsStringExt},
    },
    path::Path,
};

use rustix::{
    fs::{self, FileType, Statx},
    io::Errno,
};

use super::{
    MAX_DEPTH, MAX_ENTRIES, Node, Tree, bits, kind, named_in, names, open, open_file, shown, status,
};
use crate::config::{MAX_TARGET, ReadError, Unacceptable};

/// Checks an entry by its path and status before it is read; the directory itself comes first,
/// with an empty path. An error refuses the directory.
pub(crate) type Check<'a> = &'a mut dyn FnMut(&Path, &Statx) -> Result<(), Unacceptable>;

/// Receives each entry with its path and status once it is open. A link has no descriptor.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(&Path, &Statx, Option<&OwnedFd>) -> io::Result<()>;

impl Tree {
    /// Reads an open directory; links are not followed.
    ///
    /// # Errors
    /// Fails at the first entry that `check` refuses, or that is neither file, directory nor link,
    /// and if the directory is too large or too deep. The entry is named.
    pub fn read(dir: &OwnedFd, check: Check<'_>) -> Result<Self, ReadError> {
        Self::read_visiting(dir, check, &mut |_, _, _| Ok(()))
    }

    /// Reads as [`Tree::read`] does, and passes each entry to `visit`.
    ///
    /// # Errors
    /// Fails as [`Tree::read`] does, and if `visit` fails.
    pub fn read_visiting(
        dir: &OwnedFd,
        check: Check<'_>,
        visit: Visit<'_>,
    ) -> Result<Self, ReadError> {
        Reader {
            check,
            visit,
            entries: 0,
            bytes: 0,
        }
        .tree(dir, Path::new(""), 0)
    }
}

struct Reader<'a> {
    check: Check<'a>,
    visit: Visit<'a>,
    /// The number of entries until now.
    entries: usize,
    /// The size until now, as [`Tree::size`] counts.
    bytes: u64,
}

/// Returns the system's error with the path that it is about.
fn failed_at(path: &Path) -> impl Fn(Errno) -> ReadError {
    move |e| ReadError::Io(io::Error::new(e.kind(), format!("`{}`: {e}", shown(path))))
}

fn unexpected_type(path: &Path, kind: FileType) -> ReadError {
    Unacceptable::EntryType(named_in(path), kind).into()
}

impl Reader<'_> {
    fn tree(&mut self, dir: &OwnedFd, path: &Path, depth: usize) -> Result<Tree, ReadError> {
        let stat = status(dir, OsStr::new("")).map_err(failed_at(path))?;
        self.examine(path, &stat, Some(dir))?;
        if depth > MAX_DEPTH {
            return Err(Unacceptable::TooDeep(shown(path), MAX_DEPTH).into());
        }
        let mut entries = BTreeMap::new();
        for name in names(dir, MAX_ENTRIES).map_err(failed_at(path))? {
            let path = path.join(&name);
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(Unacceptable::TooManyEntries(MAX_ENTRIES).into());
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
        let failed = failed_at(path);
        let stat = status(dir, name).map_err(&failed)?;
        self.count(name.as_bytes().len() as u64)?;
        match kind(&stat) {
            FileType::Directory => {
                let inner = open(dir, name).map_err(&failed)?;
                Ok(Node::Tree(self.tree(&inner, path, depth + 1)?))
            }
            FileType::Symlink => {
                self.examine(path, &stat, None)?;
                let target = fs::readlinkat(dir, name, Vec::new()).map_err(&failed)?;
                let target = OsString::from_vec(target.into_bytes());
                self.count(target.as_bytes().len() as u64)?;
                Ok(Node::Link(target))
            }
            FileType::RegularFile => self.file(open_file(dir, name).map_err(&failed)?, path),
            other => Err(unexpected_type(path, other)),
        }
    }

    fn file(&mut self, fd: OwnedFd, path: &Path) -> Result<Node, ReadError> {
        // The status of the opened file: its name may have been another file a moment ago.
        let stat = status(&fd, OsStr::new("")).map_err(failed_at(path))?;
        if kind(&stat) != FileType::RegularFile {
            return Err(unexpected_type(path, kind(&stat)));
        }
        self.examine(path, &stat, Some(&fd))?;
        let left = MAX_TARGET.saturating_sub(self.bytes);
        let mut bytes = Vec::new();
        if stat.stx_size <= left {
            File::from(fd).take(left + 1).read_to_end(&mut bytes)?;
        }
        self.count(stat.stx_size.max(bytes.len() as u64))?;
        Ok(Node::File(bits(&stat), bytes.into()))
    }

    /// Checks an entry, then passes it to the visitor.
    fn examine(
        &mut self,
        path: &Path,
        stat: &Statx,
        fd: Option<&OwnedFd>,
    ) -> Result<(), ReadError> {
        (self.check)(path, stat)?;
        Ok((self.visit)(path, stat, fd)?)
    }

    fn count(&mut self, bytes: u64) -> Result<(), ReadError> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MAX_TARGET {
            Err(Unacceptable::TooLargeInTotal(MAX_TARGET).into())
        } else {
            Ok(())
        }
    }
}
