//! Owners, modes, xattrs and access-control lists of a target, entry by entry. They are compared as
//! its bytes are.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self, FileType, Statx, XattrFlags},
    io::Errno,
};

use crate::tree::{Identity, bits, kind, named_in, status};

/// The access-control lists, as xattrs, that a new entry gets from its directory (acl(5)). They
/// stay only if the live entry has them too.
pub(super) const ACL_XATTRS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// The most bytes of an xattr, and of the list of their names: 64 KiB (`XATTR_SIZE_MAX` and
/// `XATTR_LIST_MAX`, xattr(7)).
const MAX_XATTR: usize = 64 << 10;

/// The bytes of an xattr that a message shows.
const SHOWN_BYTES: usize = 32;

/// The name and value of one xattr.
type Xattr = (Vec<u8>, Vec<u8>);

/// The attributes of one entry.
#[derive(Debug, Clone)]
struct Entry {
    identity: Identity,
    kind: FileType,
    mode: u32,
    uid: u32,
    gid: u32,
    /// Sorted by name.
    xattrs: Vec<Xattr>,
}

impl Entry {
    /// Returns the first attribute that differs in `now`: "mode 644 -> 600".
    fn difference(&self, now: &Self) -> Option<String> {
        if self.uid != now.uid {
            return Some(format!("uid {} -> {}", self.uid, now.uid));
        }
        if self.gid != now.gid {
            return Some(format!("gid {} -> {}", self.gid, now.gid));
        }
        // Xattrs come before the mode: a change of an access-control list changes the mode too.
        if let Some(difference) = self.xattr_difference(now) {
            return Some(difference);
        }
        (self.mode != now.mode).then(|| format!("mode {:o} -> {:o}", self.mode, now.mode))
    }

    fn xattr_difference(&self, now: &Self) -> Option<String> {
        let names = self.xattrs.iter().chain(&now.xattrs).map(|(name, _)| name);
        let name = { names }.find(|name| self.xattr(name) != now.xattr(name))?;
        let shown = |value: Option<&[u8]>| value.map_or_else(|| "none".to_owned(), hex);
        Some(format!(
            "{} {} -> {}",
            String::from_utf8_lossy(name),
            shown(self.xattr(name)),
            shown(now.xattr(name))
        ))
    }

    fn xattr(&self, name: &[u8]) -> Option<&[u8]> {
        let xattr = self.xattrs.iter().find(|(known, _)| known == name);
        xattr.map(|(_, value)| value.as_slice())
    }
}

/// Shows the first bytes of a value, and its length if it has more.
fn hex(value: &[u8]) -> String {
    let digits: String = value
        .iter()
        .take(SHOWN_BYTES)
        .map(|b| format!("{b:02x}"))
        .collect();
    if value.len() > SHOWN_BYTES {
        format!("{digits}.. ({} bytes)", value.len())
    } else {
        digits
    }
}

/// The attributes of every entry of a target, by the path in it. A file is one entry with an empty
/// path.
#[derive(Debug, Clone, Default)]
pub(super) struct Entries(BTreeMap<PathBuf, Entry>);

impl Entries {
    /// Reads the attributes of an open file.
    pub(super) fn of(file: &OwnedFd) -> io::Result<Self> {
        let mut entries = Self::default();
        let stat = status(file, OsStr::new(""))?;
        entries.add(Path::new(""), &stat, Some(file))?;
        Ok(entries)
    }

    /// Adds one entry. A link has no descriptor: programs set no xattrs of links.
    pub(super) fn add(
        &mut self,
        path: &Path,
        stat: &Statx,
        file: Option<&OwnedFd>,
    ) -> io::Result<()> {
        let entry = Entry {
            identity: Identity::of(stat),
            kind: kind(stat),
            mode: bits(stat),
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            xattrs: file.map(readable_xattrs).transpose()?.unwrap_or_default(),
        };
        self.0.insert(path.into(), entry);
        Ok(())
    }

    /// Returns the first attribute that differs in `now`, of the entries that both have: "mode 644
    /// -> 600", or "`x` in it: mode 644 -> 600" for an entry of a directory.
    pub(super) fn difference(&self, now: &Self) -> Option<String> {
        self.0.iter().find_map(|(path, before)| {
            let text = before.difference(now.0.get(path)?)?;
            Some(if path.as_os_str().is_empty() {
                text
            } else {
                format!("{}: {text}", named_in(path))
            })
        })
    }

    /// Returns the first attribute of the entry at `path` that differs in `now`.
    pub(super) fn difference_at(&self, now: &Self, path: &Path) -> Option<String> {
        self.0.get(path)?.difference(now.0.get(path)?)
    }

    /// Tells whether an entry of this type is at `path`.
    pub(super) fn has(&self, path: &Path, kind: FileType) -> bool {
        self.0.get(path).is_some_and(|entry| entry.kind == kind)
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }

    pub(super) fn identities(&self) -> impl Iterator<Item = Identity> + '_ {
        self.0.values().map(|entry| entry.identity)
    }

    pub(super) fn identity(&self, path: &Path) -> Option<Identity> {
        self.0.get(path).map(|entry| entry.identity)
    }
}

/// Makes the xattrs of `to` those of `from`.
pub(super) fn copy_xattrs(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let names = xattr_names(from)?;
    for name in &names {
        let value = sized(|value| fs::fgetxattr(from, &**name, value))?;
        match fs::fsetxattr(to, &**name, &value, XattrFlags::empty()) {
            // The system sets by itself the labels that only it may set.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(e) => return Err(e.into()),
        }
    }
    for name in xattr_names(to)?
        .iter()
        .filter(|name| ACL_XATTRS.contains(&name.as_slice()) && !names.contains(name))
    {
        fs::fremovexattr(to, &**name)?;
    }
    Ok(())
}

/// Returns the xattrs that the caller may read, sorted by name.
fn readable_xattrs(file: &OwnedFd) -> io::Result<Vec<Xattr>> {
    let mut xattrs = Vec::new();
    for name in xattr_names(file)? {
        match sized(|value| fs::fgetxattr(file, &*name, value)) {
            Ok(value) => xattrs.push((name, value)),
            // It was removed after it was listed, or only the system may read it.
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS) => {}
            Err(e) => return Err(e.into()),
        }
    }
    xattrs.sort();
    Ok(xattrs)
}

fn xattr_names(file: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    match sized(|names| fs::flistxattr(file, names)) {
        Ok(names) => Ok(names
            .split(|b| *b == 0)
            .filter(|name| !name.is_empty())
            .map(<[u8]>::to_vec)
            .collect()),
        Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
        Err(e) => Err(e.into()),
    }
}

/// Returns the bytes that a system call writes into a buffer: 256 bytes first, which most need,
/// then the largest that the kernel fills.
fn sized(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; 256];
    let length = match read(&mut bytes) {
        Err(Errno::RANGE) => {
            bytes.resize(MAX_XATTR, 0);
            read(&mut bytes)?
        }
        result => result?,
    };
    bytes.truncate(length);
    Ok(bytes)
}
