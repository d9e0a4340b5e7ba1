//! A target that is a directory. What it was stays beside it under a hidden name until the run ends: a rollback writes nothing.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{self, AtFlags, FileType, Gid, Mode, OFlags, RenameFlags, Statx, StatxAttributes, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};

use super::{
    InstallError, SYNCED_SINGLY, ctime,
    entries::{Entries, LISTS, copy_xattrs},
    fixed, kind,
    late::Late,
    spot::{Beside, Seen, Spot},
};
use crate::{
    config::ReadError,
    runs::Stage,
    step::Blob,
    tree::{Identity, Known, Node, Tree, open, shown, status},
};

/// A directory to replace.
#[derive(Debug)]
pub(in crate::host) struct TreeTarget {
    pub(super) spot: Spot,
}

impl TreeTarget {
    pub(super) fn new(spot: Spot) -> Self {
        Self { spot }
    }

    pub(super) fn read(&self) -> Result<Blob, InstallError> {
        let no = |e: ReadError| self.spot.refused(e.to_string());
        let dir = open(&self.spot.dir, &self.spot.name).map_err(|e| no(ReadError::Io(e.into())))?;
        let tree = look(&dir, |_| None).map_err(no)?;
        Blob::of(tree).map_err(|e| self.spot.io(e))
    }

