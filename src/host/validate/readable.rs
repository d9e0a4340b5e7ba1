//! Whether a process may read the file that it is about to be signalled for: one that gave up its
//! rights after its start may not, and most of them do not say so.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use rustix::fs::{self, FileType, Mode, OFlags, Stat};

use crate::host::target::lock::holders::{list_of, permitted};
use crate::identity::{Credentials, Identity};

/// `CAP_DAC_OVERRIDE` and `CAP_DAC_READ_SEARCH`, which pass every permission of a file, and
/// `CAP_SETUID`, by which a process becomes a user that may (`capabilities(7)`).
const PASSES: u64 = 1 << 1 | 1 << 2 | 1 << 7;

const READ: u16 = 4;
const SEARCH: u16 = 1;

/// A file or directory that a process may not read, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("may not read `{}`: {what} of uid {owner} and gid {group} with mode {mode:04o}, and it \
         runs as uid {uid} and gid {gid}; let it, as with `setfacl -m u:{uid}:{bits} \
         {}`", .path.display(), .path.display())]
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

/// A process as a reader.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Reader {
    person: Credentials,
    /// The users and the groups of this host that are known in its user namespace, where it has
    /// capabilities in one of its own.
    own: Option<[Vec<Range>; 2]>,
}

/// The first of some ids, and how many there are.
type Range = (u32, u32);

impl Reader {
    /// None for one that may read everything.
    fn of(pid: i32, person: &Credentials) -> Option<Self> {
        let space = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user")).ok();
        let passes = person.permitted & PASSES != 0;
        if passes && space(&pid.to_string()) == space("self") {
            return None;
        }
        let map = |name: &str| {
            ranges(&std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default())
        };
        Some(Self {
            person: person.clone(),
            own: passes.then(|| [map("uid_map"), map("gid_map")]),
        })
    }

    /// Whether its capabilities are for files of this owner and group: both are known in its
    /// namespace (user_namespaces(7)).
    fn passes(&self, stat: &Stat) -> bool {
        let known = |ranges: &[Range], id: u32| {
            ranges
                .iter()
                .any(|(first, count)| id >= *first && id - first < *count)
        };
        self.own
            .as_ref()
            .is_some_and(|[users, groups]| known(users, stat.st_uid) && known(groups, stat.st_gid))
    }
}

/// The ids of this host in a map of `/proc/PID/uid_map`.
fn ranges(map: &str) -> Vec<Range> {
    let range = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    map.lines().filter_map(range).collect()
}

