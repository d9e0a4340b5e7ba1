//! The processes of one scan, each with its parent and its executable.

use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{Arc, OnceLock},
};

use crate::{
    fleet::Group,
    host::{
        discover::inspect::{InspectError, inspect},
        net::sockets::Listeners,
        parallel::par_map::par_chunks,
        proc::table::{Row, TableReader},
    },
    kernel::{is_gone, pids, strip_deleted},
};

/// A process that may run the program of a group.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) pid: i32,
    pub(super) parent: Option<i32>,
    /// Without the kernel's mark of a deleted file; none if this user may not see it.
    pub(super) exe: Option<PathBuf>,
}

/// Every process of this host with its executable. One scan serves all groups.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// By pid.
    pub(super) entries: Vec<Entry>,
    by_parent: OnceLock<HashMap<i32, Vec<usize>>>,
    listeners: OnceLock<Result<Listeners, Arc<io::Error>>>,
}

impl Scan {
    /// Scans all processes.
    ///
    /// # Errors
    /// Fails if `/proc` cannot be listed.
    pub(crate) fn take() -> io::Result<Self> {
        Ok(Self::of(&pids()?))
    }

    /// Scans the processes with these pids, which are sorted. This process is never found.
    pub(crate) fn of(listed: &[i32]) -> Self {
        let own = std::process::id();
        let pids: Vec<i32> = listed
            .iter()
            .copied()
            .filter(|pid| u32::try_from(*pid) != Ok(own))
            .collect();
        let reader = TableReader::default();
        Self {
            entries: par_chunks(&pids, |pids| entries_of(pids, reader.rows(pids))),
            ..Self::default()
        }
    }

    /// Tells whether a process may be one of `group`, by its executable alone.
    pub(crate) fn may_be(&self, group: &Group, pid: i32) -> bool {
        let entry = self
            .entries
            .binary_search_by_key(&pid, |entry| entry.pid)
            .ok()
            .and_then(|index| self.entries.get(index));
        entry.is_some_and(|entry| {
            let exe = entry.exe.as_ref();
            exe.is_none_or(|exe| group.matching.has_exe(exe))
        })
    }

    /// The processes that `pid` started, without those that run no program.
    pub(super) fn children(&self, pid: i32) -> impl Iterator<Item = &Entry> {
        let by_parent = self.by_parent.get_or_init(|| {
            let mut map: HashMap<i32, Vec<usize>> = HashMap::new();
            for (index, entry) in self.entries.iter().enumerate() {
                if let Some(parent) = entry.parent {
                    map.entry(parent).or_default().push(index);
                }
            }
            map
        });
        by_parent
            .get(&pid)
            .into_iter()
            .flatten()
            .filter_map(|index| self.entries.get(*index))
    }

    pub(super) fn listeners(&self) -> Result<&Listeners, &Arc<io::Error>> {
        self.listeners
            .get_or_init(|| Listeners::read().map_err(Arc::new))
            .as_ref()
    }
}

/// Turns the rows of `pids` into entries. A row without an executable, or a pid without a row, is
/// read exactly: the table could not be read completely, or the process runs no program.
pub(super) fn entries_of(pids: &[i32], rows: Vec<Row>) -> Vec<Entry> {
    let mut rows = rows.into_iter().peekable();
    let entry = |pid: &i32| {
        let row = rows.next_if(|row| row.pid == *pid);
        let parent = row.as_ref().and_then(|row| row.parent);
        match row.and_then(|row| row.exe) {
            Some(exe) => Some(Entry {
                pid: *pid,
                parent,
                exe: Some(exe),
            }),
            None => exact_entry(*pid, parent),
        }
    };
    pids.iter().filter_map(entry).collect()
}

fn exact_entry(pid: i32, parent: Option<i32>) -> Option<Entry> {
    let exe = match std::fs::read_link(format!("/proc/{pid}/exe")) {
        Ok(exe) => Some(strip_deleted(&exe).to_owned()),
        // A zombie and a thread of the kernel have no executable.
        Err(e) if is_gone(&e) => return None,
        // A process whose executable cannot be read may belong to a group.
        Err(_) => None,
    };
    if exe.is_some() && parent.is_some() {
        return Some(Entry { pid, parent, exe });
    }
    let inspected = inspect(pid);
    if exe.is_none() && inspected.as_ref().is_err_and(|why| !may_match(why)) {
        return None;
    }
    Some(Entry {
        pid,
        parent: parent.or(inspected.ok().map(|process| process.parent)),
        exe,
    })
}

/// Tells whether a process that could not be read may belong to a group. One that hides everything
/// from this user takes no signal of it.
fn may_match(why: &InspectError) -> bool {
    matches!(why, InspectError::Failed(e) if e.kind() != io::ErrorKind::PermissionDenied)
}
