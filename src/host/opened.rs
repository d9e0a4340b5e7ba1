//! Which processes open the targets of a run after their signal, as fanotify(7) tells root.
//!
//! A target is marked once its new bytes stand there. The kernel names the opener by its pid before the call that opens the
//! file returns, so an opening that a proof rests on is known before the proof is.

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
    host::kernel::Stat,
    step::{Blob, Member, Shift},
    tree::{Node, Tree},
};

/// With fewer descriptors than this nobody watches: the kernel opens one for each of the [`EVENTS`] that it tells at once.
const DESCRIPTORS: u64 = 1024;
/// So many openings are told at once, each with a descriptor.
pub(super) const EVENTS: u64 = 170;
/// So many generations are looked through for the instance that an opener descends from.
const GENERATIONS: usize = 16;
/// So long an instance that has shown its proof is given to open its targets: a counter may move before the file is read.
const PATIENCE: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_millis(5);

/// What the kernel tells of an instance and its targets since its signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Opened {
    /// It, or a descendant of it, has opened each of them.
    Each,
    /// Neither it nor a descendant of it was seen to open this one.
    Not(PathBuf),
    /// Nobody has watched.
    Unknown,
}

/// Tells whether this process may ask the kernel who opens a file.
pub(crate) fn may_watch() -> bool {
    kernel().is_some()
}

fn kernel() -> Option<Fanotify> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let (flags, of_files) = (InitFlags::FAN_CLASS_NOTIF | InitFlags::FAN_CLOEXEC | InitFlags::FAN_NONBLOCK, EventFFlags::O_CLOEXEC | EventFFlags::O_LARGEFILE);
    (limit >= DESCRIPTORS).then(|| Fanotify::init(flags, of_files).ok()).flatten()
}

/// The watch of one run.
#[derive(Debug, Default)]
pub(super) struct Openings {
    /// None inside where this process may not watch.
    watch: OnceLock<Option<Watch>>,
}

/// The openings, and the thread that takes them in at once: a child that has read a file for its parent is soon gone, and
/// with it whose child it was.
#[derive(Debug)]
struct Watch {
    told: Arc<Told>,
    /// The thread ends once this is closed.
    _open: PipeWriter,
}

#[derive(Debug)]
struct Told {
    kernel: Fanotify,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    /// Targets every file of which is marked.
    marked: BTreeSet<PathBuf>,
    /// Targets by the device and inode of each of their files.
    targets: BTreeMap<(u64, u64), PathBuf>,
    /// Instances that may have been signalled.
    signalled: BTreeSet<i32>,
    /// Instances, and the targets that they have opened.
    by: BTreeSet<(i32, PathBuf)>,
    /// Whether the kernel has dropped openings: nothing is known from then on.
    lost: bool,
}

impl Watch {
    fn begin() -> Option<Self> {
        let told = Arc::new(Told { kernel: kernel()?, seen: Mutex::default() });
        let (closed, open) = io::pipe().ok()?;
        let for_thread = told.clone();
        std::thread::Builder::new().name("openings".into()).spawn(move || for_thread.listen(&closed)).ok()?;
        Some(Self { told, _open: open })
    }
}

impl Told {
    /// Takes in openings until `closed` is.
    fn listen(&self, closed: &PipeReader) {
        loop {
            let mut wait = [PollFd::new(self.kernel.as_fd(), PollFlags::POLLIN), PollFd::new(closed.as_fd(), PollFlags::POLLIN)];
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
    fn seen(&self) -> MutexGuard<'_, Seen> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        while let Ok(events) = self.kernel.read_events() {
            events.iter().for_each(|event| seen.event(event));
        }
        seen
    }
}

