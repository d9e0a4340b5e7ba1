//! The targets of every instance, and which content each runs, for `hello diff`. No validator is
//! run, and no assertion is probed.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use super::{
    Unreadable, find,
    probe::StatusProbe,
    row::{KnownBy, Row},
};
use crate::{
    fleet::{Fleet, Group},
    host::{
        discover::found::Found, target::install::InstallError, validate::current::CurrentTarget,
    },
    step::Content,
};

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// The targets on the disk, and what each instance runs.
    Running,
    /// The targets on the disk.
    Disk,
}

/// The targets of all instances.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    pub instances: Vec<InstanceTargets>,
    /// Processes that match and were not read: pid and reason.
    pub skipped: Vec<(i32, String)>,
}

/// The targets of one instance.
#[derive(Debug)]
pub(crate) struct InstanceTargets {
    /// The place of its group in the fleet.
    pub group: usize,
    pub pid: i32,
    pub targets: Vec<ReadTarget>,
    /// Why the proofs of earlier runs say nothing of it.
    pub doubt: Option<String>,
    /// Why its targets, or what it runs, are not known.
    pub faults: Vec<String>,
}

/// A target as it is on the disk, and as an instance runs it.
#[derive(Debug)]
pub(crate) struct ReadTarget {
    pub path: PathBuf,
    /// The content on the disk, or why it cannot be read.
    pub disk: Result<Content, InstallError>,
    /// True if the content must not be shown.
    pub secret: bool,
    /// The digest of the content that the instance runs; none if it is not known.
    pub runs: Option<String>,
}

/// Reads the targets of every instance. `state` has the proofs of earlier runs.
///
/// # Errors
/// Fails if the processes or their sockets cannot be read.
pub(crate) async fn read_targets(
    fleet: &Fleet,
    state: Option<&Path>,
    state_args: &str,
    ask: Ask,
) -> Result<Readings, Unreadable> {
    let (probe, finds) = find(fleet, state, state_args).await?;
    let contents = Contents::default();
    let mut readings = Readings::default();
    for (index, (group, finds)) in fleet.groups.iter().zip(finds).enumerate() {
        let read = finds
            .found
            .iter()
            .map(|found| read(&probe, (index, group), found, ask, &contents));
        readings
            .instances
            .extend(futures_util::future::join_all(read).await);
        let refused = finds
            .refused
            .into_iter()
            .map(|(found, why)| (found.pid, why));
        let unread = finds
            .skipped
            .into_iter()
            .chain(refused)
            .chain(finds.missing);
        readings
            .skipped
            .extend(unread.map(|(pid, why)| (pid, why.to_string())));
    }
    Ok(readings)
}

/// Each content once: many instances read the same target.
#[derive(Default)]
struct Contents(RefCell<BTreeMap<PathBuf, Content>>);

impl Contents {
    fn once(&self, path: &Path, content: Content) -> Content {
        let mut known = self.0.borrow_mut();
        match known.get(path) {
            Some(same) if same.sha256 == content.sha256 => same.clone(),
            _ => {
                known.insert(path.into(), content.clone());
                content
            }
        }
    }
}

async fn read(
    probe: &StatusProbe,
    (index, group): (usize, &Group),
    found: &Found,
    ask: Ask,
    contents: &Contents,
) -> InstanceTargets {
    let mut row = Row::new(group, found.pid, found.started);
    let current = match ask {
        Ask::Running => probe.read_targets(&mut row, group, found).await,
        Ask::Disk => {
            let current = CurrentTarget::of(found, group).await;
            row.faults
                .extend(current.as_ref().err().map(ToString::to_string));
            current.ok()
        }
    };
    let runs: BTreeMap<&Path, &str> = row
        .targets
        .iter()
        .filter(|target| target.known != KnownBy::No)
        .filter_map(|target| Some((target.path.as_path(), target.runs.as_deref()?)))
        .collect();
    let targets = current.into_iter().flatten().map(|target| ReadTarget {
        runs: runs
            .get(target.path.as_path())
            .map(|runs| (*runs).to_owned()),
        disk: target.disk.map(|disk| contents.once(&target.path, disk)),
        secret: target.secret,
        path: target.path,
    });
    InstanceTargets {
        group: index,
        pid: found.pid,
        targets: targets.collect(),
        doubt: row.doubt,
        faults: row.faults,
    }
}
