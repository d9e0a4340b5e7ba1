//! Owners, modes, xattrs and access-control lists of a target, entry by entry: compared like bytes.

use std::{
    collections::BTreeMap,
    io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self, FileType, Statx, XattrFlags},
    io::Errno,
};

use crate::tree::{Identity, shown};

/// Access-control lists that a new entry has from its directory; they stay only where the live one
/// has them too.
pub(super) const LISTS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];

/// One entry.
#[derive(Debug, Clone)]
struct Entry {
    identity: Identity,
    kind: FileType,
    mode: u32,
    uid: u32,
    gid: u32,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// Which attribute of `now` is another one: "mode 644 -> 600".
    fn difference(&self, now: &Self) -> Option<String> {
        if self.uid != now.uid {
            return Some(format!("uid {} -> {}", self.uid, now.uid));
        }
        if self.gid != now.gid {
            return Some(format!("gid {} -> {}", self.gid, now.gid));
        }
        // A list is named first: it changes the mode too.
        if self.xattrs != now.xattrs {
            let value = |entry: &Self, name: &[u8]| {
                entry
                    .xattrs
                    .iter()
                    .find(|(known, _)| known == name)
                    .map(|(_, value)| value.clone())
            };
            let names = self.xattrs.iter().chain(&now.xattrs).map(|(name, _)| name);
            let name = names
                .clone()
                .find(|name| value(self, name) != value(now, name))
                .cloned()
                .unwrap_or_default();
            let shown = |value: Option<Vec<u8>>| {
                value.map_or_else(|| "none".to_owned(), |value| hex(&value))
            };
            let (before, after) = (shown(value(self, &name)), shown(value(now, &name)));
            return Some(format!(
                "{} {before} -> {after}",
                String::from_utf8_lossy(&name)
            ));
        }
        (self.mode != now.mode).then(|| format!("mode {:o} -> {:o}", self.mode, now.mode))
    }
}

/// The first bytes of a value, and how long it is.
fn hex(value: &[u8]) -> String {
    const SHOWN: usize = 32;
    let digits: String = value
        .iter()
        .take(SHOWN)
        .map(|b| format!("{b:02x}"))
        .collect();
    if value.len() > SHOWN {
        format!("{digits}.. ({} bytes)", value.len())
    } else {
        digits
    }
}

/// Every entry of a target by its path in it; a file is one with an empty path.
#[derive(Debug, Clone, Default)]
pub(super) struct Entries(BTreeMap<PathBuf, Entry>);

impl Entries {
    /// Of a file that is open.
    pub(super) fn of(file: &OwnedFd) -> io::Result<Self> {
        let mut entries = Self::default();
        entries.add(
            Path::new(""),
            &crate::tree::status(file, std::ffi::OsStr::new(""))?,
            Some(file),
        )?;
        Ok(entries)
    }

    /// Takes in one entry; a link has no xattrs that any program sets.
    pub(super) fn add(
        &mut self,
        path: &Path,
        stat: &Statx,
        file: Option<&OwnedFd>,
    ) -> io::Result<()> {
        let mut all = Vec::new();
        if let Some(file) = file {
            for name in xattrs(file)? {
                let value = match sized(|value| fs::fgetxattr(file, &*name, value)) {
                    Ok(value) => value,
                    // Gone since it was listed; or one that only the system may read.
                    Err(Errno::NODATA | Errno::PERM | Errno::ACCESS) => continue,
                    Err(e) => return Err(e.into()),
                };
                all.push((name, value));
            }
            all.sort();
        }
        let mode = u32::from(stat.stx_mode) & 0o7777;
        let kind = FileType::from_raw_mode(stat.stx_mode.into());
        let entry = Entry {
            identity: Identity::of(stat),
            kind,
            mode,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            xattrs: all,
        };
        self.0.insert(path.into(), entry);
        Ok(())
    }

    /// The first attribute that is another one in `now`, of entries that both have: "mode 644 ->
    /// 600", of `x` in a directory "`x` in it: mode 644 -> 600".
    pub(super) fn difference(&self, now: &Self) -> Option<String> {
        self.0.iter().find_map(|(path, before)| {
            let text = before.difference(now.0.get(path)?)?;
            Some(if path.as_os_str().is_empty() {
                text
            } else {
                format!("`{}` in it: {text}", shown(path))
            })
        })
    }

    /// The same of one entry.
    pub(super) fn difference_at(&self, now: &Self, path: &Path) -> Option<String> {
        self.0.get(path)?.difference(now.0.get(path)?)
    }

    /// Whether there is one of this type at `path`.
    pub(super) fn has(&self, path: &Path, kind: FileType) -> bool {
        self.0.get(path).is_some_and(|entry| entry.kind == kind)
    }

    /// Where they are.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.keys().map(PathBuf::as_path)
    }

    /// Which inodes they are.
    pub(super) fn identities(&self) -> impl Iterator<Item = Identity> + '_ {
        self.0.values().map(|entry| entry.identity)
    }

    /// Which inode one of them is.
    pub(super) fn identity(&self, path: &Path) -> Option<Identity> {
        self.0.get(path).map(|entry| entry.identity)
    }
}

/// Makes the xattrs of `to` those of `from`.
pub(super) fn copy_xattrs(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    let names = xattrs(from)?;
    for name in &names {
        let value = sized(|value| fs::fgetxattr(from, &**name, value))?;
        match fs::fsetxattr(to, &**name, &value, XattrFlags::empty()) {
            // Labels that only the system may set are set by it.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::PERM) => {}
            Err(e) => return Err(e.into()),
        }
    }
    for name in xattrs(to)?
        .iter()
        .filter(|name| LISTS.contains(&name.as_slice()) && !names.contains(name))
    {
        fs::fremovexattr(to, &**name)?;
    }
    Ok(())
}

fn xattrs(file: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    match sized(|names| fs::flistxattr(file, names)) {
        Ok(names) => Ok(names
            .split(|b| *b == 0)
            .filter(|n| !n.is_empty())
            .map(<[u8]>::to_vec)
            .collect()),
        Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
        Err(e) => Err(e.into()),
    }
}

/// What the kernel writes into a buffer that is large enough: most need little, and none more than
/// 64 KiB.
fn sized(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; 256];
    let length = match read(&mut bytes) {
        Err(Errno::RANGE) => {
            bytes.resize(64 << 10, 0);
            read(&mut bytes)?
        }
        said => said?,
    };
    bytes.truncate(length);
    Ok(bytes)
}
