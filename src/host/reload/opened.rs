//! Which processes open the targets of a run after their signal, as fanotify(7) tells root.
//!
//! A target is marked once its new bytes are installed. The kernel reports the pid of the opener
//! before the call that opens the file returns. An opening that a proof rests on is therefore known
//! before the proof is.

use std::{
    collections::BTreeSet,
    io::{self, PipeReader, PipeWriter},
    os::fd::AsFd,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::fanotify::{EventFFlags, Fanotify, InitFlags},
};
use rustix::process::{Resource, getrlimit};

use self::{
    marks::{mark, marked_files},
    observed::{Observed, Signalled},
};
use crate::{
    host::proc::guard,
    step::{PlannedInstance, TargetChange},
};

pub(crate) use self::observed::Opened;

mod marks;
mod observed;

/// The limit of descriptors below which the targets are not watched: the kernel opens one for each
/// of [`MAX_EVENTS`].
const MIN_DESCRIPTORS: u64 = 1024;
/// The most events that one read returns, each with a descriptor.
const MAX_EVENTS: u64 = 170;
/// The time after its proof in which an instance may open its targets: a counter may change before
/// the file is read.
const OPENING_WAIT: Duration = Duration::from_millis(250);
/// The pause between two checks of what an instance has opened.
const PAUSE: Duration = Duration::from_millis(10);

/// Tells whether this process may watch which processes open a file.
pub(crate) fn may_watch() -> bool {
    fanotify().is_some()
}

/// Returns the most descriptors that the events of a run may need at the same time.
pub(crate) fn descriptors() -> u64 {
    if may_watch() { MAX_EVENTS } else { 0 }
}

fn fanotify() -> Option<Fanotify> {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if limit < MIN_DESCRIPTORS {
        return None;
    }
    Fanotify::init(
        InitFlags::FAN_CLASS_NOTIF | InitFlags::FAN_CLOEXEC | InitFlags::FAN_NONBLOCK,
        EventFFlags::O_CLOEXEC | EventFFlags::O_LARGEFILE,
    )
    .ok()
}

/// The watch of one run on the openings of its targets.
#[derive(Debug, Default)]
pub(crate) struct Openings {
    /// Holds `None` if this process may not watch.
    watch: OnceLock<Option<Watch>>,
}

/// The events, and the thread that reads them at once. A child that has read a file for its parent
/// ends soon, and its parent can be looked up only while it lives.
#[derive(Debug)]
struct Watch {
    shared: Arc<Shared>,
    /// The thread ends once this is closed.
    _open: PipeWriter,
}

#[derive(Debug)]
struct Shared {
    fanotify: Fanotify,
    observed: Mutex<Observed>,
}

impl Watch {
    fn begin() -> Option<Self> {
        let shared = Arc::new(Shared {
            fanotify: fanotify()?,
            observed: Mutex::default(),
        });
        let (closed, open) = io::pipe().ok()?;
        let for_thread = shared.clone();
        std::thread::Builder::new()
            .name("openings".into())
            .spawn(move || for_thread.listen(&closed))
            .ok()?;
        Some(Self {
            shared,
            _open: open,
        })
    }
}

impl Shared {
    /// Reads events until the other end of `closed` is closed.
    fn listen(&self, closed: &PipeReader) {
        loop {
            let mut wait = [
                PollFd::new(self.fanotify.as_fd(), PollFlags::POLLIN),
                PollFd::new(closed.as_fd(), PollFlags::POLLIN),
            ];
            let is_over = match poll(&mut wait, PollTimeout::NONE) {
                Ok(_) => wait[1].any().unwrap_or(true),
                Err(e) => e != Errno::EINTR,
            };
            if is_over {
                return;
            }
            drop(self.observed());
        }
    }

    /// Returns everything that the kernel has reported until now.
    fn observed(&self) -> MutexGuard<'_, Observed> {
        let mut observed = self.observed.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match self.fanotify.read_events() {
                Ok(events) => events.iter().for_each(|event| observed.add(event)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return observed,
                // Without a free descriptor the kernel drops the events.
                Err(_) => {
                    observed.is_incomplete = true;
                    return observed;
                }
            }
        }
    }
}

impl Openings {
    /// Marks the present files of the targets of `changes`. A target with a file that cannot be
    /// marked is not watched.
    pub(crate) fn mark<'a>(&self, changes: impl Iterator<Item = &'a TargetChange>) {
        let Some(Watch { shared, .. }) = self.watch.get_or_init(Watch::begin) else {
            return;
        };
        let mut observed = shared.observed();
        for change in changes {
            match marked_files(change)
                .iter()
                .map(|path| mark(&shared.fanotify, path))
                .collect::<io::Result<Vec<_>>>()
            {
                Ok(files) => {
                    observed
                        .targets
                        .extend(files.into_iter().map(|file| (file, change.path.clone())));
                    observed.marked.insert(change.path.clone());
                }
                Err(_) => drop(observed.marked.remove(&change.path)),
            }
        }
    }

    /// Counts the openings of `member` from now on: it is about to be signalled.
    pub(crate) fn begin(&self, member: &PlannedInstance) {
        let Some(Watch { shared, .. }) = self.started() else {
            return;
        };
        let mut observed = shared.observed();
        let now = guard::ticks();
        observed.first_signal.get_or_insert(now);
        let signalled = Signalled {
            exe: member.instance.exe.clone(),
            ticks: now,
            events_before: observed.events,
            opened: BTreeSet::new(),
        };
        observed.signalled.insert(member.instance.pid, signalled);
    }

    /// Returns which targets `member` has opened since its signal. Until it has opened each one,
    /// waits for at most [`OPENING_WAIT`], or for `left` if its proof depends on that.
    pub(crate) async fn of(&self, member: &PlannedInstance, left: Duration) -> Opened {
        let patience = if member.assumed.is_empty() {
            OPENING_WAIT
        } else {
            left.max(OPENING_WAIT)
        };
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            let opened = self.opened_by(member.instance.pid, &member.instance.targets);
            if !matches!(opened, Opened::Not(_)) || tokio::time::Instant::now() >= deadline {
                return opened;
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn opened_by(&self, pid: i32, targets: &[PathBuf]) -> Opened {
        self.started().map_or(Opened::Unknown, |watch| {
            watch.shared.observed().opened_by(pid, targets)
        })
    }

    /// Returns the watch, if it was started and this process may watch.
    fn started(&self) -> Option<&Watch> {
        self.watch.get()?.as_ref()
    }
}

#[cfg(test)]
mod tests;
