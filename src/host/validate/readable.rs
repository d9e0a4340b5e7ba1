//! Finds out whether a process may read its new config. A process that gave up its rights after its
//! start may not, and most of them do not report it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use rustix::fs::{self, FileType, Mode, OFlags, Stat};

use crate::{
    host::target::lock::holders::{list_of, permitted},
    identity::{Credentials, Identity},
    refusal::Refusal,
};

/// `CAP_DAC_OVERRIDE` and `CAP_DAC_READ_SEARCH`, which bypass the permissions of a file, and
/// `CAP_SETUID`, with which a process can become a user that may read it (`capabilities(7)`).
const BYPASSES: u64 = 1 << 1 | 1 << 2 | 1 << 7;

/// The bit of a file mode that permits to read.
const READ: u16 = 4;
/// The bit of a directory mode that permits to open entries.
const SEARCH: u16 = 1;

/// A file or directory that a process may not read, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("may not read `{}`: {what} of uid {owner} and gid {group} with mode {mode:04o}, and it \
         runs as uid {uid} and gid {gid}", .path.display())]
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

impl Unreadable {
    /// Adds the command that permits it.
    fn refusal(self) -> Refusal<Self> {
        let Self {
            uid, bits, path, ..
        } = &self;
        let command = format!("setfacl -m u:{uid}:{bits} {}", path.display());
        Refusal::from(self).with_hint(format!("permit it, for example with `{command}`"))
    }
}

/// A process as a reader.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Reader {
    credentials: Credentials,
    /// The users and groups of this host that are mapped into its user namespace. None unless it
    /// has a namespace of its own, and capabilities in it.
    mapped: Option<[Vec<IdRange>; 2]>,
}

/// The first id of a range, and the number of ids.
type IdRange = (u32, u32);

impl Reader {
    /// Returns the reader; none for a process that may read everything.
    fn of(pid: i32, credentials: &Credentials) -> Option<Self> {
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user")).ok();
        let has_capability = credentials.permitted & BYPASSES != 0;
        if has_capability && namespace(&pid.to_string()) == namespace("self") {
            return None;
        }
        let map = |name: &str| {
            ranges(&std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default())
        };
        Some(Self {
            credentials: credentials.clone(),
            mapped: has_capability.then(|| [map("uid_map"), map("gid_map")]),
        })
    }

    /// Tells whether its capabilities hold for files of this owner and group: both must be mapped
    /// into its namespace (`user_namespaces(7)`).
    fn bypasses(&self, stat: &Stat) -> bool {
        let is_mapped = |ranges: &[IdRange], id: u32| {
            ranges
                .iter()
                .any(|(first, count)| id >= *first && id - first < *count)
        };
        self.mapped.as_ref().is_some_and(|[users, groups]| {
            is_mapped(users, stat.st_uid) && is_mapped(groups, stat.st_gid)
        })
    }
}

/// Parses the ids of this host in a map such as `/proc/PID/uid_map`.
fn ranges(map: &str) -> Vec<IdRange> {
    let range = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    map.lines().filter_map(range).collect()
}

/// Tells whether these credentials permit all bits of `wanted` for a file or directory; `list`
/// reads its access control list.
fn permits(
    credentials: &Credentials,
    stat: &Stat,
    list: impl FnOnce() -> Option<Vec<u8>>,
    wanted: u16,
) -> bool {
    let groups: BTreeSet<u32> = credentials
        .groups
        .iter()
        .chain(&credentials.gids)
        .copied()
        .collect();
    let list = list();
    // A process may change to its real and its saved user (`setresuid(2)`).
    credentials.uids.iter().any(|uid| {
        if *uid == stat.st_uid {
            return u16::try_from(stat.st_mode >> 6 & 7).is_ok_and(|bits| bits & wanted == wanted);
        }
        permitted(stat, list.as_deref(), *uid, &groups, wanted)
    })
}

/// Checks one path for a reader. A path that cannot be checked is not refused.
fn check_path(reader: &Reader, path: &Path) -> Option<Unreadable> {
    let credentials = &reader.credentials;
    let stat = fs::stat(path).ok()?;
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    let list = || {
        let fd = fs::open(
            path,
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .ok()?;
        list_of(&fd)
    };
    let (wanted, what, bits) = if is_directory {
        (SEARCH, "a directory", "x")
    } else {
        (READ, "a file", "r")
    };
    if reader.bypasses(&stat) || permits(credentials, &stat, list, wanted) {
        return None;
    }
    Some(Unreadable {
        path: path.to_owned(),
        what,
        owner: stat.st_uid,
        group: stat.st_gid,
        mode: stat.st_mode & 0o7777,
        uid: credentials.uid(),
        gid: credentials.gid(),
        bits,
    })
}

/// Returns the first directory of a path that a reader may not search; else `end`, if it may not
/// read that. The error names `path` for it.
fn check_ancestors(reader: &Reader, path: &Path, end: &Path) -> Option<Unreadable> {
    let ancestors: Vec<&Path> = path.ancestors().skip(1).collect();
    let directory = ancestors
        .into_iter()
        .rev()
        .find_map(|dir| check_path(reader, dir));
    directory.or_else(|| {
        check_path(reader, end).map(|why| Unreadable {
            path: path.to_owned(),
            ..why
        })
    })
}

/// Collects the entries below a directory that a reader may not read, by relative path.
fn collect_unreadable(
    reader: &Reader,
    dir: &Path,
    below: &Path,
    found: &mut BTreeMap<PathBuf, Unreadable>,
) {
    let Ok(entries) = std::fs::read_dir(dir.join(below)) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = below.join(entry.file_name());
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        match check_path(reader, &path) {
            Some(why) => drop(found.insert(name, why)),
            None if is_directory => collect_unreadable(reader, dir, &name, found),
            None => {}
        }
    }
}

