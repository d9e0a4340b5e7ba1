//! The kernel's notice of changes (inotify(7)), and what it does not cover.

use std::{
    collections::HashMap,
    ffi::OsStr,
    mem::MaybeUninit,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init, remove_watch},
        statfs,
    },
    io::Errno,
};
use tokio::io::unix::AsyncFd;

use super::places::{Names, Places};

/// Bytes for one read of events: hundreds of them.
const BUFFER: usize = 16 << 10;

/// Filesystems on which another machine, or a server, makes changes without an event here: their
/// magic numbers (statfs(2)) and names.
const WITHOUT_EVENTS: [(u64, &str); 9] = [
    (0x6969, "nfs"),
    (0x517b, "smb"),
    (0xfe53_4d42, "smb2"),
    (0xff53_4d42, "cifs"),
    (0x6573_5546, "fuse"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "ceph"),
    (0x5346_414f, "afs"),
    (0x0bd0_0bd0, "lustre"),
];

/// Why a place is not watched. It is read at intervals instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unwatched {
    /// inotify_init1(2) fails with EMFILE.
    #[error("the limit fs.inotify.max_user_instances is reached")]
    Instances,
    /// inotify_add_watch(2) fails with ENOSPC.
    #[error("the limit fs.inotify.max_user_watches is reached")]
    Watches,
    #[error("`{path}` is on {1}, which does not tell all changes", path = .0.display())]
    Filesystem(PathBuf, &'static str),
    #[error("`{path}` cannot be watched: {1}", path = .0.display())]
    Other(PathBuf, Errno),
    #[error("inotify cannot be used: {0}")]
    Unusable(Errno),
}

/// The watched places.
#[derive(Debug, Default)]
pub(super) struct Watches {
    inotify: Option<AsyncFd<OwnedFd>>,
    /// The names that count, by the number of the watch; none for a file.
    watched: HashMap<i32, Option<Names>>,
}

impl Watches {
    /// Watches exactly `places`. Returns why some of them are not watched, if that is so.
    pub(super) fn arm(&mut self, places: &Places) -> Option<Unwatched> {
        let mut unwatched = None;
        if self.inotify.is_none() {
            match open() {
                Ok(inotify) => self.inotify = Some(inotify),
                Err(why) => return Some(why),
            }
        }
        let inotify = self.inotify.as_ref()?;
        let mut armed: HashMap<i32, Option<Names>> = HashMap::new();
        let directories = places.directories.iter();
        let directories = directories.map(|(path, names)| (path, Some(names.clone())));
        for (path, names) in directories.chain(places.files.iter().map(|path| (path, None))) {
            match add(inotify.get_ref(), path, names.is_some()) {
                Ok(number) => merge(armed.entry(number).or_insert_with(|| names.clone()), names),
                // It is gone; the directory above it tells when it is there again.
                Err(Unwatched::Other(_, Errno::NOENT | Errno::NOTDIR)) => {}
                Err(why) => drop(unwatched.get_or_insert(why)),
            }
            if let Some(name) = filesystem_without_events(path) {
                unwatched.get_or_insert(Unwatched::Filesystem(path.clone(), name));
            }
        }
        for number in self.watched.keys().filter(|old| !armed.contains_key(old)) {
            // The kernel has removed the watch of a place that is gone.
            let _ = remove_watch(inotify.get_ref(), *number);
        }
        self.watched = armed;
        unwatched
    }

    /// Waits until something has changed at a watched place. All pending events are taken.
    pub(super) async fn changed(&self) {
        let Some(inotify) = &self.inotify else {
            return std::future::pending().await;
        };
        loop {
            let Ok(mut ready) = inotify.readable().await else {
                return std::future::pending().await;
            };
            let is_change = self.take(inotify.get_ref());
            ready.clear_ready();
            if is_change {
                return;
            }
        }
    }

    /// Takes all pending events. Returns true if one counts.
    fn take(&self, inotify: &OwnedFd) -> bool {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut reader = Reader::new(inotify, &mut buffer);
        let mut is_change = false;
        while let Ok(event) = reader.next() {
            let name = event
                .file_name()
                .map(|name| OsStr::from_bytes(name.to_bytes()));
            is_change |= self.counts(event.wd(), event.events(), name);
        }
        is_change
    }

