//! A target that is a directory. What it was stays beside it under a hidden name until the run
//! ends: a rollback writes nothing.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        self, AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Statx, StatxAttributes, Timespec,
        Timestamps, Uid, XattrFlags,
    },
    io::Errno,
};

use super::{
    entries::{Entries, LISTS, copy_xattrs},
    error::InstallError,
    late::Late,
    spot::{Beside, Seen, TargetSlot},
    stat::{ctime, fixed, kind},
    sync::SYNCED_SINGLY,
};
use crate::{
    config::ReadError,
    runs::Stage,
    step::Content,
    tree::{Identity, Known, Node, Tree, open, shown, status},
};

#[cfg(test)]
mod tests;

/// A directory to replace.
#[derive(Debug)]
pub(crate) struct TreeTarget {
    pub(super) spot: TargetSlot,
}

impl TreeTarget {
    pub(super) fn new(spot: TargetSlot) -> Self {
        Self { spot }
    }

    pub(super) fn read(&self) -> Result<Content, InstallError> {
        let no = |e: ReadError| self.spot.refused(e.to_string());
        let dir = open(&self.spot.dir, &self.spot.name).map_err(|e| no(ReadError::Io(e.into())))?;
        let tree = look(&dir, |_| None).map_err(no)?;
        Content::from_tree(tree).map_err(|e| self.spot.io(e))
    }

    pub(super) fn survey(&mut self) -> Result<Content, InstallError> {
        let no = |e: ReadError| self.spot.refused(e.to_string());
        let dir = open(&self.spot.dir, &self.spot.name).map_err(|e| no(ReadError::Io(e.into())))?;
        let (tree, entries) = visit(&dir, |_| None).map_err(no)?;
        self.spot.expects = Some(entries);
        Content::from_tree(tree).map_err(|e| self.spot.io(e))
    }

    pub(super) fn digest(&self) -> Option<String> {
        digest_of(&self.spot.dir, &self.spot.name)
    }

    pub(super) fn ctime(&self) -> Option<i128> {
        let dir = open(&self.spot.dir, &self.spot.name).ok()?;
        let mut newest = status(&dir, OsStr::new("")).ok().map(|stat| ctime(&stat))?;
        let newer = |_: &Path, stat: &Statx| {
            newest = newest.max(ctime(stat));
            Ok(())
        };
        Tree::read(&dir, &mut { newer }).ok()?;
        Some(newest)
    }

    pub(super) fn stage(&mut self, to: &Content, run: &str) -> Result<PathBuf, InstallError> {
        let Some(wanted) = &to.tree else {
            return Err(self
                .spot
                .refused("it is a directory, and would become a file"));
        };
        let (live, now) = self.guard()?;
        self.spot.writable()?;
        let (_, entries) = visit(&live, |_| None).map_err(|e| self.spot.refused(e.to_string()))?;
        let identities: Vec<Identity> = entries.identities().collect();
        self.spot.expects.get_or_insert(entries);
        let name = self.spot.staging_name(run);
        self.spot.staged = Some(Beside {
            name: name.clone(),
            known: Known {
                empty: true,
                ..Known::default()
            },
            was: None,
        });
        let said = self
            .write(&name, wanted, (&live, &now), identities)
            .and_then(|()| match seen(&self.spot.dir, &name) {
                Some(staged) if staged.sha256 == to.sha256 => Ok(()),
                _ => Err(self
                    .spot
                    .refused("its filesystem does not keep names, modes or links as they are")),
            });
        match said {
            Ok(()) => Ok(self.spot.path.with_file_name(name)),
            Err(e) => {
                self.spot.unstage();
                Err(e)
            }
        }
    }

    /// The directory, and what is in it, where all of that may be replaced.
    pub(super) fn guard(&self) -> Result<(OwnedFd, Tree), InstallError> {
        let stat = self.spot.status().map_err(|e| self.spot.io(e))?;
        self.spot.guard(&stat)?;
        let live = open(&self.spot.dir, &self.spot.name).map_err(|e| self.spot.io(e))?;
        let now = look(&live, fixed).map_err(|e| self.spot.refused(e.to_string()))?;
        Ok((live, now))
    }