    pub(super) fn survey(&mut self) -> Result<Blob, InstallError> {
        let no = |e: ReadError| self.spot.refused(e.to_string());
        let dir = open(&self.spot.dir, &self.spot.name).map_err(|e| no(ReadError::Io(e.into())))?;
        let (tree, entries) = visit(&dir, |_| None).map_err(no)?;
        self.spot.expects = Some(entries);
        Blob::of(tree).map_err(|e| self.spot.io(e))
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

    pub(super) fn stage(&mut self, to: &Blob, run: &str) -> Result<PathBuf, InstallError> {
        let Some(wanted) = &to.tree else { return Err(self.spot.refused("it is a directory, and would become a file")) };
        let (live, now) = self.guard()?;
        let (_, entries) = visit(&live, |_| None).map_err(|e| self.spot.refused(e.to_string()))?;
        let identities: Vec<Identity> = entries.identities().collect();
        self.spot.expects.get_or_insert(entries);
        let name = self.spot.beside(run);
        self.spot.staged = Some(Beside { name: name.clone(), known: Known { empty: true, ..Known::default() }, was: None });
        let said = self.write(&name, wanted, (&live, &now), identities).and_then(|()| match seen(&self.spot.dir, &name) {
            Some(staged) if staged.sha256 == to.sha256 => Ok(()),
            _ => Err(self.spot.refused("its filesystem does not keep names, modes or links as they are")),
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

    fn write(&mut self, name: &OsStr, wanted: &Tree, (live, now): (&OwnedFd, &Tree), identities: Vec<Identity>) -> Result<(), InstallError> {
        let dir = self.spot.dir.clone();
        let mut probe = OsString::from(name);
        probe.push("-probe");
        for name in [name, &probe] {
            self.spot.note(name, Stage::Wanted, Vec::new())?;
            fs::mkdirat(&*dir, name, Mode::RWXU).map_err(|e| self.spot.unstaged(e))?;
        }
        // Both are empty yet, so it does not matter which is which.
        let exchanged = fs::renameat_with(&*dir, name, &*dir, &*probe, RenameFlags::EXCHANGE);
        fs::unlinkat(&*dir, &*probe, AtFlags::REMOVEDIR).map_err(|e| self.spot.unstaged(e))?;
        self.spot.staging.gone(&self.spot.path.with_file_name(&probe));
        match exchanged {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => return Err(self.spot.refused("its filesystem cannot exchange two directories in one step")),
            Err(e) => return Err(self.spot.unstaged(e)),
        }
        let singly = wanted.size().0 <= SYNCED_SINGLY;
        let failed = |e: io::Error| self.spot.unstaged(e);
        let staged = open(&dir, name).map_err(|e| failed(e.into()))?;
        let stat = status(&staged, OsStr::new("")).map_err(|e| failed(e.into()))?;
        // Whose directory it stands in can put another one there: one of another user, or with something in it, is not the one just made.
        let is_empty = crate::tree::names(&staged, 0).map_err(|e| failed(e.into()))?.is_empty();
        if stat.stx_uid != rustix::process::geteuid().as_raw() || !is_empty {
            return Err(failed(io::Error::other("another directory was put in its place")));
        }
        let top = Identity::of(&stat);
        self.spot.note(name, Stage::Sealed, vec![top])?;
        if let Some(beside) = &mut self.spot.staged {
            beside.known.sealed.insert(top.unwritten());
        }
        let owner = fill(wanted, &staged, Some((live, now)), (Uid::ROOT, Gid::ROOT), singly).map_err(|e| self.spot.unstaged(e))?;
        // What stands there once its owner can enter it: these, or after the exchange those.
        let (_, entries) = visit(&staged, |_| None).map_err(|e| self.spot.refused(e.to_string()))?;
        let all: Vec<Identity> = entries.identities().chain([top.owned_by(owner.0.as_raw())]).chain(identities).collect();
        self.spot.note(name, Stage::Whole, all.clone())?;
        if let Some(beside) = &mut self.spot.staged {
            beside.known.whole.extend(all);
        }
        let sealed = dress(&staged, Some(live), owner, wanted.mode);
        let synced = sealed.and_then(|()| if singly { Ok(fs::fsync(&staged)?) } else { Ok(fs::syncfs(&staged)?) });
        synced.map_err(|e| self.spot.unstaged(e))
    }

    pub(super) fn install(&mut self, from: &str, to: &Blob, run: &str) -> Result<bool, InstallError> {
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
                while status(&self.spot.dir, &self.spot.beside(&run)).is_ok() {
                    run.push_str("-again");
                }
                self.stage(to, &run)?;
                self.ready(to).ok_or_else(|| self.spot.drifted())?
            }
        };
        let name = self.spot.staged.as_ref().map(|beside| beside.name.clone()).unwrap_or_default();
        // The same content in other inodes than when it was staged.
        let came_out: Vec<Identity> = now.map(|now| now.entries.identities().collect()).unwrap_or_default();
        let is_known = |identity: &Identity| self.spot.staged.as_ref().is_some_and(|beside| beside.known.whole.contains(identity));
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
            Err(e) => Err(self.spot.refused(format!("its filesystem cannot exchange it in one step: {e}"))),
        }
    }

    /// The attributes of what stands beside it, where that is `to` as it was made, or as it came out of an exchange.
    fn ready(&self, to: &Blob) -> Option<Entries> {
        let beside = self.spot.staged.as_ref()?;
        let staged = seen(&self.spot.dir, &beside.name).filter(|staged| staged.sha256 == to.sha256)?;
        let is_ours = staged.entries.identities().all(|identity| beside.known.whole.contains(&identity));
        let is_same = beside.was.as_ref().is_none_or(|(_, was)| was.difference(&staged.entries).is_none());
        (is_ours && is_same).then_some(staged.entries)
    }

    /// As [`super::Target::late`].
    pub(super) fn late(&mut self) -> Vec<Late> {
        let (dir, path) = (self.spot.dir.clone(), self.spot.path.clone());
        let mut all = Vec::new();
        for beside in self.spot.staged.iter_mut().chain(&mut self.spot.old) {
            let Some((was, before)) = &beside.was else { continue };
            let Some(now) = seen(&dir, &beside.name) else {
                all.push(Late { path: path.clone(), what: format!("`{}` cannot be read any more", shown(Path::new(&beside.name))), bytes: None });
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
                    beside.known.whole.extend(now.entries.identity(&difference.path));
                }
                edits.insert(difference.path, (what.to_owned(), bytes));
            }
            for at in before.paths() {
                if let Some(what) = before.difference_at(&now.entries, at) {
                    beside.known.whole.extend(now.entries.identity(at));
                    edits.entry(at.to_owned()).or_insert((what, None));
                }
            }
            all.extend(edits.into_iter().map(|(at, (what, bytes))| Late { path: path.join(at), what, bytes }));
        }
        all
    }
}

/// Reads a directory of the fleet; what is mounted in it would be taken along, or deleted, and what `more` says something of is refused.
fn look(dir: &OwnedFd, more: impl Fn(&Statx) -> Option<&'static str>) -> Result<Tree, ReadError> {
    Tree::read(dir, &mut check(dir, more)?)
}