/// The results for many processes. Processes with equal credentials are checked once.
#[derive(Debug, Default)]
pub(crate) struct Readers(BTreeMap<(Reader, PathBuf), Option<Unreadable>>);

impl Readers {
    /// Returns why a process may not read the new content of `live`, which is at `staged` now. Both
    /// are the same path if nothing changes. An entry of a directory that the process could not
    /// read before does not count: it does not need that.
    pub(crate) fn refuse(
        &mut self,
        identity: &Identity,
        live: &Path,
        staged: &Path,
    ) -> Option<Refusal<Unreadable>> {
        // A process that was not inspected has no known credentials.
        if identity.pid == 0 {
            return None;
        }
        let reader = Reader::of(identity.pid, &identity.person)?;
        let key = (reader.clone(), live.to_owned());
        self.0
            .entry(key)
            .or_insert_with(|| check_content(&reader, live, staged))
            .clone()
            .map(Unreadable::refusal)
    }
}

/// Checks the new content of `live` for a reader.
fn check_content(reader: &Reader, live: &Path, staged: &Path) -> Option<Unreadable> {
    let first = check_ancestors(reader, live, staged);
    if first.is_some() || !staged.is_dir() || live == staged {
        return first;
    }
    let mut before = BTreeMap::new();
    let mut after = BTreeMap::new();
    collect_unreadable(reader, live, Path::new(""), &mut before);
    collect_unreadable(reader, staged, Path::new(""), &mut after);
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
        let set_mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap()
        };
        let file = dir.path().join("a.conf");
        std::fs::write(&file, "x").unwrap();
        let me = nix::unistd::geteuid().as_raw();
        let group = nix::unistd::getegid().as_raw();
        let other = process(me + 7, &[], 0);
        let refusal = |reader: &Identity| {
            Readers::default()
                .refuse(reader, &file, &file)
                .map(|why| why.to_string())
        };
        set_mode(dir.path(), 0o755);
        for (mode, reader, reads) in [
            (0o644, &other, true),
            (0o600, &other, false),
            (0o640, &other, false),
            (0o640, &process(me + 7, &[group], 0), true),
            (0o604, &process(me + 7, &[group], 0), false),
            (0o600, &process(me + 7, &[], 1 << 2), true),
            (0o600, &process(me, &[], 0), true),
            (0o044, &process(me, &[], 0), false),
        ] {
            set_mode(&file, mode);
            assert_eq!(
                refusal(reader).is_none(),
                reads,
                "{mode:o} {:?}",
                reader.person
            );
        }
        set_mode(&file, 0o600);
        let saved = Credentials {
            uids: [me + 7, me + 7, me],
            ..(*other.person).clone()
        };
        assert_eq!(
            refusal(&Identity {
                person: Arc::new(saved),
                ..other.clone()
            }),
            None,
            "it may change to its saved user"
        );
        assert!(refusal(&other).unwrap().contains("may not read `"));
        set_mode(&file, 0o644);
        set_mode(dir.path(), 0o700);
        assert!(refusal(&other).unwrap().contains("a directory"));
    }

    #[test]
    fn capabilities_of_a_namespace_hold_for_ids_that_are_mapped_into_it() {
        assert_eq!(
            ranges("         0       1000          1\n         1     100000      65536\n"),
            [(1000, 1), (100_000, 65536)]
        );
        let mut stat = fs::stat("/").unwrap();
        let reader = Reader {
            credentials: Credentials::default(),
            mapped: Some([vec![(1000, 2)], vec![(50, 1)]]),
        };
        for (uid, gid, bypasses) in [
            (1000, 50, true),
            (1001, 50, true),
            (1002, 50, false),
            (999, 50, false),
            (1000, 51, false),
            (0, 0, false),
        ] {
            (stat.st_uid, stat.st_gid) = (uid, gid);
            assert_eq!(reader.bypasses(&stat), bypasses, "{uid}:{gid}");
        }
        assert!(
            !Reader {
                mapped: None,
                ..reader
            }
            .bypasses(&stat)
        );
    }

    #[test]
    fn a_new_file_of_a_directory_must_be_readable_and_one_that_never_was_need_not() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let (live, staged) = (dir.path().join("live"), dir.path().join("staged"));
        for (dir, name) in [(&live, "key"), (&staged, "key"), (&staged, "new")] {
            std::fs::create_dir_all(dir).unwrap();
            std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
            std::fs::write(dir.join(name), "x").unwrap();
            std::fs::set_permissions(dir.join(name), std::fs::Permissions::from_mode(0o600))
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