    fn write(
        &mut self,
        name: &OsStr,
        wanted: &Tree,
        (live, now): (&OwnedFd, &Tree),
        identities: Vec<Identity>,
    ) -> Result<(), InstallError> {
        let dir = self.spot.dir.clone();
        let mut probe = OsString::from(name);
        probe.push("-probe");
        for name in [name, &probe] {
            self.spot.note(name, Stage::Wanted, Vec::new())?;
            fs::mkdirat(&*dir, name, Mode::RWXU).map_err(|e| self.spot.staging_error(e))?;
        }
        // Both are empty yet, so it does not matter which is which.
        let exchanged = fs::renameat_with(&*dir, name, &*dir, &*probe, RenameFlags::EXCHANGE);
        fs::unlinkat(&*dir, &*probe, AtFlags::REMOVEDIR).map_err(|e| self.spot.staging_error(e))?;
        self.spot
            .staging
            .gone(&self.spot.path.with_file_name(&probe));
        match exchanged {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                return Err(self
                    .spot
                    .refused("its filesystem cannot exchange two directories in one step"));
            }
            Err(e) => return Err(self.spot.staging_error(e)),
        }
        let singly = wanted.size().0 <= SYNCED_SINGLY;
        let failed = |e: io::Error| self.spot.staging_error(e);
        let staged = open(&dir, name).map_err(|e| failed(e.into()))?;
        let stat = status(&staged, OsStr::new("")).map_err(|e| failed(e.into()))?;
        // Whose directory it stands in can put another one there: one of another user, or with
        // something in it, is not the one just made.
        let is_empty = crate::tree::names(&staged, 0)
            .map_err(|e| failed(e.into()))?
            .is_empty();
        if stat.stx_uid != rustix::process::geteuid().as_raw() || !is_empty {
            return Err(failed(io::Error::other(
                "another directory was put in its place",
            )));
        }
        let top = Identity::of(&stat);
        self.spot.note(name, Stage::Sealed, vec![top])?;
        if let Some(beside) = &mut self.spot.staged {
            beside.known.sealed.insert(top.unwritten());
        }
        let mut models = Models {
            expects: self.spot.expects.as_ref(),
            entries: Entries::default(),
            is_whole: true,
        };
        let owner = fill(
            wanted,
            &staged,
            Some((live, now)),
            (Uid::ROOT, Gid::ROOT),
            (Path::new(""), singly),
            &mut models,
        );
        let owner = owner.map_err(|e| self.spot.staging_error(e))?;
        // No other user can enter it yet. An entry that another user has exchanged since the survey
        // would make the content readable to that user.
        let Models {
            entries, is_whole, ..
        } = models;
        self.spot.has_expected(&entries)?;
        if !is_whole {
            return Err(self.spot.drifted());
        }
        // What stands there once its owner can enter it: these, or after the exchange those.
        let (_, entries) =
            visit(&staged, |_| None).map_err(|e| self.spot.refused(e.to_string()))?;
        let all: Vec<Identity> = entries
            .identities()
            .chain([top.owned_by(owner.0.as_raw())])
            .chain(identities)
            .collect();
        self.spot.note(name, Stage::Whole, all.clone())?;
        if let Some(beside) = &mut self.spot.staged {
            beside.known.whole.extend(all);
        }
        let sealed = dress(&staged, Some(live), owner, wanted.mode);
        let synced = sealed.and_then(|()| {
            if singly {
                Ok(fs::fsync(&staged)?)
            } else {
                Ok(fs::syncfs(&staged)?)
            }
        });
        synced.map_err(|e| self.spot.staging_error(e))
    }

    pub(super) fn install(
        &mut self,
        from: &str,
        to: &Content,
        run: &str,
    ) -> Result<bool, InstallError> {
        let now = seen(&self.spot.dir, &self.spot.name);
        if self.spot.is_done(now.as_ref(), from, to)? {
            return Ok(false);
        }
        let installs = match self.ready(to) {
            Some(ready) => ready,
            // What stands beside it was edited: it is written anew, and that stays until the end.
            None => {
                self.spot.old.extend(self.spot.staged.take());
                let mut run = format!("{run}-again");
                while status(&self.spot.dir, &self.spot.staging_name(&run)).is_ok() {
                    run.push_str("-again");
                }
                self.stage(to, &run)?;
                self.ready(to).ok_or_else(|| self.spot.drifted())?
            }
        };
        let name = self
            .spot
            .staged
            .as_ref()
            .map(|beside| beside.name.clone())
            .unwrap_or_default();
        // The same content in other inodes than when it was staged.
        let came_out: Vec<Identity> = now
            .map(|now| now.entries.identities().collect())
            .unwrap_or_default();
        let is_known = |identity: &Identity| {
            self.spot
                .staged
                .as_ref()
                .is_some_and(|beside| beside.known.whole.contains(identity))
        };
        if !came_out.iter().all(is_known) {
            self.spot.note(&name, Stage::Whole, came_out.clone())?;
        }
        match self.spot.exchange(&name, from, seen)? {
            Ok(came) => {
                if let Some(beside) = &mut self.spot.staged {
                    beside.known.whole.extend(came.entries.identities());
                    beside.was = came.tree.map(|tree| (tree, came.entries));
                }
                self.spot.expects = Some(installs);
                Ok(true)
            }
            Err(e) => Err(self.spot.refused(format!(
                "its filesystem cannot exchange it in one step: {e}"
            ))),
        }
    }

    /// The attributes of what stands beside it, where that is `to` as it was made, or as it came
    /// out of an exchange.
    fn ready(&self, to: &Content) -> Option<Entries> {
        let beside = self.spot.staged.as_ref()?;
        let staged =
            seen(&self.spot.dir, &beside.name).filter(|staged| staged.sha256 == to.sha256)?;
        let is_ours = staged
            .entries
            .identities()
            .all(|identity| beside.known.whole.contains(&identity));
        let is_same = beside
            .was
            .as_ref()
            .is_none_or(|(_, was)| was.difference(&staged.entries).is_none());
        (is_ours && is_same).then_some(staged.entries)
    }

    /// As [`super::Target::late`].
    pub(super) fn late(&mut self) -> Vec<Late> {
        let (dir, path) = (self.spot.dir.clone(), self.spot.path.clone());
        let mut all = Vec::new();
        for beside in self.spot.staged.iter_mut().chain(&mut self.spot.old) {
            let Some((was, before)) = &beside.was else {
                continue;
            };
            let Some(now) = seen(&dir, &beside.name) else {
                all.push(Late {
                    path: path.clone(),
                    what: format!(
                        "`{}` cannot be read any more",
                        shown(Path::new(&beside.name))
                    ),
                    bytes: None,
                });
                continue;
            };
            let Some(tree) = now.tree else { continue };
            let mut edits = BTreeMap::new();
            for difference in was.differences(&tree) {
                let (what, bytes) = match (difference.old, difference.new) {
                    (_, None) => ("removed", None),
                    (Some(Node::File(_, old)), Some(Node::File(_, new))) if old == new => continue,
                    (_, Some(Node::File(_, bytes))) => ("content", Some(bytes.to_vec())),
                    (_, Some(Node::Link(to))) => ("link", Some(to.as_encoded_bytes().to_vec())),
                    // What is in it is told by itself; the directory stays.
                    (_, Some(Node::Tree(_))) => continue,
                };
                // Its bytes are kept, so it may go with the rest; by what it is now.
                if bytes.is_some() {
                    beside
                        .known
                        .whole
                        .extend(now.entries.identity(&difference.path));
                }
                edits.insert(difference.path, (what.to_owned(), bytes));
            }
            for at in before.paths() {
                if let Some(what) = before.difference_at(&now.entries, at) {
                    beside.known.whole.extend(now.entries.identity(at));
                    edits.entry(at.to_owned()).or_insert((what, None));
                }
            }
            all.extend(edits.into_iter().map(|(at, (what, bytes))| Late {
                path: path.join(at),
                what,
                bytes,
            }));
        }
        all
    }
}