/// The same, with the attributes of every entry.
fn visit(dir: &OwnedFd, more: impl Fn(&Statx) -> Option<&'static str>) -> Result<(Tree, Entries), ReadError> {
    let mut entries = Entries::default();
    let tree = Tree::visited(dir, &mut check(dir, more)?, &mut |path, stat, file| entries.add(path, stat, file))?;
    Ok((tree, entries))
}

fn check(dir: &OwnedFd, more: impl Fn(&Statx) -> Option<&'static str>) -> io::Result<impl FnMut(&Path, &Statx) -> Result<(), String>> {
    let device = |stat: &Statx| (stat.stx_dev_major, stat.stx_dev_minor);
    let outer = status(dir, OsStr::new("")).map(|stat| device(&stat))?;
    Ok(move |path: &Path, stat: &Statx| {
        // Of files, layered filesystems tell the device of a layer.
        let foreign = kind(stat) == FileType::Directory && device(stat) != outer;
        let mounted = foreign || stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
        let why = if mounted { Some("is a mount point") } else { more(stat) };
        let who = if path.as_os_str().is_empty() { "it".to_owned() } else { format!("`{}` in it", shown(path)) };
        why.map_or(Ok(()), |why| Err(format!("{who} {why}")))
    })
}

fn digest_of(dir: &OwnedFd, name: &OsStr) -> Option<String> {
    let tree = look(&open(dir, name).ok()?, |_| None).ok()?;
    Some(Blob::of(tree).ok()?.sha256)
}

fn seen(dir: &OwnedFd, name: &OsStr) -> Option<Seen> {
    let fd = open(dir, name).ok()?;
    let (tree, entries) = visit(&fd, |_| None).ok()?;
    let Blob { sha256, tree, .. } = Blob::of(tree).ok()?;
    Some(Seen { sha256, entries, fd, tree })
}

