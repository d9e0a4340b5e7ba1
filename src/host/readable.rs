//! Whether a process may read the file that it is about to be signalled for: one that gave up its
//! rights after its start may not, and most of them do not say so.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use rustix::fs::{self, FileType, Mode, OFlags, Stat};

use super::lock::holders::{list_of, permitted};
use crate::identity::{Identity, Person};

/// `CAP_DAC_OVERRIDE` and `CAP_DAC_READ_SEARCH`, which pass every permission of a file, and
/// `CAP_SETUID`, by which a process becomes a user that may (`capabilities(7)`).
const PASSES: u64 = 1 << 1 | 1 << 2 | 1 << 7;

const READ: u16 = 4;
const SEARCH: u16 = 1;

/// A file or directory that a process may not read, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("may not read `{}`: {what} of uid {owner} and gid {group} with mode {mode:04o}, and it runs as uid {uid} and gid {gid}; let it, as with `setfacl -m u:{uid}:{bits} {}`", .path.display(), .path.display())]
pub(crate) struct Unreadable {
    path: PathBuf,
    what: &'static str,
    owner: u32,
    group: u32,
    mode: u32,
    uid: u32,
    gid: u32,
    bits: &'static str,
}

/// What a person may do with one file or directory.
fn allows(person: &Person, stat: &Stat, list: impl FnOnce() -> Option<Vec<u8>>, wanted: u16) -> bool {
    let groups: BTreeSet<u32> = person.groups.iter().chain(&person.gids).copied().collect();
    let list = list();
    // A process may go back to its real and its saved user.
    person.uids.iter().any(|uid| {
        if *uid == stat.st_uid {
            return u16::try_from(stat.st_mode >> 6 & 7).is_ok_and(|bits| bits & wanted == wanted);
        }
        permitted(stat, list.as_deref(), *uid, &groups, wanted)
    })
}

/// Looks at one path for a person; what cannot be looked at is refused to none.
fn look(person: &Person, path: &Path) -> Option<Unreadable> {
    let stat = fs::stat(path).ok()?;
    let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let list = || {
        let fd = fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        list_of(&fd)
    };
    let (wanted, what, bits) = if directory { (SEARCH, "a directory", "x") } else { (READ, "a file", "r") };
    if allows(person, &stat, list, wanted) {
        return None;
    }
    let (uid, gid) = (person.uid(), person.gid());
    Some(Unreadable { path: path.to_owned(), what, owner: stat.st_uid, group: stat.st_gid, mode: stat.st_mode & 0o7777, uid, gid, bits })
}

/// What of a path a person may not read: a directory on its way, or what stands at its end.
fn on_the_way(person: &Person, path: &Path, end: &Path) -> Option<Unreadable> {
    let above: Vec<&Path> = path.ancestors().skip(1).collect();
    let way = above.into_iter().rev().find_map(|dir| look(person, dir));
    way.or_else(|| look(person, end).map(|why| Unreadable { path: path.to_owned(), ..why }))
}

/// The files of a directory that a person may not read, below it.
fn within(person: &Person, dir: &Path, below: &Path, found: &mut BTreeMap<PathBuf, Unreadable>) {
    let Ok(all) = std::fs::read_dir(dir.join(below)) else { return };
    for entry in all.flatten() {
        let (path, name) = (entry.path(), below.join(entry.file_name()));
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        match look(person, &path) {
            Some(why) => drop(found.insert(name, why)),
            None if is_directory => within(person, dir, &name, found),
            None => {}
        }
    }
}

/// Answers for many processes: equal ones are looked at once.
#[derive(Debug, Default)]
pub(crate) struct Readers(BTreeMap<(Person, PathBuf), Option<Unreadable>>);

impl Readers {
    /// Why a process may not read what becomes of `live`; that stands at `staged` now, which is the
    /// live path itself where nothing changes. Of a directory, what it may not read already is no
    /// fault: it does not need it.
    pub(crate) fn refuse(&mut self, of: &Identity, live: &Path, staged: &Path) -> Option<Unreadable> {
        let person = &of.person;
        // Of one that was not looked at, nothing is known.
        if of.pid == 0 || person.permitted & PASSES != 0 {
            return None;
        }
        let key = ((**person).clone(), live.to_owned());
        self.0.entry(key).or_insert_with(|| new(person, live, staged)).clone()
    }
}

fn new(person: &Person, live: &Path, staged: &Path) -> Option<Unreadable> {
    let first = on_the_way(person, live, staged);
    if first.is_some() || !staged.is_dir() || live == staged {
        return first;
    }
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    within(person, live, Path::new(""), &mut before);
    within(person, staged, Path::new(""), &mut after);
    let (name, why) = after.into_iter().find(|(name, _)| !before.contains_key(name))?;
    Some(Unreadable { path: live.join(name), ..why })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::{os::unix::fs::PermissionsExt, sync::Arc};

    use super::*;

    fn process(uid: u32, groups: &[u32], permitted: u64) -> Identity {
        let person = Person { uids: [uid; 3], gids: [uid; 3], groups: groups.to_vec(), permitted, ..Person::default() };
        Identity { pid: 1, person: Arc::new(person), ..Identity::default() }
    }

    #[test]
    fn users_groups_capabilities_and_directories_decide() {
        let dir = tempfile::tempdir().unwrap();
        let set = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        let file = dir.path().join("a.conf");
        std::fs::write(&file, "x").unwrap();
        let (me, group) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let other = process(me + 7, &[], 0);
        let refused = |of: &Identity| Readers::default().refuse(of, &file, &file).map(|why| why.to_string());
        set(dir.path(), 0o755);
        for (mode, of, reads) in [
            (0o644, &other, true),
            (0o600, &other, false),
            (0o640, &other, false),
            (0o640, &process(me + 7, &[group], 0), true),
            (0o604, &process(me + 7, &[group], 0), false),
            (0o600, &process(me + 7, &[], 1 << 2), true),
            (0o600, &process(me, &[], 0), true),
            (0o044, &process(me, &[], 0), false),
        ] {
            set(&file, mode);
            assert_eq!(refused(of).is_none(), reads, "{mode:o} {:?}", of.person);
        }
        set(&file, 0o600);
        let saved = Person { uids: [me + 7, me + 7, me], ..(*other.person).clone() };
        assert_eq!(refused(&Identity { person: Arc::new(saved), ..other.clone() }), None, "it may become its saved user again");
        assert!(refused(&other).unwrap().contains("may not read `"));
        set(&file, 0o644);
        set(dir.path(), 0o700);
        assert!(refused(&other).unwrap().contains("a directory"));
    }

    #[test]
    fn a_file_that_is_new_in_a_directory_must_be_readable_and_one_that_never_was_need_not() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let (live, staged) = (dir.path().join("live"), dir.path().join("staged"));
        for (at, name) in [(&live, "key"), (&staged, "key"), (&staged, "new")] {
            std::fs::create_dir_all(at).unwrap();
            std::fs::set_permissions(at, std::fs::Permissions::from_mode(0o755)).unwrap();
            std::fs::write(at.join(name), "x").unwrap();
            std::fs::set_permissions(at.join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let other = process(nix::unistd::geteuid().as_raw() + 7, &[], 0);
        let why = Readers::default().refuse(&other, &live, &staged).unwrap().to_string();
        assert!(why.contains(&live.join("new").display().to_string()), "{why}");
        std::fs::set_permissions(staged.join("new"), std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(Readers::default().refuse(&other, &live, &staged), None);
    }
}