/// Reads a directory of the fleet; what is mounted in it would be taken along, or deleted, and what
/// `more` says something of is refused.
fn look(dir: &OwnedFd, more: impl Fn(&Statx) -> Option<&'static str>) -> Result<Tree, ReadError> {
    Tree::read(dir, &mut check(dir, more)?)
}

/// The same, with the attributes of every entry.
fn visit(
    dir: &OwnedFd,
    more: impl Fn(&Statx) -> Option<&'static str>,
) -> Result<(Tree, Entries), ReadError> {
    let mut entries = Entries::default();
    let tree = Tree::visited(dir, &mut check(dir, more)?, &mut |path, stat, file| {
        entries.add(path, stat, file)
    })?;
    Ok((tree, entries))
}

fn check(
    dir: &OwnedFd,
    more: impl Fn(&Statx) -> Option<&'static str>,
) -> io::Result<impl FnMut(&Path, &Statx) -> Result<(), String>> {
    let device = |stat: &Statx| (stat.stx_dev_major, stat.stx_dev_minor);
    let outer = status(dir, OsStr::new("")).map(|stat| device(&stat))?;
    Ok(move |path: &Path, stat: &Statx| {
        // Of files, layered filesystems tell the device of a layer.
        let foreign = kind(stat) == FileType::Directory && device(stat) != outer;
        let mounted = foreign || stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
        let why = if mounted {
            Some("is a mount point")
        } else {
            more(stat)
        };
        let who = if path.as_os_str().is_empty() {
            "it".to_owned()
        } else {
            format!("`{}` in it", shown(path))
        };
        why.map_or(Ok(()), |why| Err(format!("{who} {why}")))
    })
}