/// Writes the entries of `to` into `staged`, which nobody else can enter before all is done. What the live directory has of the same name and type
/// gives them owner, xattrs and, where nothing changed, time; the owner of a new one is that of its directory. Answers the owner that `staged` is to
/// have: with [`dress`], the last of all, its owner can enter it.
fn fill(to: &Tree, staged: &OwnedFd, live: Option<(&OwnedFd, &Tree)>, above: (Uid, Gid), singly: bool) -> io::Result<(Uid, Gid)> {
    let owner = match live {
        Some((dir, _)) => owner_of(dir)?,
        None => above,
    };
    if let Some((dir, _)) = live {
        inherit(dir, staged)?;
    }
    for (name, node) in &to.entries {
        let before = live.and_then(|(dir, tree)| Some((dir, tree.entries.get(name)?)));
        match node {
            Node::Tree(inner) => {
                fs::mkdirat(staged, name, Mode::RWXU)?;
                let dir = open(staged, name)?;
                let before = match before {
                    Some((live, Node::Tree(tree))) => Some((open(live, name)?, tree)),
                    _ => None,
                };
                let owner = fill(inner, &dir, before.as_ref().map(|(dir, tree)| (dir, *tree)), owner, singly)?;
                dress(&dir, before.as_ref().map(|(dir, _)| dir), owner, inner.mode)?;
                if singly {
                    fs::fsync(&dir)?;
                }
            }
            Node::File(mode, bytes) => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mut file = File::from(fs::openat(staged, name, flags, Mode::RUSR | Mode::WUSR)?);
                file.write_all(bytes)?;
                let file = OwnedFd::from(file);
                let before = match before {
                    Some((dir, Node::File(_, old))) => {
                        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
                        Some((fs::openat(dir, name, flags, Mode::empty())?, old == bytes))
                    }
                    _ => None,
                };
                let live = before.as_ref().map(|(file, _)| file);
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
                let (uid, gid) = before.as_ref().map_or(owner, |(stat, _)| (Uid::from_raw(stat.stx_uid), Gid::from_raw(stat.stx_gid)));
                if owner_of_stat(&status(staged, name)?) != (uid, gid) {
                    fs::chownat(staged, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
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
        Ok(size) => Ok(fs::fsetxattr(staged, LISTS[1], &value[..size], XattrFlags::empty())?),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// The owner first: a change of owner clears mode bits. The mode last: a list that is set changes them too.
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
    let last_modification = Timespec { tv_sec: stat.stx_mtime.tv_sec, tv_nsec: stat.stx_mtime.tv_nsec.into() };
    Timestamps { last_access: last_modification, last_modification }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test says so by failing, and why it is skipped")]
    use std::{
        os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink},
        sync::Arc,
    };

    use super::{super::Target, *};

    const ODD: &str = "a name\nof two lines";

    /// A directory of everything that a directory may have in it.
    fn live() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("conf.d");
        std::fs::create_dir_all(path.join("sub/deeper")).unwrap();
        for (name, text) in [("a", "old"), (ODD, "same"), ("empty", ""), ("sub/deeper/x", "x")] {
            std::fs::write(path.join(name), text).unwrap();
        }
        symlink("../elsewhere", path.join("link")).unwrap();
        (dir, path)
    }

    fn target(path: &Path) -> TreeTarget {
        let Target::Directory(target) = Target::new(path, Arc::new(File::open(path.parent().unwrap()).unwrap().into())) else { panic!("it is a directory") };
        target
    }

    fn changed(old: &Blob, change: impl Fn(&mut Tree)) -> Blob {
        let mut tree = (**old.tree.as_ref().unwrap()).clone();
        change(&mut tree);
        Blob::of(tree).unwrap()
    }

    fn with(name: &str, text: &str) -> impl Fn(&mut Tree) {
        move |tree| drop(tree.entries.insert(name.into(), Node::File(0o640, text.as_bytes().into())))
    }

    fn beside(dir: &tempfile::TempDir) -> Vec<OsString> {
        std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).filter(|n| n != "conf.d").collect()
    }

    #[test]
    fn there_and_back_again_in_one_exchange_each() {
        let (dir, path) = live();
        std::fs::create_dir(dir.path().join("elsewhere")).unwrap();
        std::fs::write(dir.path().join("elsewhere/kept"), "").unwrap();
        symlink(dir.path().join("elsewhere"), path.join("sub/out")).unwrap();
        let before = |name: &str| path.join(name).symlink_metadata().map(|m| (m.ino(), m.mtime(), m.mtime_nsec())).unwrap();
        let (a, odd, link) = (before("a"), before(ODD), before("link"));
        let mut target = target(&path);
        let from = target.read().unwrap();
        let to = changed(&from, with("a", "new"));
        let staged = target.stage(&to, "1").unwrap();
        assert_eq!(staged, path.with_file_name(".conf.d.hello-1"));
        assert_eq!((beside(&dir).len(), before("a")), (2, a), "only what was staged stands beside it");
        assert!(target.install(&from.sha256, &to, "1").unwrap() && !target.install(&from.sha256, &to, "1").unwrap());
        assert_eq!((std::fs::read(path.join("a")).unwrap(), target.digest()), (b"new".to_vec(), Some(to.sha256.clone())));
        let times = |(_, s, ns): (u64, i64, i64)| (s, ns);
        assert_eq!((times(before(ODD)), times(before("link"))), (times(odd), times(link)), "what did not change keeps its time");
        assert_eq!(std::fs::read_link(path.join("link")).unwrap(), Path::new("../elsewhere"));
        assert!(target.install(&to.sha256, &from, "1").unwrap());
        assert_eq!((before("a"), target.digest()), (a, Some(from.sha256)), "the very files are back");
        drop(target);
        assert_eq!(beside(&dir), ["elsewhere"], "nothing staged is left");
        assert!(dir.path().join("elsewhere/kept").exists(), "no link was followed");
    }

    #[test]
    fn what_was_not_surveyed_is_left_alone_before_and_in_the_exchange() {
        let (dir, path) = live();
        let mut target = target(&path);
        let from = target.read().unwrap();
        let to = changed(&from, with("a", "new"));
        target.stage(&to, "1").unwrap();
        let staged = target.spot.staged.as_ref().unwrap().name.clone();
        // Changed between the look and the exchange.
        assert!(matches!(target.spot.exchange(&staged, "another digest", seen), Err(InstallError::Drifted(_))));
        assert_eq!((target.digest(), target.spot.exchanged), (Some(from.sha256.clone()), false));
        for change in [("sub/deeper/x", "somebody else"), ("new", "")] {
            std::fs::write(path.join(change.0), change.1).unwrap();
            assert!(matches!(target.install(&from.sha256, &to, "1"), Err(InstallError::Drifted(_))));
        }
        drop(target);
        assert_eq!((std::fs::read(path.join("sub/deeper/x")).unwrap(), path.join("new").exists()), (b"somebody else".to_vec(), true));
        assert!(beside(&dir).is_empty());
    }

    #[test]
    fn a_mode_or_a_link_that_changed_is_drift_too() {
        let (_dir, path) = live();
        let mut target = target(&path);
        let from = target.read().unwrap();
        let to = changed(&from, with("a", "new"));
        target.stage(&to, "1").unwrap();
        std::fs::set_permissions(path.join("a"), std::fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(target.install(&from.sha256, &to, "1"), Err(InstallError::Drifted(_))));
        let from = target.read().unwrap();
        std::fs::remove_file(path.join("link")).unwrap();
        symlink("elsewhere", path.join("link")).unwrap();
        assert!(matches!(target.install(&from.sha256, &to, "1"), Err(InstallError::Drifted(_))));
    }

    #[test]
    fn an_old_directory_in_which_somebody_was_is_written_anew_for_the_way_back() {
        let (dir, path) = live();
        let mut target = target(&path);
        let from = target.read().unwrap();
        let to = changed(&from, with("a", "new"));
        let staged = target.stage(&to, "1").unwrap();
        target.install(&from.sha256, &to, "1").unwrap();
        std::fs::write(staged.join("log"), "of one who still stands in it").unwrap();
        assert!(target.install(&to.sha256, &from, "1").unwrap());
        assert_eq!(target.digest(), Some(from.sha256));
        let late: Vec<_> = target.late().into_iter().map(|late| (late.path, late.bytes)).collect();
        assert_eq!(late, [(path.join("log"), Some(b"of one who still stands in it".to_vec()))]);
        drop(target);
        assert!(beside(&dir).is_empty());
    }

    #[test]
    fn a_directory_that_was_moved_into_the_old_one_stays() {
        let (dir, path) = live();
        let mut target = target(&path);
        let from = target.survey().unwrap();
        let to = changed(&from, with("a", "new"));
        let staged = target.stage(&to, "1").unwrap();
        target.install(&from.sha256, &to, "1").unwrap();
        std::fs::create_dir_all(staged.join("sub/moved")).unwrap();
        std::fs::write(staged.join("sub/moved/kept"), "kept").unwrap();
        target.late();
        target.spot.unstage();
        assert!(staged.join("sub/moved").is_dir(), "it is another program's");
        assert!(target.spot.stays[0].1.contains("moved"), "{:?}", target.spot.stays);
        assert!(!staged.join("a").exists() && dir.path().exists());
    }

    #[test]
    fn an_owner_or_a_list_that_was_changed_is_drift_too() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: only root can give files away");
            return;
        }
        let (_dir, path) = live();
        let mut target = target(&path);
        let from = target.survey().unwrap();
        let to = changed(&from, with("a", "new"));
        target.stage(&to, "1").unwrap();
        let mut says = |wanted: &str| {
            let said = target.install(&from.sha256, &to, "1").unwrap_err().to_string();
            assert!(said.contains(wanted), "{said}");
        };
        chown(path.join("sub/deeper/x"), Some(7), None).unwrap();
        says("`sub/deeper/x` in it: uid 0 -> 7");
        chown(path.join("sub/deeper/x"), Some(0), None).unwrap();
        if fs::setxattr(path.join("sub"), "user.test", b"new", XattrFlags::empty()).is_ok() {
            says("`sub` in it: user.test none -> 6e6577");
        }
    }

    /// A list as the kernel keeps it: of the owner, of user 7, of the group, the mask, of others.
    fn list(user: u16) -> Vec<u8> {
        let entry = |tag: u16, bits: u16, id: u32| [&tag.to_le_bytes()[..], &bits.to_le_bytes(), &id.to_le_bytes()].concat();
        let none = u32::MAX;
        [2u32.to_le_bytes().to_vec(), entry(1, 6, none), entry(2, user, 7), entry(4, 4, none), entry(16, 6, none), entry(32, 4, none)].concat()
    }

    #[test]
    fn owners_modes_and_attributes_are_those_of_the_live_ones() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: only root can give files away");
            return;
        }
        let (_dir, path) = live();
        for (name, uid, mode) in [("", 11, 0o2775), ("a", 12, 0o600), ("sub", 13, 0o711), ("sub/deeper/x", 14, 0o4755)] {
            chown(path.join(name), Some(uid), Some(uid + 100)).unwrap();
            std::fs::set_permissions(path.join(name), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        lchown(path.join("link"), Some(15), Some(15)).unwrap();
        let set = |name: &str, key: &str, value: &[u8]| fs::setxattr(path.join(name), key, value, XattrFlags::empty());
        let get = |name: &str, key: &[u8]| {
            let mut value = [0; 256];
            fs::getxattr(path.join(name), key, &mut value[..]).map(|n| value[..n].to_vec()).ok()
        };
        let lists = set("", "system.posix_acl_default", &list(4)).is_ok() && set("a", "system.posix_acl_access", &list(2)).is_ok();
        let attributes = set("sub", "user.test", b"kept").is_ok();
        std::fs::set_permissions(path.join("a"), std::fs::Permissions::from_mode(0o640)).unwrap();
        let whose = |name: &str| path.join(name).symlink_metadata().map(|m| (m.uid(), m.gid(), m.mode() & 0o7777)).unwrap();
        let all = ["", "a", ODD, "link", "sub", "sub/deeper", "sub/deeper/x"];
        let before: Vec<_> = all.iter().map(|name| (whose(name), LISTS.map(|key| get(name, key)))).collect();
        let mut target = target(&path);
        let from = target.read().unwrap();
        let inner = Tree { mode: 0o750, entries: [("y".into(), Node::File(0o604, b"y"[..].into()))].into() };
        let to = changed(&from, |tree| {
            with("a", "new")(tree);
            with("z", "z")(tree);
            tree.entries.insert("added".into(), Node::Tree(inner.clone()));
            let Some(Node::Tree(sub)) = tree.entries.get_mut(OsStr::new("sub")) else { panic!("it is there") };
            sub.entries.insert("y".into(), Node::Link("x".into()));
        });
        target.stage(&to, "1").unwrap();
        target.install(&from.sha256, &to, "1").unwrap();
        let after: Vec<_> = all.iter().map(|name| (whose(name), LISTS.map(|key| get(name, key)))).collect();
        assert_eq!(before, after);
        assert_eq!(get("sub", b"user.test").as_deref(), attributes.then_some(&b"kept"[..]));
        // New ones belong to the owner of the directory that they are in.
        assert_eq!((whose("z"), whose("added"), whose("added/y")), ((11, 111, 0o640), (11, 111, 0o750), (11, 111, 0o604)));
        assert_eq!((whose("sub/y").0, whose("sub/y").1), (13, 113));
        assert_eq!(get("z", LISTS[0]).is_some(), lists, "a new one has the list that its directory gives");
        assert_eq!(get(ODD, LISTS[0]), None, "an old one has it only where it had it");
    }

    #[test]
    fn what_cannot_be_replaced_is_refused_by_name() {
        let (dir, path) = live();
        let mut target = target(&path);
        let to = changed(&target.read().unwrap(), with("a", "new"));
        let says = |target: &mut TreeTarget, wanted: &str| {
            let said = target.stage(&to, "1").unwrap_err().to_string();
            assert!(said.contains(wanted) && said.contains("conf.d"), "{said}");
            assert!(beside(&dir).iter().all(|name| name == "other"), "nothing is left");
        };
        std::fs::hard_link(path.join("sub/deeper/x"), dir.path().join("other")).unwrap();
        says(&mut target, "`sub/deeper/x` in it has more than one hard link");
        std::fs::remove_file(dir.path().join("other")).unwrap();
        nix::unistd::mkfifo(&path.join("sub/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        says(&mut target, "`sub/pipe` in it is neither file, directory nor link");
        std::fs::remove_file(path.join("sub/pipe")).unwrap();
        let file = File::open(path.join("empty")).unwrap();
        for flag in [fs::IFlags::IMMUTABLE, fs::IFlags::APPEND] {
            // Only root may, and only on some filesystems.
            let Ok(now) = fs::ioctl_getflags(&file) else { continue };
            if fs::ioctl_setflags(&file, now | flag).is_ok() {
                let said = target.stage(&to, "1").unwrap_err().to_string();
                fs::ioctl_setflags(&file, now).unwrap();
                assert!(said.contains("`empty` in it is immutable or append-only"), "{said}");
            }
        }
        assert!(target.stage(&to, "1").is_ok());
        assert!(matches!(target.stage(&Blob::new(Vec::new()), "1"), Err(InstallError::Refused(..))));
    }
}