/// What a person may do with one file or directory.
fn allows(
    person: &Credentials,
    stat: &Stat,
    list: impl FnOnce() -> Option<Vec<u8>>,
    wanted: u16,
) -> bool {
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
fn look(reader: &Reader, path: &Path) -> Option<Unreadable> {
    let person = &reader.person;
    let stat = fs::stat(path).ok()?;
    let directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let list = || {
        let fd = fs::open(
            path,
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .ok()?;
        list_of(&fd)
    };
    let (wanted, what, bits) = if directory {
        (SEARCH, "a directory", "x")
    } else {
        (READ, "a file", "r")
    };
    if reader.passes(&stat) || allows(person, &stat, list, wanted) {
        return None;
    }
    let (uid, gid) = (person.uid(), person.gid());
    Some(Unreadable {
        path: path.to_owned(),
        what,
        owner: stat.st_uid,
        group: stat.st_gid,
        mode: stat.st_mode & 0o7777,
        uid,
        gid,
        bits,
    })
}

/// What of a path a person may not read: a directory on its way, or what stands at its end.
fn on_the_way(reader: &Reader, path: &Path, end: &Path) -> Option<Unreadable> {
    let above: Vec<&Path> = path.ancestors().skip(1).collect();
    let way = above.into_iter().rev().find_map(|dir| look(reader, dir));
    way.or_else(|| {
        look(reader, end).map(|why| Unreadable {
            path: path.to_owned(),
            ..why
        })
    })
}

/// The files of a directory that a person may not read, below it.
fn within(reader: &Reader, dir: &Path, below: &Path, found: &mut BTreeMap<PathBuf, Unreadable>) {
    let Ok(all) = std::fs::read_dir(dir.join(below)) else {
        return;
    };
    for entry in all.flatten() {
        let (path, name) = (entry.path(), below.join(entry.file_name()));
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        match look(reader, &path) {
            Some(why) => drop(found.insert(name, why)),
            None if is_directory => within(reader, dir, &name, found),
            None => {}
        }
    }
}

/// Answers for many processes: equal ones are looked at once.
#[derive(Debug, Default)]
pub(crate) struct Readers(BTreeMap<(Reader, PathBuf), Option<Unreadable>>);

impl Readers {
    /// Why a process may not read what becomes of `live`; that stands at `staged` now, which is the
    /// live path itself where nothing changes. Of a directory, what it may not read already is no
    /// fault: it does not need it.
    pub(crate) fn refuse(
        &mut self,
        of: &Identity,
        live: &Path,
        staged: &Path,
    ) -> Option<Unreadable> {
        // Of one that was not looked at, nothing is known.
        let reader = if of.pid == 0 {
            None
        } else {
            Reader::of(of.pid, &of.person)
        }?;
        let key = (reader.clone(), live.to_owned());
        self.0
            .entry(key)
            .or_insert_with(|| new(&reader, live, staged))
            .clone()
    }
}

fn new(reader: &Reader, live: &Path, staged: &Path) -> Option<Unreadable> {
    let first = on_the_way(reader, live, staged);
    if first.is_some() || !staged.is_dir() || live == staged {
        return first;
    }
    let (mut before, mut after) = (BTreeMap::new(), BTreeMap::new());
    within(reader, live, Path::new(""), &mut before);
    within(reader, staged, Path::new(""), &mut after);
    let (name, why) = after
        .into_iter()
        .find(|(name, _)| !before.contains_key(name))?;
    Some(Unreadable {
        path: live.join(name),
        ..why
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::{os::unix::fs::PermissionsExt, sync::Arc};

    use super::*;

    fn process(uid: u32, groups: &[u32], permitted: u64) -> Identity {
        let person = Credentials {
            uids: [uid; 3],
            gids: [uid; 3],
            groups: groups.to_vec(),
            permitted,
            ..Credentials::default()
        };
        Identity {
            pid: i32::try_from(std::process::id()).unwrap(),
            person: Arc::new(person),
            ..Identity::default()
        }
    }

    #[test]
    fn users_groups_capabilities_and_directories_decide() {
        let dir = tempfile::tempdir().unwrap();
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap()
        };
        let file = dir.path().join("a.conf");
        std::fs::write(&file, "x").unwrap();
        let (me, group) = (
            nix::unistd::geteuid().as_raw(),
            nix::unistd::getegid().as_raw(),
        );
        let other = process(me + 7, &[], 0);
        let refused = |of: &Identity| {
            Readers::default()
                .refuse(of, &file, &file)
                .map(|why| why.to_string())
        };
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
        let saved = Credentials {
            uids: [me + 7, me + 7, me],
            ..(*other.person).clone()
        };
        assert_eq!(
            refused(&Identity {
                person: Arc::new(saved),
                ..other.clone()
            }),
            None,
            "it may become its saved user again"
        );
        assert!(refused(&other).unwrap().contains("may not read `"));
        set(&file, 0o644);
        set(dir.path(), 0o700);
        assert!(refused(&other).unwrap().contains("a directory"));
    }

    #[test]
    fn capabilities_of_a_namespace_count_for_what_is_known_in_it() {
        assert_eq!(
            ranges("         0       1000          1\n         1     100000      65536\n"),
            [(1000, 1), (100_000, 65536)]
        );
        let mut stat = fs::stat("/").unwrap();
        let reader = Reader {
            person: Credentials::default(),
            own: Some([vec![(1000, 2)], vec![(50, 1)]]),
        };
        for (uid, gid, passes) in [
            (1000, 50, true),
            (1001, 50, true),
            (1002, 50, false),
            (999, 50, false),
            (1000, 51, false),
            (0, 0, false),
        ] {
            (stat.st_uid, stat.st_gid) = (uid, gid);
            assert_eq!(reader.passes(&stat), passes, "{uid}:{gid}");
        }
        assert!(
            !Reader {
                own: None,
                ..reader
            }
            .passes(&stat)
        );
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
            std::fs::set_permissions(at.join(name), std::fs::Permissions::from_mode(0o600))
                .unwrap();
        }
        let other = process(nix::unistd::geteuid().as_raw() + 7, &[], 0);
        let why = Readers::default()
            .refuse(&other, &live, &staged)
            .unwrap()
            .to_string();
        assert!(
            why.contains(&live.join("new").display().to_string()),
            "{why}"
        );
        std::fs::set_permissions(staged.join("new"), std::fs::Permissions::from_mode(0o644))
            .unwrap();
        assert_eq!(Readers::default().refuse(&other, &live, &staged), None);
    }
}
