//! Which processes open the targets of a run after their signal, as fanotify(7) tells root.
//!
//! A target is marked once its new bytes stand there. The kernel names the opener by its pid before
//! the call that opens the file returns, so an opening that a proof rests on is known before the
//! proof is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, PipeReader, PipeWriter},
    os::{
        fd::AsFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::fanotify::{EventFFlags, Fanotify, FanotifyEvent, InitFlags, MarkFlags, MaskFlags},
};
use rustix::{
    fs::{FileType, OFlags, fstat},
    process::{Resource, getrlimit},
};

use crate::{
    host::proc::{guard, kernel::Stat},
    step::{PlannedInstance, TargetChange},
    tree::{Node, Tree},
};

/// With fewer descriptors than this the targets are not watched: the kernel opens one for each of
/// the [`EVENTS`].
const DESCRIPTORS: u64 = 1024;
/// The openings that one call of the kernel tells, each with a descriptor.
const EVENTS: u64 = 170;
/// The generations that are looked through for the instance that an opener descends from.
const GENERATIONS: usize = 64;
/// The time that an instance has for its openings after its proof: a counter may move before the
/// file is read.
const PATIENCE: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_millis(10);

/// What the kernel tells of an instance and its targets since its signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Opened {
    /// It, or a descendant of it, has opened each of them.
    Each,
    /// Neither it nor a descendant of it was seen to open this one.
    Not(PathBuf),
    /// The kernel was not asked, or does not tell whose descendant has opened it.
    Unknown,
}

/// Tells whether this process may ask the kernel who opens a file.
pub(crate) fn may_watch() -> bool {
    kernel().is_some()
}

/// The descriptors that the openings of a run may need at one moment.
pub(crate) fn descriptors() -> u64 {
    if may_watch() { EVENTS } else { 0 }
}

fn kernel() -> Option<Fanotify> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let (flags, of_files) = (
        InitFlags::FAN_CLASS_NOTIF | InitFlags::FAN_CLOEXEC | InitFlags::FAN_NONBLOCK,
        EventFFlags::O_CLOEXEC | EventFFlags::O_LARGEFILE,
    );
    (limit >= DESCRIPTORS)
        .then(|| Fanotify::init(flags, of_files).ok())
        .flatten()
}

/// The watch of one run.
#[derive(Debug, Default)]
pub(crate) struct Openings {
    /// None inside where this process may not watch.
    watch: OnceLock<Option<Watch>>,
}

/// The openings, and the thread that takes them in at once: a child that has read a file for its
/// parent is soon gone, and with it whose child it was.
#[derive(Debug)]
struct Watch {
    shared: Arc<Shared>,
    /// The thread ends once this is closed.
    _open: PipeWriter,
}

#[derive(Debug)]
struct Shared {
    kernel: Fanotify,
    seen: Mutex<Observed>,
}

#[derive(Debug, Default)]
struct Observed {
    /// Targets whose new files are all marked.
    marked: BTreeSet<PathBuf>,
    /// Targets by the device and inode of each of their files.
    targets: BTreeMap<(u64, u64), PathBuf>,
    /// Instances that may have been signalled, by their pids.
    signalled: BTreeMap<i32, Signalled>,
    /// Targets that a process opened of which it is not known whether it descends from an instance;
    /// and how many openings had been told by then.
    untold: BTreeMap<PathBuf, u64>,
    /// When the first of these was to be signalled, in clock ticks since boot.
    first: Option<u64>,
    /// Openings that were told until now.
    told: u64,
    /// Whether the kernel has dropped an opening: nothing is known from then on.
    lost: bool,
}

/// An instance since it was about to be signalled.
#[derive(Debug)]
struct Signalled {
    /// What it executed.
    exe: PathBuf,
    /// In clock ticks since boot.
    at: u64,
    /// Openings that were told before.
    told: u64,
    /// Targets that it or a descendant of it has opened.
    opened: BTreeSet<PathBuf>,
}

/// Whose opening it was.
enum Opener {
    /// The instance's of this pid, or of a descendant of it.
    Instance(i32),
    /// That of a process which descends from no instance, or only through a shell that was there
    /// before the signal.
    Other,
    /// The process has ended, or has lost its parent: it is not known.
    Unknown,
}