impl Openings {
    /// Marks what stands at the targets of these shifts now. One that cannot be marked is not watched.
    pub(super) fn mark<'a>(&self, shifts: impl Iterator<Item = &'a Shift>) {
        let Some(Watch { told, .. }) = self.watch.get_or_init(Watch::begin) else { return };
        let mut seen = told.seen();
        for shift in shifts {
            match marked(&told.kernel, &shift.path, &shift.to) {
                Ok(files) => {
                    seen.targets.extend(files.into_iter().map(|file| (file, shift.path.clone())));
                    seen.marked.insert(shift.path.clone());
                }
                Err(_) => drop(seen.marked.remove(&shift.path)),
            }
        }
    }

    /// Counts the openings of `member` from now on: it is about to be signalled.
    pub(super) fn begin(&self, member: &Member) {
        if let Some(Some(Watch { told, .. })) = self.watch.get() {
            let (mut seen, pid) = (told.seen(), member.instance.pid);
            seen.signalled.insert(pid);
            seen.by.retain(|(opener, _)| *opener != pid);
        }
    }

    /// What `member` has opened since its signal; it is waited for a moment where that is not everything.
    pub(super) async fn of(&self, member: &Member) -> Opened {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let opened = self.now(member.instance.pid, &member.instance.targets);
            if !matches!(opened, Opened::Not(_)) || tokio::time::Instant::now() >= deadline {
                return opened;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn now(&self, pid: i32, targets: &[PathBuf]) -> Opened {
        let Some(Some(Watch { told, .. })) = self.watch.get() else { return Opened::Unknown };
        let seen = told.seen();
        if seen.lost || targets.is_empty() || !targets.iter().all(|path| seen.marked.contains(path)) {
            return Opened::Unknown;
        }
        targets.iter().find(|path| !seen.by.contains(&(pid, (*path).clone()))).map_or(Opened::Each, |path| Opened::Not(path.clone()))
    }
}

impl Seen {
    fn event(&mut self, event: &FanotifyEvent) {
        self.lost |= event.mask().contains(MaskFlags::FAN_Q_OVERFLOW);
        let Some(status) = event.fd().and_then(|fd| fstat(fd).ok()) else { return };
        let Some(target) = self.targets.get(&(status.st_dev, status.st_ino)).cloned() else { return };
        let mut opener = event.pid();
        for _ in 0..GENERATIONS {
            if self.signalled.contains(&opener) {
                self.by.insert((opener, target));
                return;
            }
            match Stat::of(opener) {
                Ok(stat) if stat.parent > 1 => opener = stat.parent,
                _ => return,
            }
        }
    }
}

/// Marks the file, or every file and directory of the directory, at `path`; their devices and inodes.
///
/// # Errors
/// The system's: of one of them it is not known who opens it.
fn marked(kernel: &Fanotify, path: &Path, is: &Blob) -> io::Result<Vec<(u64, u64)>> {
    let mut all = vec![path.to_owned()];
    if let Some(tree) = &is.tree {
        below(tree, path, &mut all);
    }
    all.iter().map(|path| mark(kernel, path)).collect()
}

/// Every file and directory in `tree`, which stands at `at`.
fn below(tree: &Tree, at: &Path, all: &mut Vec<PathBuf>) {
    for (name, node) in &tree.entries {
        match node {
            Node::File(..) => all.push(at.join(name)),
            Node::Tree(tree) => {
                all.push(at.join(name));
                below(tree, &at.join(name), all);
            }
            // What a link leads to is no part of the target.
            Node::Link(_) => {}
        }
    }
}

fn mark(kernel: &Fanotify, path: &Path) -> io::Result<(u64, u64)> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits()).map_err(io::Error::other)?;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let status = file.metadata()?;
    if !matches!(FileType::from_raw_mode(status.mode()), FileType::RegularFile | FileType::Directory) {
        return Err(io::Error::other("is neither a file nor a directory"));
    }
    kernel.mark(MarkFlags::FAN_MARK_ADD, MaskFlags::FAN_OPEN | MaskFlags::FAN_ONDIR, &file, None::<&Path>)?;
    Ok((status.dev(), status.ino()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test says so by failing")]
    use super::*;
    use crate::{event::Instance, fleet::Fleet};

    fn member(targets: &[&Path]) -> Member {
        let group = Fleet::of_kind("nginx").unwrap().groups.remove(0);
        let pid = i32::try_from(std::process::id()).unwrap();
        let instance = Instance { targets: targets.iter().map(|path| path.to_path_buf()).collect(), ..Instance::new("g", pid, 1) };
        Member::new(instance, Arc::new(group), Vec::new())
    }

    #[test]
    fn only_what_is_opened_after_the_signal_counts() {
        if !may_watch() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| dir.path().join(name));
        [&one, &other].iter().for_each(|path| std::fs::write(path, "x").unwrap());
        let shift = |path: &PathBuf| Shift { path: path.clone(), from: None, to: Blob::read(path).unwrap(), secret: false };
        let openings = Openings::default();
        let (member, pid) = (member(&[&one, &other]), i32::try_from(std::process::id()).unwrap());
        let now = || openings.now(pid, &member.instance.targets);
        assert_eq!(now(), Opened::Unknown);
        openings.mark([shift(&one)].iter());
        assert_eq!(now(), Opened::Unknown, "one of them is not watched");
        openings.mark([shift(&one), shift(&other)].iter());
        File::open(&one).unwrap();
        openings.begin(&member);
        assert_eq!(now(), Opened::Not(one.clone()));
        File::open(&one).unwrap();
        assert_eq!(now(), Opened::Not(other.clone()));
        File::open(&other).unwrap();
        assert_eq!(now(), Opened::Each);
        openings.begin(&member);
        assert_eq!(now(), Opened::Not(one), "it is signalled once more");
    }
}