fn digest_of(dir: &OwnedFd, name: &OsStr) -> Option<String> {
    let tree = look(&open(dir, name).ok()?, |_| None).ok()?;
    Some(Content::from_tree(tree).ok()?.sha256)
}

fn seen(dir: &OwnedFd, name: &OsStr) -> Option<Seen> {
    let fd = open(dir, name).ok()?;
    let (tree, entries) = visit(&fd, |_| None).ok()?;
    let Content { sha256, tree, .. } = Content::from_tree(tree).ok()?;
    Some(Seen {
        sha256,
        entries,
        fd,
        tree,
    })
}

/// The live entries that those of a staged directory get their attributes from.
struct Models<'a> {
    /// As they were at the survey.
    expects: Option<&'a Entries>,
    /// As they are.
    entries: Entries,
    /// Whether each is there that was there at the survey.
    is_whole: bool,
}

impl Models<'_> {
    /// Takes in the entry at `path`, of this type; none where there is none of it any more.
    fn add(
        &mut self,
        path: &Path,
        kind: FileType,
        model: Option<(&Statx, Option<&OwnedFd>)>,
    ) -> io::Result<()> {
        match model {
            Some((stat, file)) => self.entries.add(path, stat, file)?,
            None => self.is_whole &= !self.expects.is_some_and(|entries| entries.has(path, kind)),
        }
        Ok(())
    }

    fn add_open(&mut self, path: &Path, kind: FileType, model: Option<&OwnedFd>) -> io::Result<()> {
        let stat = model.map(|file| status(file, OsStr::new(""))).transpose()?;
        self.add(
            path,
            kind,
            stat.as_ref()
                .zip(model)
                .map(|(stat, file)| (stat, Some(file))),
        )
    }
}