    fn counts(&self, watch: i32, events: ReadFlags, name: Option<&OsStr>) -> bool {
        if events.contains(ReadFlags::QUEUE_OVERFLOW) {
            return true;
        }
        match (self.watched.get(&watch), name) {
            // An event of a place that is watched no longer.
            (None, _) => false,
            (Some(Some(names)), Some(name)) => names.has(name),
            // The place itself has changed.
            (Some(_), _) => true,
        }
    }
}

/// Adds names to those of the same directory, which may have several paths.
fn merge(known: &mut Option<Names>, more: Option<Names>) {
    match (known, more) {
        (Some(Names::Some(known)), Some(Names::Some(more))) => known.extend(more),
        (Some(known), Some(Names::All)) => *known = Names::All,
        _ => {}
    }
}

fn open() -> Result<AsyncFd<OwnedFd>, Unwatched> {
    let fd = init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC).map_err(|e| match e {
        Errno::MFILE => Unwatched::Instances,
        e => Unwatched::Unusable(e),
    })?;
    #[expect(
        deprecated,
        reason = "the owned descriptor stays open, and the replacement is unsafe to call"
    )]
    let watched = AsyncFd::new(fd);
    watched.map_err(|e| Unwatched::Unusable(Errno::from_io_error(&e).unwrap_or(Errno::IO)))
}

fn add(inotify: &OwnedFd, path: &Path, is_directory: bool) -> Result<i32, Unwatched> {
    let own = WatchFlags::DELETE_SELF | WatchFlags::MOVE_SELF | WatchFlags::ATTRIB;
    let content = WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE;
    let flags = if is_directory {
        let entries = WatchFlags::CREATE | WatchFlags::DELETE | WatchFlags::MOVE;
        own | content | entries | WatchFlags::ONLYDIR
    } else {
        own | content
    };
    add_watch(inotify, path, flags).map_err(|e| match e {
        Errno::NOSPC => Unwatched::Watches,
        e => Unwatched::Other(path.to_owned(), e),
    })
}

/// Returns the name of the filesystem at `path` if it does not tell all changes.
fn filesystem_without_events(path: &Path) -> Option<&'static str> {
    let magic = u64::try_from(statfs(path).ok()?.f_type).ok()? & 0xffff_ffff;
    WITHOUT_EVENTS
        .iter()
        .find(|(known, _)| *known == magic)
        .map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use std::{fs, time::Duration};

    use super::*;

    async fn is_seen(watches: &Watches) -> bool {
        tokio::time::timeout(Duration::from_secs(20), watches.changed())
            .await
            .is_ok()
    }

    fn pending(watches: &Watches) -> bool {
        watches.take(watches.inotify.as_ref().unwrap().get_ref())
    }

    fn armed(path: &Path) -> Watches {
        let mut places = Places::default();
        places.add(path, &[]);
        let mut watches = Watches::default();
        assert_eq!(watches.arm(&places), None);
        watches
    }

    #[tokio::test]
    async fn a_write_to_the_file_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x");
        fs::write(&file, "one").unwrap();
        let watches = armed(&file);
        assert!(!pending(&watches));
        fs::write(&file, "two").unwrap();
        assert!(is_seen(&watches).await);
    }

    #[tokio::test]
    async fn a_file_of_another_name_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("x"), "one").unwrap();
        let watches = armed(&dir.path().join("x"));
        fs::write(dir.path().join("y"), "two").unwrap();
        assert!(!pending(&watches));
    }

    #[tokio::test]
    async fn the_creation_of_a_missing_file_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a/x");
        let watches = armed(&file);
        fs::create_dir(dir.path().join("a")).unwrap();
        assert!(is_seen(&watches).await);
    }

    #[tokio::test]
    async fn a_place_that_is_watched_no_longer_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let old = dir.path().join("old");
        fs::write(&old, "one").unwrap();
        let mut watches = armed(&old);
        let mut places = Places::default();
        places.add(&dir.path().join("new"), &[]);
        assert_eq!(watches.arm(&places), None);
        fs::write(&old, "two").unwrap();
        assert!(!pending(&watches));
    }
}
