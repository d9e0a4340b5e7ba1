//! The openings that the kernel has reported, by instance.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use nix::sys::fanotify::FanotifyEvent;
use rustix::fs::fstat;

use crate::kernel::Stat;

/// The most ancestors of an opener that are checked for an instance.
const MAX_ANCESTORS: usize = 64;

/// The report of the kernel on an instance and its targets since its signal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Opened {
    /// The instance, or a descendant of it, has opened each target.
    Each,
    /// Neither the instance nor a descendant of it was seen to open this target.
    Not(PathBuf),
    /// The targets are not watched, or it is not known from which instance an opener descends.
    Unknown,
}

/// The openings of a run until now.
#[derive(Debug, Default)]
pub(super) struct Observed {
    /// The targets whose new files are all marked.
    pub(super) marked: BTreeSet<PathBuf>,
    /// The targets by the device and inode of each of their files.
    pub(super) targets: BTreeMap<(u64, u64), PathBuf>,
    /// The instances that may have been signalled, by their pids.
    pub(super) signalled: BTreeMap<i32, Signalled>,
    /// The targets with an opener that may or may not descend from an instance. The value is the
    /// number of events until the last such opening.
    unattributed: BTreeMap<PathBuf, u64>,
    /// When the first instance was about to be signalled, in clock ticks since boot.
    pub(super) first_signal: Option<u64>,
    /// The number of events until now.
    pub(super) events: u64,
    /// True if the kernel has dropped an event. Nothing is known from then on.
    pub(super) is_incomplete: bool,
}

/// An instance since it was about to be signalled.
#[derive(Debug)]
pub(super) struct Signalled {
    /// The executable of the instance.
    pub(super) exe: PathBuf,
    /// When it was about to be signalled, in clock ticks since boot.
    pub(super) ticks: u64,
    /// The number of events before that.
    pub(super) events_before: u64,
    /// The targets that the instance or a descendant of it has opened.
    pub(super) opened: BTreeSet<PathBuf>,
}

/// The origin of an opening.
enum Opener {
    /// The instance of this pid, or a descendant of it.
    Instance(i32),
    /// A process that descends from no instance, or only through a shell that was there before the
    /// signal.
    Other,
    /// Unknown: the process has ended, or has lost its parent.
    Unknown,
}

impl Observed {
    /// Adds an event of the kernel.
    pub(super) fn add(&mut self, event: &FanotifyEvent) {
        self.events += 1;
        let Some(status) = event.fd().and_then(|fd| fstat(fd).ok()) else {
            // The queue was full, or there was no descriptor for the file.
            self.is_incomplete = true;
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
            Opener::Unknown => drop(self.unattributed.insert(target, self.events)),
            Opener::Other => {}
        }
    }

    /// Returns which of `targets` the instance has opened since its signal.
    pub(super) fn opened_by(&self, pid: i32, targets: &[PathBuf]) -> Opened {
        let Some(signalled) = self
            .signalled
            .get(&pid)
            .filter(|_| !self.is_incomplete && !targets.is_empty())
        else {
            return Opened::Unknown;
        };
        let is_unknown = |path: &PathBuf| {
            !self.marked.contains(path)
                || self
                    .unattributed
                    .get(path)
                    .is_some_and(|event| *event > signalled.events_before)
        };
        let mut missing = targets
            .iter()
            .filter(|path| !signalled.opened.contains(*path));
        match missing.clone().find(|path| !is_unknown(path)) {
            Some(path) => Opened::Not(path.clone()),
            None if missing.next().is_some() => Opened::Unknown,
            None => Opened::Each,
        }
    }

    /// Returns the origin of an opening by the process `pid`. A descendant opens for an instance if
    /// each process between the two executes what the instance does, or started after the signal.
    /// A shell below a daemon does not open for it.
    fn opener(&self, pid: i32) -> Opener {
        let mut ancestor = pid;
        let mut between = Vec::<(u64, Option<PathBuf>)>::new();
        for _ in 0..MAX_ANCESTORS {
            if i32::try_from(std::process::id()) == Ok(ancestor) {
                return Opener::Other;
            }
            if let Some(signalled) = self.signalled.get(&ancestor) {
                let is_its_own = between.iter().all(|(started, exe)| {
                    *started >= signalled.ticks || exe.as_ref() == Some(&signalled.exe)
                });
                return if is_its_own {
                    Opener::Instance(ancestor)
                } else {
                    Opener::Other
                };
            }
            let Ok(stat) = Stat::of(ancestor) else {
                return Opener::Unknown;
            };
            if stat.parent <= 0 || ancestor == 1 {
                break;
            }
            between.push((
                stat.started,
                std::fs::read_link(format!("/proc/{ancestor}/exe")).ok(),
            ));
            // An orphan that started after a signal may be an instance's.
            if stat.parent == 1
                && self.first_signal.is_none_or(|first| stat.started >= first)
                && !self.signalled.contains_key(&1)
            {
                return Opener::Unknown;
            }
            ancestor = stat.parent;
        }
        Opener::Other
    }
}