/// Writes the entries of `to` into `staged`, which nobody else can enter before all is done. What
/// the live directory has of the same name and type gives them owner, xattrs and, where nothing
/// changed, time; the owner of a new one is that of its directory. Answers the owner that `staged`
/// is to have: with [`dress`], the last of all, its owner can enter it.
fn fill(
    to: &Tree,
    staged: &OwnedFd,
    live: Option<(&OwnedFd, &Tree)>,
    above: (Uid, Gid),
    (at, singly): (&Path, bool),
    models: &mut Models<'_>,
) -> io::Result<(Uid, Gid)> {
    models.add_open(at, FileType::Directory, live.map(|(dir, _)| dir))?;
    let owner = match live {
        Some((dir, _)) => owner_of(dir)?,
        None => above,
    };
    if let Some((dir, _)) = live {
        inherit(dir, staged)?;
    }
    for (name, node) in &to.entries {
        let before = live.and_then(|(dir, tree)| Some((dir, tree.entries.get(name)?)));
        let at = at.join(name);
        match node {
            Node::Tree(inner) => {
                fs::mkdirat(staged, name, Mode::RWXU)?;
                let dir = open(staged, name)?;
                let before = match before {
                    Some((live, Node::Tree(tree))) => Some((open(live, name)?, tree)),
                    _ => None,
                };
                let owner = fill(
                    inner,
                    &dir,
                    before.as_ref().map(|(dir, tree)| (dir, *tree)),
                    owner,
                    (&at, singly),
                    models,
                )?;
                dress(&dir, before.as_ref().map(|(dir, _)| dir), owner, inner.mode)?;
                if singly {
                    fs::fsync(&dir)?;
                }
            }
            Node::File(mode, bytes) => {
                let flags = OFlags::CREATE
                    | OFlags::EXCL
                    | OFlags::WRONLY
                    | OFlags::NOFOLLOW
                    | OFlags::CLOEXEC;
                let mut file =
                    File::from(fs::openat(staged, name, flags, Mode::RUSR | Mode::WUSR)?);
                file.write_all(bytes)?;
                let file = OwnedFd::from(file);
                let before = match before {
                    Some((dir, Node::File(_, old))) => {
                        let flags = OFlags::RDONLY
                            | OFlags::NOFOLLOW
                            | OFlags::NONBLOCK
                            | OFlags::NOCTTY
                            | OFlags::CLOEXEC;
                        Some((fs::openat(dir, name, flags, Mode::empty())?, old == bytes))
                    }
                    _ => None,
                };
                let live = before.as_ref().map(|(file, _)| file);
                models.add_open(&at, FileType::RegularFile, live)?;
                dress(&file, live, live.map_or(Ok(owner), owner_of)?, *mode)?;
                if let Some((live, true)) = &before {
                    fs::futimens(&file, &time_of(&status(live, OsStr::new(""))?))?;
                }
                if singly {
                    fs::fsync(&file)?;
                }
            }
            Node::Link(target) => {
                fs::symlinkat(target, staged, name)?;
                let before = match before {
                    Some((dir, Node::Link(old))) => Some((status(dir, name)?, old == target)),
                    _ => None,
                };
                models.add(
                    &at,
                    FileType::Symlink,
                    before.as_ref().map(|(stat, _)| (stat, None)),
                )?;
                let (uid, gid) = before.as_ref().map_or(owner, |(stat, _)| {
                    (Uid::from_raw(stat.stx_uid), Gid::from_raw(stat.stx_gid))
                });
                if owner_of_stat(&status(staged, name)?) != (uid, gid) {
                    fs::chownat(
                        staged,
                        name,
                        Some(uid),
                        Some(gid),
                        AtFlags::SYMLINK_NOFOLLOW,
                    )?;
                }
                if let Some((stat, true)) = &before {
                    fs::utimensat(staged, name, &time_of(stat), AtFlags::SYMLINK_NOFOLLOW)?;
                }
            }
        }
    }
    Ok(owner)
}

/// New entries have the access-control list that the live directory would give them.
fn inherit(live: &OwnedFd, staged: &OwnedFd) -> io::Result<()> {
    let mut value = vec![0u8; 64 << 10];
    match fs::fgetxattr(live, LISTS[1], &mut value[..]) {
        Ok(size) => Ok(fs::fsetxattr(
            staged,
            LISTS[1],
            &value[..size],
            XattrFlags::empty(),
        )?),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// The owner first: a change of owner clears mode bits. The mode last: a list that is set changes
/// them too.
fn dress(to: &OwnedFd, live: Option<&OwnedFd>, owner: (Uid, Gid), mode: u32) -> io::Result<()> {
    if owner_of(to)? != owner {
        fs::fchown(to, Some(owner.0), Some(owner.1))?;
    }
    if let Some(live) = live {
        copy_xattrs(live, to)?;
    }
    Ok(fs::fchmod(to, Mode::from_raw_mode(mode))?)
}

fn owner_of(fd: &OwnedFd) -> io::Result<(Uid, Gid)> {
    Ok(owner_of_stat(&status(fd, OsStr::new(""))?))
}

fn owner_of_stat(stat: &Statx) -> (Uid, Gid) {
    (Uid::from_raw(stat.stx_uid), Gid::from_raw(stat.stx_gid))
}

fn time_of(stat: &Statx) -> Timestamps {
    let last_modification = Timespec {
        tv_sec: stat.stx_mtime.tv_sec,
        tv_nsec: stat.stx_mtime.tv_nsec.into(),
    };
    Timestamps {
        last_access: last_modification,
        last_modification,
    }
}