impl Watch {
    fn begin() -> Option<Self> {
        let told = Arc::new(Shared {
            kernel: kernel()?,
            seen: Mutex::default(),
        });
        let (closed, open) = io::pipe().ok()?;
        let for_thread = told.clone();
        std::thread::Builder::new()
            .name("openings".into())
            .spawn(move || for_thread.listen(&closed))
            .ok()?;
        Some(Self {
            shared: told,
            _open: open,
        })
    }
}

impl Shared {
    /// Takes in openings until `closed` is.
    fn listen(&self, closed: &PipeReader) {
        loop {
            let mut wait = [
                PollFd::new(self.kernel.as_fd(), PollFlags::POLLIN),
                PollFd::new(closed.as_fd(), PollFlags::POLLIN),
            ];
            let is_over = match poll(&mut wait, PollTimeout::NONE) {
                Ok(_) => wait[1].any().unwrap_or(true),
                Err(e) => e != Errno::EINTR,
            };
            if is_over {
                return;
            }
            drop(self.seen());
        }
    }

    /// Everything that the kernel has told until now.
    fn seen(&self) -> MutexGuard<'_, Observed> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match self.kernel.read_events() {
                Ok(events) => events.iter().for_each(|event| seen.event(event)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return seen,
                // Without a free descriptor the kernel drops what it would tell.
                Err(_) => {
                    seen.lost = true;
                    return seen;
                }
            }
        }
    }
}

impl Openings {
    /// Marks what stands at the targets of these shifts now. One that cannot be marked is not
    /// watched.
    pub(crate) fn mark<'a>(&self, shifts: impl Iterator<Item = &'a TargetChange>) {
        let Some(Watch { shared: told, .. }) = self.watch.get_or_init(Watch::begin) else {
            return;
        };
        let mut seen = told.seen();
        for shift in shifts {
            match files(shift)
                .iter()
                .map(|path| mark(&told.kernel, path))
                .collect::<io::Result<Vec<_>>>()
            {
                Ok(files) => {
                    seen.targets
                        .extend(files.into_iter().map(|file| (file, shift.path.clone())));
                    seen.marked.insert(shift.path.clone());
                }
                Err(_) => drop(seen.marked.remove(&shift.path)),
            }
        }
    }

    /// Counts the openings of `member` from now on: it is about to be signalled.
    pub(crate) fn begin(&self, member: &PlannedInstance) {
        if let Some(Some(Watch { shared: told, .. })) = self.watch.get() {
            let (mut seen, at) = (told.seen(), guard::ticks());
            seen.first.get_or_insert(at);
            let signalled = Signalled {
                exe: member.instance.exe.clone(),
                at,
                told: seen.told,
                opened: BTreeSet::new(),
            };
            seen.signalled.insert(member.instance.pid, signalled);
        }
    }

    /// What `member` has opened since its signal. Where that is not everything, it is waited for: a
    /// moment, or `left` where its proof depends on that.
    pub(crate) async fn of(&self, member: &PlannedInstance, left: Duration) -> Opened {
        let patience = if member.assumed.is_empty() {
            PATIENCE
        } else {
            left.max(PATIENCE)
        };
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let opened = self.now(member.instance.pid, &member.instance.targets);
            if !matches!(opened, Opened::Not(_)) || tokio::time::Instant::now() >= deadline {
                return opened;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn now(&self, pid: i32, targets: &[PathBuf]) -> Opened {
        let Some(Some(Watch { shared: told, .. })) = self.watch.get() else {
            return Opened::Unknown;
        };
        let seen = told.seen();
        let Some(signalled) = seen
            .signalled
            .get(&pid)
            .filter(|_| !seen.lost && !targets.is_empty())
        else {
            return Opened::Unknown;
        };
        let is_untold = |path: &PathBuf| {
            !seen.marked.contains(path)
                || seen
                    .untold
                    .get(path)
                    .is_some_and(|told| *told > signalled.told)
        };
        let mut missing = targets
            .iter()
            .filter(|path| !signalled.opened.contains(*path));
        match missing.clone().find(|path| !is_untold(path)) {
            Some(path) => Opened::Not(path.clone()),
            None if missing.next().is_some() => Opened::Unknown,
            None => Opened::Each,
        }
    }
}

impl Observed {
    fn event(&mut self, event: &FanotifyEvent) {
        self.told += 1;
        let Some(status) = event.fd().and_then(|fd| fstat(fd).ok()) else {
            // The queue was full, or there was no descriptor for the file.
            self.lost = true;
            return;
        };
        let Some(target) = self.targets.get(&(status.st_dev, status.st_ino)).cloned() else {
            return;
        };
        match self.opener(event.pid()) {
            Opener::Instance(pid) => {
                if let Some(signalled) = self.signalled.get_mut(&pid) {
                    signalled.opened.insert(target);
                }
            }
            Opener::Unknown => drop(self.untold.insert(target, self.told)),
            Opener::Other => {}
        }
    }

    /// Whose opening that of the process `pid` is. A descendant opens for an instance where each
    /// process between the two executes what the instance does, or came after the signal: a shell
    /// below a daemon is no part of that.
    fn opener(&self, pid: i32) -> Opener {
        let (mut at, mut between) = (pid, Vec::<(u64, Option<PathBuf>)>::new());
        for _ in 0..GENERATIONS {
            if i32::try_from(std::process::id()) == Ok(at) {
                return Opener::Other;
            }
            if let Some(signalled) = self.signalled.get(&at) {
                let is_its_own = between.iter().all(|(started, exe)| {
                    *started >= signalled.at || exe.as_ref() == Some(&signalled.exe)
                });
                return if is_its_own {
                    Opener::Instance(at)
                } else {
                    Opener::Other
                };
            }
            let Ok(stat) = Stat::of(at) else {
                return Opener::Unknown;
            };
            if stat.parent <= 0 || at == 1 {
                break;
            }
            between.push((
                stat.started,
                std::fs::read_link(format!("/proc/{at}/exe")).ok(),
            ));
            // An orphan that came after a signal may be an instance's.
            if stat.parent == 1
                && self.first.is_none_or(|first| stat.started >= first)
                && !self.signalled.contains_key(&1)
            {
                return Opener::Unknown;
            }
            at = stat.parent;
        }
        Opener::Other
    }
}

/// The new files of a shift; those that are there where none is new. For an entry that was removed,
/// and for a link, it is the directory: its names are read again.
fn files(shift: &TargetChange) -> Vec<PathBuf> {
    let Some(tree) = &shift.to.tree else {
        return vec![shift.path.clone()];
    };
    let empty = Tree {
        mode: tree.mode,
        entries: BTreeMap::new(),
    };
    let from = shift
        .from
        .as_ref()
        .filter(|from| from.sha256 != shift.to.sha256)
        .and_then(|from| from.tree.as_deref());
    let mut all = vec![];
    for difference in from.unwrap_or(&empty).differences(tree) {
        let path = shift.path.join(&difference.path);
        match difference.new {
            Some(Node::File(..)) => all.push(path),
            Some(Node::Tree(_)) => {}
            Some(Node::Link(_)) | None => all.extend(
                path.ancestors()
                    .skip(1)
                    .find(|dir| dir.is_dir())
                    .map(Path::to_owned),
            ),
        }
    }
    if all.is_empty() {
        all.push(shift.path.clone());
    }
    all
}

fn mark(kernel: &Fanotify, path: &Path) -> io::Result<(u64, u64)> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits())
        .map_err(io::Error::other)?;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let status = file.metadata()?;
    if !matches!(
        FileType::from_raw_mode(status.mode()),
        FileType::RegularFile | FileType::Directory
    ) {
        return Err(io::Error::other("is neither a file nor a directory"));
    }
    kernel.mark(
        MarkFlags::FAN_MARK_ADD,
        MaskFlags::FAN_OPEN | MaskFlags::FAN_ONDIR,
        &file,
        None::<&Path>,
    )?;
    Ok((status.dev(), status.ino()))
}

#[cfg(test)]
mod tests;
